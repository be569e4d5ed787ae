"""Figures as PNG, in the colours of the page."""

import re
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stec.errors import UsageError
from stec.report.style import STYLE

COLOURS: tuple[str, ...] = tuple(re.findall(r"\.c\d \{ --c: (#\w+)", STYLE))
INK, SOFT, RULE = (re.findall(rf"--{name}: (#\w+)", STYLE)[0] for name in ("ink", "soft", "rule"))
NONE = re.findall(r"\.none \{ --c: (#\w+)", STYLE)[0]
_DPI = 150


def grid(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, list[list[Axes]]]:
    """A figure of rows x columns panels of `width` x `height` inches each; options: those of Figure.subplots."""
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options).tolist()


def dress(axes: Axes) -> None:
    """Thin, grey, without a box."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(colors=SOFT, labelsize=8, length=2)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def save(figure: Figure, path: Path, key: str) -> None:
    """Write a PNG; UsageError, which names the option `key`, if it cannot be written."""
    try:
        figure.savefig(path, format="png", dpi=_DPI, facecolor="white")
    except OSError as error:
        raise UsageError(f"{key} {path} cannot be written: {error.strerror or error}.") from error
