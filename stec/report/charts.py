"""Charts as inline SVG. Colours are names of the page's style, so that they follow its light or dark dress.

Legend: N pairs or samples, K bins, T points in time. Lengths are in px of CSS.
"""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import MaxNLocator

from stec.report.facts import Curve, Map, Predicted
from stec.report.text import escape, number

NUM_COLOURS = 10

# A line of more points than this is drawn through the means of neighbours: more cannot be seen, and would be large.
_POINTS = 240


def lines(curves: Mapping[str, Curve], chance: float | None, title: str) -> str:
    """Curves over steps on one pair of axes, with a dashed chance line; each line coloured by its place in `curves`.

    A number of them, each with at least one finite value.
    """
    width, height, left, right, top, bottom = 300, 170, 40, 8, 10, 22
    drawn = {name: _thinned(curve) for name, curve in curves.items()}
    steps = np.concatenate([curve.steps for curve in drawn.values()])
    values = np.concatenate([curve.values for curve in drawn.values()])
    levels = [*values[np.isfinite(values)].tolist(), *([] if chance is None else [chance])]
    y_ticks = _ticks(min(levels), max(levels))
    x_low, x_high = min(0.0, float(steps.min())), max(1.0, float(steps.max()))

    def across(step: float) -> float:
        return left + (step - x_low) / (x_high - x_low) * (width - left - right)

    def down(value: float) -> float:
        return height - bottom - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (height - top - bottom)

    parts = []
    for tick, label in zip(y_ticks, _labels(y_ticks), strict=True):
        y = down(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>')
    x_ticks = [tick for tick in _ticks(x_low, x_high) if x_low <= tick <= x_high]
    for tick, label in zip(x_ticks, _labels(x_ticks), strict=True):
        anchor = "end" if across(tick) > width - right - 12 else "middle"
        parts.append(f'<text x="{across(tick):.1f}" y="{height - 6}" text-anchor="{anchor}">{label}</text>')
    if chance is not None:
        y = down(chance)
        parts.append(f'<line class="chance" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for place, (name, curve) in enumerate(drawn.items()):
        parts.append(f'<g class="line c{place % NUM_COLOURS}"><title>{escape(name)}</title>')
        for run in _unbroken(curve):
            spots = [f"{across(s):.1f},{down(v):.1f}" for s, v in run]
            if len(spots) > 1:
                parts.append(f'<polyline points="{" ".join(spots)}"/>')
            else:
                x, y_text = spots[0].split(",")
                parts.append(f'<circle cx="{x}" cy="{y_text}" r="3"/>')
        parts.append("</g>")
    return _svg(width, height, title, parts)


def confusion(predicted: Predicted) -> str:
    """True bin (row) by predicted bin (column), each row as shares of its pairs; the edges stand between the bins."""
    marks = _rounded(predicted.edges)
    num_bins = len(marks) + 1
    counts = np.zeros((num_bins, num_bins), np.int64)
    np.add.at(counts, (predicted.true, predicted.predicted), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    left, top, side = 58, 6, 216
    cell = side / num_bins
    parts = []
    for row in range(num_bins):
        # Bins grow upwards and to the right, so that a good model draws a rising diagonal.
        y = top + (num_bins - 1 - row) * cell
        for column in range(num_bins):
            x, share = left + column * cell, shares[row, column]
            hover = (
                f"true {_span(marks, row)}, predicted {_span(marks, column)}: "
                f"{counts[row, column]} of {counts[row].sum()} pairs"
            )
            parts.append(
                f'<g><title>{escape(hover)}</title><rect class="cell" x="{x + 0.75:.2f}" y="{y + 0.75:.2f}" rx="2" '
                f'width="{cell - 1.5:.2f}" height="{cell - 1.5:.2f}" fill-opacity="{0.05 + 0.95 * share:.2f}"/>'
            )
            if num_bins <= 8 and share >= 0.005:
                dress = ' class="on"' if share > 0.65 else ""
                parts.append(
                    f'<text{dress} x="{x + cell / 2:.1f}" y="{y + cell / 2 + 3.5:.1f}" text-anchor="middle">'
                    f"{100 * share:.0f}</text>"
                )
            parts.append("</g>")
        parts.append(
            f'<rect class="right" x="{left + row * cell + 0.75:.2f}" y="{y + 0.75:.2f}" rx="2" '
            f'width="{cell - 1.5:.2f}" height="{cell - 1.5:.2f}"/>'
        )
    step = -(-len(marks) // 4)  # more labels would touch each other
    for place in range(0, len(marks), step):
        at = (place + 1) * cell
        parts.append(f'<text x="{left + at:.1f}" y="{top + side + 13}" text-anchor="middle">{marks[place]}</text>')
        parts.append(f'<text x="{left - 6}" y="{top + side - at + 3.5:.1f}" text-anchor="end">{marks[place]}</text>')
    middle = top + side / 2
    parts.append(
        f'<text class="axis" x="{left + side / 2}" y="{top + side + 30}" text-anchor="middle">predicted</text>'
    )
    parts.append(
        f'<text class="axis" x="9" y="{middle}" text-anchor="middle" transform="rotate(-90 9 {middle})">true</text>'
    )
    return _svg(left + side + 6, top + side + 36, f"true against predicted bins of {predicted.name}", parts)


def scatter(flat: Map) -> str:
    """The map's points, coloured by class; classes beyond the colours are drawn as rings, unknown ones in grey."""
    side, margin = 520, 10
    low, high = flat.places.min(axis=0), flat.places.max(axis=0)
    # One scale for both directions: distances on a map are to be compared.
    scale = (side - 2 * margin) / max(float((high - low).max()), 1e-12)
    spots = (flat.places - (low + high) / 2) * scale + side / 2
    parts = [f'<rect class="frame" x="0.5" y="0.5" width="{side - 1}" height="{side - 1}" rx="6"/>']
    # Grey ones first: they lie under those with a colour.
    for label in sorted(np.unique(flat.labels).tolist(), key=lambda label: (colour(flat, label) != "none", label)):
        parts.append(f'<g class="spot {colour(flat, label)}"><title>{escape(class_name(flat, label))}</title>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in spots[flat.labels == label]]
        parts.append("</g>")
    return _svg(side, side, "map of the embeddings", parts)


def colour(flat: Map, label: int) -> str:
    """The style's class of a label: ten colours, filled, then the same as rings, then again from the start."""
    if label < 0 or (flat.coloured is not None and label not in flat.coloured):
        return "none"
    place = label if flat.coloured is None else flat.coloured.index(label)
    return f"c{place % NUM_COLOURS}" + (" ring" if place // NUM_COLOURS % 2 else "")


def class_name(flat: Map, label: int) -> str:
    if label < 0:
        return "no label"
    return flat.classes[label] if label < len(flat.classes) else f"class {label}"


def _svg(width: float, height: float, title: str, parts: list[str]) -> str:
    inside = "".join(parts)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">{inside}</svg>'


def _thinned(curve: Curve) -> Curve:
    """At most _POINTS points [T]: the means of equal runs of neighbours."""
    size = -(-len(curve.steps) // _POINTS)
    if size <= 1:
        return Curve(curve.steps.astype(np.float64), _finite(curve.values))
    cuts = np.arange(0, len(curve.steps), size)
    counts = np.diff(np.append(cuts, len(curve.steps)))
    steps, values = (np.add.reduceat(np.asarray(c, np.float64), cuts) / counts for c in curve)
    return Curve(steps, _finite(values))


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan).astype(np.float64)


def _unbroken(curve: Curve) -> list[list[tuple[float, float]]]:
    """The stretches of a curve between its gaps."""
    runs: list[list[tuple[float, float]]] = [[]]
    for step, value in zip(curve.steps.tolist(), curve.values.tolist(), strict=True):
        if np.isnan(value):
            runs.append([])
        else:
            runs[-1].append((step, value))
    return [run for run in runs if run]


def _ticks(low: float, high: float) -> list[float]:
    """A few round numbers that enclose [low, high]."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - max(abs(low), 1) / 2, high + max(abs(high), 1) / 2
    return [float(tick) for tick in MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def _labels(ticks: list[float]) -> list[str]:
    """What stands beside evenly spaced ticks: as many digits as tell them apart."""
    top, step = max(abs(tick) for tick in ticks), float(np.diff(ticks).min()) if len(ticks) > 1 else 1.0
    if not 1e-3 <= top < 1e4:
        return [_minus(number(tick)) for tick in ticks]
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [_minus(_trimmed(round(tick, digits), digits)) for tick in ticks]


def _trimmed(value: float, digits: int) -> str:
    text = f"{value or 0.0:.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _rounded(edges: np.ndarray) -> list[str]:
    """Edges to about a hundredth of their spread: what is finer is noise of the fit."""
    spread = float(np.ptp(edges)) or float(np.abs(edges).max()) or 1.0
    digits = max(0, 2 - round(math.log10(spread)))
    return [_minus(_trimmed(round(float(edge), digits), digits)) for edge in edges]


def _span(marks: list[str], place: int) -> str:
    if place == 0:
        return f"up to {marks[0]}"
    return f"above {marks[-1]}" if place == len(marks) else f"{marks[place - 1]} to {marks[place]}"
