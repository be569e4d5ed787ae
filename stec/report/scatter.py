"""The features of plain samples and of the same samples under actions, side by side in one plane.

Legend: N samples, D width of the features.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA

from stec.errors import UsageError
from stec.report.figure import COLOURS, INK, NONE, RULE, SOFT, grid

# More spots than this hide each other.
MOST = 1500


class Plane(NamedTuple):
    """plain, acted: places float [N, 2] of the same samples; method: how the two dimensions were made, in words."""

    plain: np.ndarray
    acted: np.ndarray
    method: str


class Panel(NamedTuple):
    """A row of the figure: whose features (title), where they are, and their labels int [N]."""

    title: str
    plane: Plane
    labels: np.ndarray


def by_pca(plain: np.ndarray, acted: np.ndarray) -> Plane:
    """Features float [N, D] each -> the plane of the two leading principal components of both together."""
    both = np.concatenate([plain, acted]).astype(np.float64)
    if not np.ptp(both, axis=0).any():
        nothing = np.zeros((len(plain), 2))
        return Plane(nothing, nothing, "all features are the same")
    num = min(2, *both.shape)
    pca = PCA(num, random_state=0)
    places = np.pad(pca.fit_transform(both), ((0, 0), (0, 2 - num)))
    share = pca.explained_variance_ratio_.sum()
    return Plane(places[: len(plain)], places[len(plain) :], f"2 principal components, {share:.0%} of the variance")


def by_umap(plain: np.ndarray, acted: np.ndarray) -> Plane:
    """The same by UMAP (McInnes et al. 2018) of both together; UsageError if the package is missing."""
    both = np.concatenate([plain, acted]).astype(np.float32)
    # One job: with a seed there can be no more, and umap would warn of it.
    places = umap()(n_components=2, random_state=0, n_jobs=1).fit_transform(both)
    return Plane(places[: len(plain)], places[len(plain) :], "UMAP of both together")


def umap() -> Any:
    """The class of the package umap-learn, an extra; UsageError if it is missing."""
    try:
        from umap import UMAP
    except ImportError:
        raise UsageError("--umap needs the package umap-learn: pip install 'stec[umap]'.") from None
    return UMAP


def draw(panels: Sequence[Panel], classes: Sequence[str], acted: str) -> Figure:
    """One row a panel: plain samples on the left, the same under `acted` (in words) on the right, on the same axes. A
    disc is a class's plain centroid, from which a line leads to a cross, the centroid under the action."""
    figure, rows = grid(len(panels), 2, 4.2, 3.9)
    labels, counts = np.unique(np.concatenate([panel.labels for panel in panels]), return_counts=True)
    # Ties go to the smaller label: the pictures of two runs on the same samples then show the same classes.
    coloured = sorted(labels[np.argsort(-counts, kind="stable")[: len(COLOURS)]].tolist())
    hues = {label: COLOURS[place] for place, label in enumerate(coloured)}
    for row, panel in zip(rows, panels, strict=True):
        kept = _thinned(len(panel.labels))
        for axes, places, words in zip(row, panel.plane[:2], ("plain", acted), strict=True):
            _spots(axes, places[kept], panel.labels[kept], hues)
            _limits(axes, panel.plane)
            axes.set_title(words, fontsize=9, color=SOFT, loc="left")
        for label, hue in hues.items():
            _step(row, panel, label, hue)
        row[0].set_ylabel(panel.title, fontsize=10, color=INK, fontweight="bold")
        row[1].set_xlabel(panel.plane.method, fontsize=7.5, color=SOFT, loc="right")
    names = [classes[label] if label < len(classes) else f"class {label}" for label in coloured]
    marks = [
        Line2D([], [], marker="o", linestyle="", color=hue, label=n)
        for n, hue in zip(names, hues.values(), strict=True)
    ]
    if len(labels) > len(coloured):
        marks.append(
            Line2D(
                [], [], marker="o", linestyle="", color=NONE, alpha=0.35, label=f"{len(labels) - len(coloured)} others"
            )
        )
    figure.legend(handles=marks, loc="outside lower center", ncols=4, fontsize=8, frameon=False, labelcolor=INK)
    return figure


def _thinned(num: int) -> np.ndarray:
    """All of `num` rows, or MOST of them, evenly spread."""
    return np.arange(min(num, MOST)) * num // min(num, MOST)


def _spots(axes: Axes, places: np.ndarray, labels: np.ndarray, hues: dict[int, str]) -> None:
    grey = ~np.isin(labels, list(hues))
    axes.scatter(places[grey, 0], places[grey, 1], s=6, color=NONE, alpha=0.18, linewidths=0)
    colours = [hues[label] for label in labels[~grey].tolist()]
    axes.scatter(places[~grey, 0], places[~grey, 1], s=9, c=colours, alpha=0.45, linewidths=0)


def _limits(axes: Axes, plane: Plane) -> None:
    both = np.concatenate(plane[:2])
    # A few strays would press all others together.
    low, high = np.percentile(both, 0.5, axis=0), np.percentile(both, 99.5, axis=0)
    margin = 0.08 * np.maximum(high - low, 1e-9)
    axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color(RULE)


def _step(row: Sequence[Axes], panel: Panel, label: int, hue: str) -> None:
    """The centroids of a class: on the left as it is, on the right the step to where the action takes it."""
    mine = panel.labels == label
    if not mine.any():
        return
    start, end = (places[mine].mean(axis=0) for places in panel.plane[:2])
    row[1].plot(*np.stack([start, end]).T, color=hue, linewidth=1.6, zorder=3)
    row[1].plot(*end, marker="X", color=hue, markersize=8, markeredgecolor="white", zorder=4)
    for axes in row:
        axes.plot(*start, marker="o", color=hue, markersize=7, markeredgecolor="white", zorder=4)
