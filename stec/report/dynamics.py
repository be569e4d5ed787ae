"""What was learnt when: losses, action bits of each component, the health of the features and the balance of the two
gradients over the steps of one run or several, side by side.

Legend: T points in time.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stec.report.facts import Curve
from stec.report.figure import COLOURS, INK, SOFT, dress, grid

BITS = "train/action_bits/"
# title; metric (ends in "/": one line for each component); what stands at the axis.
_ROWS = (
    ("identity loss", "train/loss_id", "loss"),
    ("manipulation loss", "train/loss_manip", "loss"),
    ("what is read of the action", BITS, "bits"),
    ("spread of the features", "train/z_std", "z_std"),
    ("rank of the features", "train/rankme", "rankme"),
    ("gradient of the manipulation", "train/grad_share_manip", "share"),
)
# The end of a run is its last tenth of points: a single one is noisy.
_END = 0.1


class Learnt(NamedTuple):
    """A run: its name, {metric: Curve}, and {metric: level} of a guesser who sees nothing."""

    name: str
    curves: Mapping[str, Curve]
    chance: Mapping[str, float] = {}


class Half(NamedTuple):
    """When a component was half learnt: its bits at the end of the run, and the first step with half of them (None if
    nothing was learnt)."""

    bits: float
    step: int | None


def at_the_end(curve: Curve) -> float:
    """The mean of the last tenth of the finite points [T] (at least one); NaN without any."""
    values = curve.values[np.isfinite(curve.values)]
    return float(values[-max(1, round(_END * len(values))) :].mean()) if len(values) else float("nan")


def halves(curves: Mapping[str, Curve], least: float = 0.01) -> dict[str, Half]:
    """{component: when it reached half of its final bits}; least: fewer at the end are nothing learnt."""
    found = {}
    for name, curve in curves.items():
        if not name.startswith(BITS):
            continue
        final = at_the_end(curve)
        there = curve.steps[np.nan_to_num(curve.values, nan=-np.inf) >= final / 2]
        found[name.removeprefix(BITS)] = Half(final, int(there[0]) if final >= least and len(there) else None)
    return found


def draw(runs: Sequence[Learnt]) -> Figure:
    """A column a run, a row a measure that any of the runs has; a component has one colour everywhere, a chance level
    is dashed."""
    rows = [row for row in _ROWS if any(_belonging(row[1], run.curves) for run in runs)]
    figure, panels = grid(len(rows), len(runs), 3.6, 2.1, sharex="col", sharey="row")
    for (title, metric, unit), row in zip(rows, panels, strict=True):
        names = list(dict.fromkeys(name for run in runs for name in _belonging(metric, run.curves)))
        colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
        dashed = False
        for axes, run in zip(row, runs, strict=True):
            dress(axes)
            for name in _belonging(metric, run.curves):
                axes.plot(*run.curves[name], color=colours[name], linewidth=1.5)
            dashed |= _level(axes, metric, run.chance)
        row[0].set_ylabel(unit, fontsize=8.5, color=SOFT)
        row[0].set_title(title, fontsize=9.5, color=INK, loc="left")
        _legend(row[-1], metric, colours, dashed)
    for axes, run in zip(panels[0], runs, strict=True):
        axes.annotate(
            run.name,
            (0, 1.22),
            xycoords="axes fraction",
            fontsize=10.5,
            fontweight="bold",
            color=INK,
            annotation_clip=False,
        )
    for axes in panels[-1]:
        axes.set_xlabel("step", fontsize=8.5, color=SOFT)
    return figure


def _belonging(metric: str, curves: Mapping[str, Curve]) -> list[str]:
    """The curves of a row: of the metric itself and, after it, of each of its terms or components."""
    start = metric if metric.endswith("/") else f"{metric}/"
    found = [name for name in curves if name == metric or name.startswith(start)]
    return sorted(found, key=lambda name: name != metric)


def _level(axes: Axes, metric: str, chance: Mapping[str, float]) -> bool:
    """Draw the chance level, if it is one for the whole panel."""
    levels = set(_of(metric, chance))
    if len(levels) != 1:
        return False
    axes.axhline(levels.pop(), color=INK, linewidth=1, linestyle=(0, (4, 3)), alpha=0.75)
    return True


def _of(metric: str, chance: Mapping[str, float]) -> Iterator[float]:
    return (level for name, level in chance.items() if name == metric or name.startswith(metric.rstrip("/") + "/"))


def _legend(axes: Axes, metric: str, colours: Mapping[str, str], dashed: bool) -> None:
    """To the right of the last panel, where it hides no line."""
    start = metric if metric.endswith("/") else f"{metric}/"
    names = {name: name.removeprefix(start) if name != metric else "all" for name in colours}
    marks = [Line2D([], [], color=hue, linewidth=2, label=names[n]) for n, hue in colours.items() if len(colours) > 1]
    if dashed:
        marks.append(Line2D([], [], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="chance"))
    if marks:
        key = axes.legend(handles=marks, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
        for text in key.get_texts():
            text.set_color(INK)
