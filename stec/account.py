"""A run, told as plain data for its report: pairs, what the model reads in them, curves and a map."""

import platform
import shlex
from collections.abc import Iterator, Mapping

import torch

from stec.actions import sample_views
from stec.build import Model
from stec.data import Splits
from stec.evaluation.features import Table, extract, frozen
from stec.evaluation.probes import table as rows_of
from stec.evaluation.suite import Row
from stec.manipulation.binned import Binned
from stec.measure import Measure
from stec.report.charts import NUM_COLOURS
from stec.report.curves import read_curves
from stec.report.facts import Column, Command, Facts, Map, Pair, Predicted
from stec.report.projection import flat_map, most_frequent
from stec.samples import extent, payload
from stec.shards.reader import Shards
from stec.training.run import Run
from stec.views import Views

_NUM_PICTURES = 6
_NUM_READ = 1000
_NUM_MAPPED = 1500  # points of a probe's map, from at most so many samples:
_NUM_MAPPED_SAMPLES = 64


def facts(
    run: Run, measure: Measure, rows: Mapping[str, Row], columns: list[Column], name: str, batch_size: int
) -> Facts:
    """Everything the report says about a run."""
    model, splits = measure.model, measure.splits
    assert model.stec is not None
    stec = model.stec
    pairs, pairs_from = _pictures(measure)
    predicted = _predicted(measure, rows["trained"])
    table = extract(stec.encoder, measure.samples("test"), device=measure.hardware.device)
    held_out = "held-out samples" if splits.test is not None else "the training samples (there is no test split)"
    return Facts(
        name=name,
        trained=f"{_named(model.spec['encoder'])}, trained on {splits.train.num_samples:,} samples without labels.",
        details={
            "encoder": f"{sum(p.numel() for p in stec.encoder.parameters()):,} parameters",
            "training": f"{run.step:,} steps of {batch_size:,} pairs of views",
            "seed": str(run.config.get("seed", "not known")),
            "wall time": _lasted(run),
            "machine": f"{measure.hardware.describe(stec.encoder)} ({platform.machine()})",
            "data": _data(run, splits),
            "run directory": str(run.directory),
        },
        warnings=_warnings(run, model),
        objective=stec.describe(),
        columns=tuple(_with_chance(columns, table, splits)),
        rows=rows,
        protocol=_protocol(measure, rows, bool(predicted)),
        pairs=pairs,
        pairs_from=pairs_from,
        predicted=predicted,
        predicted_from=f"Pairs of views of {held_out}, read by the manipulation model itself.",
        curves=read_curves(run.directory / "metrics.jsonl"),
        chance=stec.chance(batch_size),
        maps=_maps(measure, table, held_out),
        commands=_commands(run, reads=_reader(model) is not None),
    )


def _maps(measure: Measure, table: Table, held_out: str) -> tuple[Map, ...]:
    """The pooled features of samples, coloured by their labels; and of each probe that reads several places of one
    sample, what the encoder says at these, coloured by what the probe reads."""
    stec, classes = measure.model.stec, tuple(measure.splits.classes)
    assert stec is not None
    drawn = flat_map(table.x.numpy(), table.y.numpy(), classes)
    maps = [drawn._replace(method=f"{drawn.method}, of {held_out}")]
    for name, probed in measure.sources().probes.items():
        if not probed.probe.needs <= stec.encoder.dims.keys():
            continue
        few = list(measure.examples(name, "test", num=_NUM_MAPPED_SAMPLES))
        device = measure.hardware.device
        rows = rows_of(stec.encoder, probed.probe, few, device, max_rows=_NUM_MAPPED, tell=_silent).labelled()
        if len(few) < len(rows.y):
            names = tuple(probed.probe.classes(measure.splits.labelled.meta))
            flat = flat_map(rows.x.numpy(), rows.y.numpy(), names, most=_NUM_MAPPED, what="rows")
            method = f"{flat.method}, of {len(few):,} {held_out}, each at the place that {name} is read from"
            maps.append(most_frequent(flat, NUM_COLOURS)._replace(title=name, method=method))
    return (maps[0]._replace(title="samples"), *maps[1:]) if len(maps) > 1 else tuple(maps)


def _silent(words: str) -> None:
    """That these rows are not all is told in the caption."""


def _lasted(run: Run) -> str:
    minutes, seconds = divmod(round(run.seconds), 60)
    spent = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {seconds} s"
    return f"{spent}, measuring included" + (", since it went on from a checkpoint" if run.resumed else "")


def _data(run: Run, splits: Splits) -> str:
    """Where the samples come from, and how many are not learnt from."""
    held = "none held out" if splits.test is None else f"{splits.test.num_samples:,} held out"
    return f"{run.config.get('data') or splits.train.folder} ({held}, {splits.labels})"


def _with_chance(columns: list[Column], shown: Table, splits: Splits) -> Iterator[Column]:
    """Who always names the commonest class of the test split is right so often."""
    labels = shown.labelled().y
    share = float(labels.bincount().max()) / len(labels) if splits.test is not None and len(labels) else None
    for column in columns:
        yield column._replace(chance=share) if column.key.endswith("/top1") else column


def _protocol(measure: Measure, rows: Mapping[str, Row], shown: bool) -> dict[str, str]:
    """How the columns were measured, under the names they have in the table.

    shown: are the predicted actions, with what each component means? If not, it is told here.
    """
    names = {
        "features": "features",
        "eval/knn": "k-NN",
        "eval/linear": "linear",
        "eval/online": "online probe",
        "eval/action": "action",
    }
    names |= {f"eval/{name}": name for name in measure.probes}
    described = measure.protocol(rows)
    told = {name: described[start] for start, name in names.items() if start in described}
    if "action" in told:
        told["action"] += "; 0 bits: no better than a guess, below 0: worse, as readers of too few pairs are"
        if shown:
            told["action"] += "; what the components mean stands below, at the predicted actions"
        else:
            told |= _meanings(measure.model, rows)
    return told


def _meanings(model: Model, rows: Mapping[str, Row]) -> dict[str, str]:
    """{component: what it means, or else its unit} of those that have a column."""
    read = {name for row in rows.values() for name in row if name.startswith("eval/action_bits/")}
    return {
        component.name: model.picture.meanings.get(component.name) or f"in {component.unit}"
        for component in model.space.components
        if f"eval/action_bits/{component.name}" in read
    }


def _commands(run: Run, reads: bool) -> tuple[Command, ...]:
    """Lines to type next."""
    place = shlex.quote(str(run.directory))
    ask = Command("Ask what was done between two samples", f"stec-eval action A B --model {place}")
    return (
        Command("Measure this model again, or on other data (data=PATH)", f"stec-eval {place}"),
        Command("Take the weights elsewhere", f"stec-export {place}"),
        *((ask,) if reads else ()),
        Command(
            "Start another run from these weights (a recipe with this encoder)",
            f"stec-train recipe=NAME weights={place}",
        ),
    )


def _named(node: Mapping[str, object]) -> str:
    facts = ", ".join(
        f"{key} {value}" for key, value in node.items() if key != "name" and value not in (None, [], False)
    )
    return f"{node['name']} ({facts})" if facts else str(node["name"])


def _warnings(run: Run, model: Model) -> tuple[str, ...]:
    """What a reader must know before the numbers."""
    found = [verdict] if (verdict := run.verdict) else []
    reader = _reader(model)
    if reader is not None and reader.yoked:
        found.append("A yoked control: the manipulation model was given the copies of other pairs.")
    return tuple(found)


def _reader(model: Model) -> Binned | None:
    """The manipulation model that can say what was done, if there is one."""
    assert model.stec is not None
    return next((term for term in model.stec.manipulation.values() if isinstance(term, Binned)), None)


def _pictures(measure: Measure) -> tuple[tuple[Pair, ...], str]:
    """The first pairs of the split shown: the source with both windows, what was done, what the model reads."""
    model, shards = measure.model, measure.splits.test or measure.splits.labelled
    views = next(iter(measure.pairs("test")))
    num = min(_NUM_PICTURES, len(views.keys))
    actions = _actions(model, shards, views.keys[:num])
    reader = _reader(model)
    read = _posterior(model, reader, views, num) if reader is not None else [None] * num
    names = [component.name for component in model.space.components]
    pairs = []
    for i in range(num):
        source = model.picture.source(payload(shards, model.decoder, int(views.keys[i, 2])), model.decoder)
        picture = model.picture.pair(source, actions[:, i], tuple(x[i].cpu() for x in views.x))
        values = dict(zip(names, views.copies[0, 1].values[i].tolist(), strict=True))
        told = read[i]
        pairs.append(Pair(picture, model.picture.words(values), "" if told is None else model.picture.words(told)))
    where = "Held-out samples" if measure.splits.test is not None else "Training samples"
    keys = ", ".join(str(tuple(key)) for key in views.keys[:num].tolist())
    return tuple(pairs), f"{where}. {model.picture.legend} Keys (seed, epoch, sample) for loading.remake: {keys}."


def _actions(model: Model, shards: Shards, keys: torch.Tensor) -> torch.Tensor:
    """The actions [V, N, P] behind keys [N, 3], drawn again."""
    sizes = torch.tensor([extent(shards, model.decoder, int(key[2])) for key in keys])
    return sample_views(model.space, keys, sizes, 2)


def _posterior(model: Model, reader: Binned, views: Views, num: int) -> list[dict[str, float]]:
    """For each of the first pairs {component: centre of the likeliest bin}."""
    assert model.stec is not None
    with frozen(model.stec):
        a, b = (model.stec.encoder(x[:num]) for x in views.x[:2])
        answer = reader.posterior(a, b)
    best = answer.log_probs.argmax(dim=2).cpu()
    centres = answer.centres.cpu()
    return [
        {component.name: float(centres[c, best[i, c]]) for c, component in enumerate(answer.components)}
        for i in range(num)
    ]


def _predicted(measure: Measure, trained: Row) -> tuple[Predicted, ...]:
    """True against read bins of held-out pairs, component by component."""
    model = measure.model
    reader = _reader(model)
    if reader is None or model.stec is None:
        return ()
    true, read, valid, seen = [], [], [], 0
    for views in measure.pairs("test"):
        with frozen(model.stec):
            answer = reader.posterior(*(model.stec.encoder(x) for x in views.x[:2]))
        copy = views.copies[0, 1]
        true.append(reader.bins.assign(copy.values[:, reader.columns]).cpu())
        valid.append(copy.valid[:, reader.columns].cpu())
        read.append(answer.log_probs.argmax(dim=2).cpu())
        seen += len(views.keys)
        if seen >= _NUM_READ:
            break
    found = []
    for c, component in enumerate(reader.components):
        rows = torch.cat(valid)[:, c]
        edges = reader.bins.edges[c, : int(reader.bins.num_bins[c]) - 1].cpu().numpy()
        bits = trained.get(f"eval/action_bits/{component.name}")
        meaning = model.picture.meanings.get(component.name, "")
        found.append(
            Predicted(
                component.name,
                component.unit,
                edges,
                torch.cat(true)[rows, c].numpy(),
                torch.cat(read)[rows, c].numpy(),
                bits,
                meaning,
            )
        )
    return tuple(found)
