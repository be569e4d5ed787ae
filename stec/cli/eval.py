"""`stec-eval SOURCE [data=PATH] [key=value ...]`: measure an encoder. `stec-eval action A B --model SOURCE`: ask it.
`stec-eval geometry SOURCE`: how far an action moves its classes.

SOURCE: a run directory, a checkpoint, an exported folder, or ENCODER/NAME such as timm/resnet18.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from stec import build, export, protocols
from stec.cli import action, geometry, recipes
from stec.cli.door import guarded, logged
from stec.cli.source import config_of, data_of, fingerprints, keys_of, untrained
from stec.errors import UsageError
from stec.evaluation.features import PROJECTOR, extract
from stec.evaluation.linear import sgd
from stec.evaluation.suite import Row
from stec.loading import Stream
from stec.measure import Measure, belongs, projector
from stec.nodes import checked, keywords
from stec.training.options import Hardware
from stec.views import make_views

_BATCH = 250
# What the node evaluation of a run says beside the protocols.
_BESIDE = ("online_probe", "raw_input", "baselines")

KEYS = """keys:
  data=PATH         shards, or what a packer reads; a run's own data if it is left out
  packer=NAME       who reads PATH, if it holds no shards
  tap=NAME          pooled (default), projector, or a layer of the encoder, such as layer3 of a ResNet
  train_pairs=N test_pairs=N   pairs of views for the action reader
  knn.k=N knn.temperature=T linear.grid=[C,...] linear.max_iter=N
  action.bins=KIND action.num_bins=N action.hidden=N action.epochs=N
  knn=null linear=null action=null   leave a protocol out
  probes.KEY.name=PROBE probes.KEY.reader=lbfgs|adam probes.KEY.max_rows=N   what else is read, as in a recipe
  sgd.epochs=N ...  also the paper's SGD protocol (all keys of sgd; --sgd for its defaults; an epoch is one pass over
                    the labelled samples: the paper's STL-10 fit is sgd.epochs=2000 sgd.warmup_epochs=200)"""


@guarded
def main(argv: list[str] | None = None) -> int:
    """0; 2 for a slip of the user; 3 for features that are not finite; 4 for damaged data."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["action"]:
        return action.run(words[1:])
    if words[:1] == ["geometry"]:
        return geometry.run(words[1:])
    parser = argparse.ArgumentParser(
        prog="stec-eval", description=__doc__, epilog=KEYS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("keys", nargs="*", metavar="key=value")
    parser.add_argument(
        "--baselines", action="store_true", help="also measure the raw input, the untrained encoder, a run's baselines"
    )
    parser.add_argument(
        "--sgd", action="store_true", help="also fit a linear reader by the paper's SGD protocol (slow)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the numbers and protocols as JSON")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--num-workers", type=int, default=None, help="loading processes; default: by the cores")
    arguments = parser.parse_intermixed_args(words)
    if arguments.out is not None and not arguments.out.absolute().parent.is_dir():
        raise UsageError(f"--out {arguments.out}: there is no folder {arguments.out.absolute().parent}.")
    with logged():
        return _measure(arguments)


def _measure(arguments: argparse.Namespace) -> int:
    keys = keys_of(arguments.keys)
    config = config_of(arguments.source)
    data, packer, fit = keys.pop("data", None), keys.pop("packer", None), keys.pop("sgd", {} if arguments.sgd else None)
    suite = protocols.suite(_merged(_protocols(config), keys))
    fitting = None if fit is None else checked(sgd, fit, "sgd")
    if suite.tap == "projector" and (Path(arguments.source) / export.SPEC_NAME).is_file():
        raise UsageError("tap=projector: an exported folder holds no projector; name the run directory instead.")
    hardware = Hardware(device=arguments.device, num_workers=arguments.num_workers)
    if data is None and build.is_published(arguments.source):  # said before its weights are fetched
        raise UsageError(f"data=PATH is needed: {arguments.source} does not say what to measure it on.")
    model = build.load(arguments.source, None if suite.tap in ("pooled", PROJECTOR) else suite.tap)
    splits, max_bad = data_of(config, data, packer)
    (model.stec or model.encoder).to(hardware.device)
    measure = Measure(suite, model, splits, hardware, max_bad)
    rows = {}
    if arguments.baselines:
        node = (config or {}).get("evaluation") or {}
        compared = protocols.baselines(node.get("baselines"))
        rows = measure.baselines(untrained(model), node.get("raw_input", True), compared)
    row = measure.trained() if model.stec is not None else measure.row(model.encoder)
    protocol = measure.protocol({**rows, "": row})
    if fitting is not None:
        row["eval/linear_sgd/top1"] = _sgd(measure, fitting)
        passes = fitting.get("epochs", keywords(sgd)["epochs"].default)
        protocol["eval/linear_sgd"] = f"SGD as the paper's, {passes} passes of augmented samples, the encoder frozen"
    rows[arguments.source] = row
    if splits.test is None:
        print("There is no test split: labels are not used, and pairs are other views of the samples fitted on.")
    show(rows, protocol, _chance(measure, row))
    if arguments.out is not None:
        told = {"source": arguments.source, "data": fingerprints(splits), "rows": rows, "protocol": protocol}
        try:
            arguments.out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--out {arguments.out} cannot be written: {error.strerror}.") from error
    return 0


def _sgd(measure: Measure, options: Mapping[str, Any]) -> float:
    """The paper's protocol: samples augmented by what is predicted of the actions (no nuisances), encoder frozen."""
    model, splits, tap, device = measure.model, measure.splits, measure.suite.tap, measure.hardware.device
    if splits.test is None:
        raise UsageError("the SGD protocol needs a test split, and this data has none.")
    live = {name for name, part in model.space.parts.items() if part.components}
    moving = {name: node for name, node in model.spec["actions"].items() if name in live}
    parts = build.plan({**model.spec, "actions": moving})
    space = build.space(parts)
    head, workers = projector(model.stec), measure.hardware.num_workers
    test = extract(model.encoder, measure.samples("test"), tap=tap, device=device, head=head)
    read = partial(extract, model.encoder, tap=tap, device=device, head=head)
    decoder = parts.decoder(space)
    size = min(_BATCH, splits.labelled.num_samples)
    stream = Stream(
        splits.labelled, decoder, space, batch_size=size, num_views=1, num_workers=workers, max_bad=measure.max_bad
    )

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in stream.batches(epoch):
            views = make_views(batch.to(device), space, (), performed=decoder.performs, finish=decoder.finish)
            assert batch.labels is not None
            yield views.x[0], batch.labels

    return sgd(lambda epoch: read(batches(epoch)), test, **options)


def show(rows: Mapping[str, Row], protocol: Mapping[str, str], chance: Row) -> None:
    """One line a metric, one column an encoder, and what a guesser gets who sees nothing; then the protocols."""
    table = Table()
    for title in ("", *rows, "chance"):
        table.add_column(title, justify="right" if title else "left", no_wrap=not title)
    hidden = ("/c", "/converged", "/majority")  # in the JSON; what a majority is stands under chance
    names = dict.fromkeys(n for row in rows.values() for n in row if not n.endswith(hidden))
    for name in names:
        if not name.startswith(("eval/action_chance/", "eval/action_majority/")):
            table.add_row(name, *(_cell(name, row.get(name)) for row in rows.values()), _cell(name, chance.get(name)))
    console = Console()
    console.print(table)
    for start, words in protocol.items():
        if start == "features" or any(belongs(name, start) for name in names):
            console.print(f"{start}: {words}", highlight=False)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1%}" if name.endswith(("/top1", "/acc")) or "_acc/" in name else f"{value:.3f}"


def _chance(measure: Measure, row: Row) -> Row:
    """top1 and acc: always naming the commonest class; accuracy of an action: always the fullest bin; bits: none."""
    found: Row = {}
    test = measure.splits.test
    if test is not None and any(name.endswith("/top1") for name in row):
        labels = torch.cat([y for _, y in measure.samples("test")])
        labels = labels[labels >= 0]
        share = float(labels.bincount().max()) / len(labels)
        found = {name: share for name in row if name.endswith("/top1")}
    for name in row:
        component = name.rpartition("/")[2]
        if name.startswith("eval/action_bits/"):
            found[name] = 0.0
        elif name.startswith("eval/action_acc/"):
            found[name] = row[f"eval/action_majority/{component}"]
        elif component == "acc":
            found[name] = row[name.removesuffix("acc") + "majority"]
    return found


def _protocols(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The protocols a run was measured with, or the standard ones."""
    if config is None:
        node = yaml.safe_load((recipes.own() / "evaluation" / "standard.yaml").read_text(encoding="utf-8"))
    else:
        node = config.get("evaluation") or {}
    return {key: value for key, value in node.items() if key not in _BESIDE}


def _merged(node: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(node)
    for key, value in keys.items():
        old = merged.get(key)
        merged[key] = _merged(old if isinstance(old, Mapping) else {}, value) if isinstance(value, dict) else value
    return merged


if __name__ == "__main__":
    sys.exit(main())
