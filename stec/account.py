"""A run, told as plain data for its report: pairs, what the model reads in them, curves and a map."""

import math
import platform
from collections.abc import Mapping

import torch

from stec.actions import sample_views
from stec.build import Model
from stec.evaluation.features import extract, frozen
from stec.evaluation.suite import Row
from stec.manipulation.binned import Binned
from stec.measure import Measure
from stec.report.curves import read_curves
from stec.report.facts import Column, Command, Facts, Pair, Predicted
from stec.report.projection import flat_map
from stec.samples import extent, payload
from stec.shards.reader import Shards
from stec.training.run import Run
from stec.views import Views

_NUM_PICTURES = 6
_NUM_READ = 1000


def facts(
    run: Run, measure: Measure, rows: Mapping[str, Row], columns: list[Column], name: str, batch_size: int
) -> Facts:
    """Everything the report says about a run."""
    model, splits = measure.model, measure.splits
    assert model.stec is not None
    stec = model.stec
    pairs, pairs_from = _pictures(measure)
    shown = splits.test or splits.labelled
    table = extract(stec.encoder, measure.samples(shown), device=measure.hardware.device)
    held_out = "held-out samples" if splits.test is not None else "the training samples (there is no test split)"
    return Facts(
        name=name,
        trained=f"{_named(model.spec['encoder'])}, trained on {splits.train.num_samples:,} samples without labels.",
        details={
            "steps": f"{run.step:,} of {batch_size:,} pairs of views",
            "parameters": f"{sum(p.numel() for p in stec.encoder.parameters()):,} in the encoder",
            "machine": f"{measure.hardware.describe()} ({platform.machine()})",
            "data": str(splits.train.folder),
            "run directory": str(run.directory),
        },
        warnings=_warnings(run, model),
        objective=stec.describe(),
        columns=tuple(columns),
        rows=rows,
        protocol="; ".join(f"{start}: {words}" for start, words in measure.suite.describe().items()),
        pairs=pairs,
        pairs_from=pairs_from,
        predicted=_predicted(measure, rows["trained"]),
        predicted_from=f"Pairs of views of {held_out}, read by the manipulation model itself.",
        curves=read_curves(run.directory / "metrics.jsonl"),
        chance=stec.chance() | {"train/loss_id": math.log(2 * batch_size - 1)},
        map=flat_map(table.x.numpy(), table.y.numpy(), tuple(splits.classes)),
        commands=(
            Command("Measure this model again, or on other data", f"stec-eval {run.directory}"),
            Command("Take the weights elsewhere", f"stec-export {run.directory}"),
            Command("Ask what was done between two samples", f"stec-eval action A B --model {run.directory}"),
            Command("Start another run from these weights", f"stec-train recipe=NAME weights={run.directory}"),
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
    views = next(iter(measure.pairs(shards, epoch=1)))
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
    return tuple(pairs), f"{where}. {model.picture.legend}"


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
    for views in measure.pairs(measure.splits.test or measure.splits.labelled, epoch=1):
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
