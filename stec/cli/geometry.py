"""`stec-eval geometry SOURCE [data=PATH] [taps=layer2,layer3]`: how far does an action move a class?

Distances of the centroids of classes, of plain samples and of the same samples under each action, at the outputs of the
encoder; beside them those of the same network before training.
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from stec import build, export
from stec.build import Model
from stec.catalogue import nearest
from stec.cli.door import logged
from stec.cli.source import config_of, data_of, fingerprints, keys_of, untrained
from stec.encoder import Encoder
from stec.errors import UsageError
from stec.evaluation import geometry
from stec.evaluation.features import PROJECTOR
from stec.evaluation.features import Table as Features
from stec.evaluation.geometry import Alone, Reading
from stec.loading import unshared
from stec.measure import PAIR_SEED, projector
from stec.nodes import checked, keywords
from stec.report import figure, scatter
from stec.samples import Tally
from stec.shards.reader import Shards
from stec.training.options import Hardware
from stec.views import Views, make_views

KEYS = """keys:
  data=PATH       shards, or what a packer reads; a run's own data if it is left out
  packer=NAME     who reads PATH, if it holds no shards
  taps=A,B        layers of the encoder to look at beside its output and the projector, such as layer2,layer3
  num_samples=N   labelled samples to look at, of the test split if there is one; default: 5000"""

_NOT_LAYERS = ("local", "context", "pooled", PROJECTOR)

Measured = dict[str, dict[str, dict[str, dict[str, float]]]]
"""{encoder: {tap: {what is done: {measure: value}}}}; "plain" stands among what is done, with the Spread."""


def run(words: list[str]) -> int:
    """Print the distances, draw the picture, and write the numbers as JSON if that is asked for."""
    parser = argparse.ArgumentParser(
        prog="stec-eval geometry",
        description=__doc__,
        epilog=KEYS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help="run directory, checkpoint, exported folder or ENCODER/NAME")
    parser.add_argument("keys", nargs="*", metavar="key=value")
    parser.add_argument("--umap", action="store_true", help="draw by UMAP instead of principal components")
    parser.add_argument("--picture", type=Path, default=Path("geometry.png"), help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the numbers as JSON")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--num-workers", type=int, default=None, help="loading processes; default: by the cores")
    arguments = parser.parse_intermixed_args(words)
    for key in ("picture", "out"):
        path = getattr(arguments, key)
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"--{key} {path}: there is no folder {path.absolute().parent}.")
    if arguments.umap:
        scatter.umap()  # said before anything is measured, if it is not there
    with logged():
        return _measure(arguments)


def _wanted(*, data: str | None = None, packer: str | None = None, taps: Any = None, num_samples: int = 5000) -> None:
    """The keys of the command line."""


def _measure(arguments: argparse.Namespace) -> int:
    keys = checked(_wanted, keys_of(arguments.keys), "")
    num, taps = keys.get("num_samples", 5000), _names(keys.get("taps"))
    if num < 2:
        raise UsageError(f"num_samples={num} must be at least 2.")
    config = config_of(arguments.source)
    if keys.get("data") is None and build.is_published(arguments.source):  # said before its weights are fetched
        raise UsageError(f"data=PATH is needed: {arguments.source} does not say what to measure it on.")
    model = build.load(arguments.source)
    splits, max_bad = data_of(config, keys.get("data"), keys.get("packer"))
    hardware = Hardware(device=arguments.device, num_workers=arguments.num_workers)
    shards = splits.test or splits.labelled
    readings = _readings(model, arguments.source, taps, hardware)
    still = geometry.plain(model.space, model.decoder.performs)
    looks = partial(_looks, model, shards, hardware, Tally(max_bad, shards.num_samples))
    plain = geometry.read(looks(still), readings, num)
    rows: Measured = {
        name: {tap: {"plain": geometry.spread(table)._asdict()} for tap, table in tables.items()}
        for name, tables in plain.items()
    }
    acted: dict[str, dict[str, Features]] = {}
    words = ""
    for words, space in geometry.lines(model.space).items():
        acted = geometry.read(looks(space), readings, num)
        for name, tables in acted.items():
            for tap, table in tables.items():
                unit = geometry.Spread(**rows[name][tap]["plain"])
                rows[name][tap][words] = geometry.moved(plain[name][tap], table, unit)._asdict()
    first = next(iter(readings))
    _show(rows, plain[first]["pooled"])
    _draw(arguments, plain[first], acted[first], splits.classes, words)
    print(f"picture: {arguments.picture}")
    if arguments.out is not None:
        told = {"source": arguments.source, "data": fingerprints(splits), "num_samples": len(plain[first]["pooled"].y)}
        _write(arguments.out, {**told, "rows": rows})
    return 0


def _names(taps: Any) -> list[str]:
    """taps=a,b or taps=[a,b]."""
    return [str(name) for name in (taps.split(",") if isinstance(taps, str) else taps or []) if name != "pooled"]


def _readings(model: Model, source: str, taps: list[str], hardware: Hardware) -> dict[str, Reading]:
    """The trained network, and the same before training (of published weights: one with weights drawn anew)."""
    head = None if (Path(source) / export.SPEC_NAME).is_file() else projector(model.stec)
    if PROJECTOR in taps and head is None:
        raise UsageError(f"taps={','.join(taps)}: {source} comes without the projector of an identity model.")
    begun = untrained(model)
    found = {}
    for name, encoder, own in (("trained", model.encoder, head), (begun.name, begun.encoder, begun.projector)):
        tapped = _tapped(model, encoder, [tap for tap in taps if tap != PROJECTOR]).to(hardware.device)
        # In the order asked for; then whatever else the network gives.
        known = [tap for tap in dict.fromkeys((*taps, *tapped.dims)) if tap not in _NOT_LAYERS]
        outputs = (*known, "pooled", *([PROJECTOR] if head is not None else []))
        found[name] = Reading(
            tapped, outputs, own.to(hardware.device) if head is not None and own is not None else None
        )
    return found


def _tapped(model: Model, encoder: Encoder, taps: list[str]) -> Encoder:
    """The same encoder, which gives these layers as well."""
    missing = [tap for tap in taps if tap not in encoder.dims]
    if not missing:
        return encoder
    part = build.part("encoder", model.spec["encoder"], "encoder")
    if "taps" not in keywords(part.make):
        raise UsageError(f"taps={','.join(taps)}: {nearest(missing[0], encoder.dims)}")
    fetched = {"pretrained": False} if "pretrained" in part.options else {}  # the weights are here already
    options = {**part.options, **fetched, "taps": [*(part.options.get("taps") or ()), *missing]}
    tapped: Encoder = build.part("encoder", {"name": part.name, **options}, "encoder")()
    tapped.load_state_dict(encoder.state_dict())
    return tapped


def _looks(model: Model, shards: Shards, hardware: Hardware, tally: Tally, space: Alone) -> Iterator[Views]:
    """The same samples, in the same order, at each call, with what `space` does to them."""
    for batch in unshared(
        shards, model.decoder, space, seed=PAIR_SEED, epoch=1, num_workers=hardware.num_workers, tally=tally
    ):
        batch = batch.to(hardware.device)
        yield make_views(batch, space, (), performed=model.decoder.performs, finish=model.decoder.finish)


def _draw(
    arguments: argparse.Namespace,
    plain: Mapping[str, Features],
    acted: Mapping[str, Features],
    classes: list[str],
    words: str,
) -> None:
    plane = scatter.by_umap if arguments.umap else scatter.by_pca
    panels = [
        scatter.Panel(tap, plane(table.x.numpy(), acted[tap].x.numpy()), table.y.numpy())
        for tap, table in plain.items()
    ]
    done = "under all actions" if words == geometry.ALL else f"under {words}"
    figure.save(scatter.draw(panels, classes, done), arguments.picture, "--picture")


def _show(rows: Measured, samples: Features) -> None:
    """One block an output, one line an action; beside the trained network the same one before training."""
    (_, trained), (begun, before) = rows.items()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for title in ("output", "action"):
        table.add_column(title, no_wrap=True)
    for title in ("distance", "chance", "/spread", "/classes", f"{begun}\n/spread"):
        table.add_column(title, justify="right", no_wrap=True)
    for tap, lines in trained.items():
        for place, (words, found) in enumerate(line for line in lines.items() if line[0] != "plain"):
            then = before[tap][words]["per_within"]
            numbers = [found[key] for key in ("distance", "by_chance", "per_within", "per_between")]
            part, _, aspect = words.partition(": ")
            table.add_row(
                "" if place else tap, f"  {aspect}" if aspect else part, *(_cell(number) for number in (*numbers, then))
            )
        table.add_section()
    console = Console()
    console.print(table)
    num, classes = len(samples.y), len(samples.y.unique())
    for line in (
        f"distance: of class centroids, plain and as first views: {classes} classes, {num} samples",
        "chance: what so few draws would make of it, if the action moved no centroid",
        "/spread: over the root mean squared distance of plain samples to their centroid",
        "/classes: over the mean distance of two plain centroids",
    ):
        console.print(line, style="dim", highlight=False)


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _write(path: Path, told: Mapping[str, Any]) -> None:
    """NaN, of features that do not differ at all, is null in JSON."""
    plain = json.loads(json.dumps(told), parse_constant=lambda _: None)
    try:
        path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out {path} cannot be written: {error.strerror}.") from error
