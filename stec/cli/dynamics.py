"""`stec-report dynamics RUN [RUN ...]`: what was learnt when, drawn from the metrics of runs, side by side."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stec import build
from stec.errors import DataError, StecError, UsageError
from stec.report.curves import read_curves
from stec.report.dynamics import Learnt, draw, halves
from stec.report.figure import save
from stec.report.text import shown

METRICS = "metrics.jsonl"


def run(words: list[str]) -> int:
    """Write the picture, and print when each component of the action was half learnt."""
    parser = argparse.ArgumentParser(prog="stec-report dynamics", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory, finished or not")
    parser.add_argument("--out", type=Path, default=Path("dynamics.png"), metavar="FILE", help="default: %(default)s")
    arguments = parser.parse_args(words)
    if not arguments.out.absolute().parent.is_dir():
        raise UsageError(f"--out {arguments.out}: there is no folder {arguments.out.absolute().parent}.")
    names = labels(arguments.runs)
    learnt = [read(folder, name) for folder, name in zip(arguments.runs, names, strict=True)]
    save(draw(learnt), arguments.out, "--out")
    _show(learnt)
    if unknown := [one.name for one in learnt if not one.chance]:
        print(f"without chance levels, which no checkpoint of it tells: {', '.join(unknown)}")
    print(f"picture: {arguments.out}")
    return 0


def labels(folders: Sequence[Path]) -> list[str]:
    """What tells the folders apart: their paths without the beginning that all share."""
    paths = [folder.absolute() for folder in folders]
    if len(set(paths)) == 1:
        return [path.name for path in paths]
    shared = Path(os.path.commonpath(paths))
    return [path.name if path == shared else path.relative_to(shared).as_posix() for path in paths]


def read(folder: Path, name: str) -> Learnt:
    """The curves and chance levels of a run. UsageError if there are no metrics, DataError if nothing in them can be
    read."""
    path = folder / METRICS
    if not path.is_file():
        raise UsageError(f"{folder} is no run: there is no {METRICS} in it.")
    curves = {metric: curve for metric, curve in read_curves(path).items() if metric.startswith("train/")}
    if not curves:
        raise DataError(f"{path} holds no readable line of a training.")
    return Learnt(name, curves, _chance(folder))


def _chance(folder: Path) -> dict[str, float]:
    """What the model's terms say; nothing without a readable checkpoint, which curves can do without."""
    try:
        stec = build.load(str(folder)).stec
    except StecError:
        return {}
    return {} if stec is None else stec.chance()


def _show(runs: Sequence[Learnt]) -> None:
    """When half of the final bits were reached; the mean of the last tenth of a curve is what it is at the end."""
    table = Table()
    for title in ("run", "component", "at the end", "half of them at step", "of steps"):
        table.add_column(title, justify="left" if title in ("run", "component") else "right", overflow="fold")
    for one in runs:
        last = max(int(curve.steps[-1]) for curve in one.curves.values())
        for place, (component, half) in enumerate(halves(one.curves).items()):
            when = "-" if half.step is None else f"{half.step:,}"
            name = Text("" if place else one.name)  # a folder's, in which brackets are no markup
            table.add_row(name, Text(component), shown(half.bits, "bits"), when, f"{last:,}")
        table.add_section()
    if table.row_count:
        Console().print(table)
    else:
        print("No component of an action was learnt in these runs: there are no action bits in their metrics.")
