"""Pictures of temporal actions: where two windows lie in their recording, and what was done between them, in words.

Legend: V views, P parameters of an action, L samples of a view, N samples of a recording.
"""

import io
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from stec import affine
from stec.actions import Compose
from stec.decoder import Opened
from stec.errors import UsageError
from stec_audio.actions import TemporalWindow
from stec_audio.reading import RATE

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom

# Blue and orange: told apart by every kind of colour vision, and on light and dark pages.
COLOURS: tuple[Colour, Colour] = (63, 127, 200), (224, 131, 48)
_GREY: Colour = (128, 134, 142)

_WIDTH = 860  # of a picture; a page shows it at about half of it
_TALL, _LOW = 130, 96  # of the recording and of a view
_CAPTION, _GAP, _ARROW = 34, 20, 46
_FINE = 3  # drawn this many times larger and then reduced, which smooths
_FONT = 24
_INSET = 9  # the second window is drawn lower, so that the first is seen where they lie upon each other
_BEYOND = 4.0  # how far before and after a recording the second window is followed, in lengths of the longer one

_RATIO, _OFFSET = affine.entry_names("t")
_MEANINGS = {
    _RATIO: "Length of window 2 in lengths of window 1: above 1, view 2 plays faster.",
    _OFFSET: "How much later window 2 lies, in half-windows of view 1.",
}


class _Whole(Protocol):
    def open(self, raw: bytes) -> Opened: ...

    def all(self, opened: Opened) -> Tensor: ...


class Windows:
    """Draws the windows of `space`, which must have a temporal_window among its parts; UsageError otherwise."""

    legend = (
        "Blue: view 1, orange: view 2. The arrow leads from the middle of the first window to that of the second; a"
        " half-window is half of view 1. Views are drawn as the network hears them, each as high as it is loud at most."
    )

    def __init__(self, space: Compose):
        found = [(name, part) for name, part in space.parts.items() if isinstance(part, TemporalWindow)]
        if not found:
            known = ", ".join(space.parts)
            raise UsageError(f"pictures of windows need a temporal_window, but the actions are: {known}.")
        name, self._window = found[0]
        self._columns = space.slices[name]
        # Only the egocentric frame is in the coordinates of the first view, which is where words and windows live.
        self._units = {c.name: c.unit for c in self._window.components}
        self._felt = self._units.get(_OFFSET) == "half-windows"
        self.meanings: dict[str, str] = _MEANINGS if self._felt else {}
        """Components of the action in a few words; those of other frames are left unexplained."""

    def source(self, raw: bytes, decoder: _Whole) -> Tensor:
        """int16 [1, N]: the whole recording; DataError if unreadable."""
        return decoder.all(decoder.open(raw))

    def pair(self, source: Tensor, actions: Tensor, views: Sequence[Tensor]) -> bytes:
        """PNG: the whole recording int16 [1, N] with the windows of actions [V, P] and the way from the first to the
        second, then the two views float [1, L] as they are heard."""
        start, length, _, num = actions[:2, self._columns].double().unbind(1)
        windows = torch.stack([start, start + length], dim=1) / num[:, None] * source.shape[-1]
        half = float(length[0]) / 2
        way = float(start[1] + length[1] / 2 - start[0] - length[0] / 2)
        return self._drawn(
            source,
            windows,
            f"{way / half:+.2f} half-windows ({way / RATE:+.2f} s)",
            views[:2],
            ("view 1", "view 2"),
        )

    def answer(self, a: Tensor, b: Tensor, values: dict[str, float]) -> bytes:
        """PNG: recording a [1, N], what is heard of it, and the window in which the action {component: value} hears b.

        Both int16, or float in [-1, 1]. A component that is missing counts as nothing done. In a frame other than the
        egocentric one the action does not say where the window is, and none is drawn.
        """
        known = {_RATIO: 1.0, _OFFSET: 0.0} | {n: v for n, v in values.items() if math.isfinite(v)}
        (start, length), own = self._heard(a), self._heard(b)
        half = length / 2
        way, reach = known[_OFFSET] * half, known[_RATIO] * half
        middle = start + half + way
        windows = torch.tensor([[start, start + length], [middle - reach, middle + reach]], dtype=torch.float64)
        said = f"{known[_OFFSET]:+.2f} half-windows ({way / RATE:+.2f} s)"
        if not self._felt:
            windows, said = windows[:1], ""
        views = (a[..., start : start + length], b[..., own[0] : sum(own)])
        return self._drawn(a, windows, said, views, ("a", "b"))

    def _heard(self, x: Tensor) -> tuple[int, int]:
        """Start and length of the window of a recording [1, N] which stands for it as it is."""
        action = self._window.still(torch.tensor([[x.shape[-1]]]))[0]
        return int(action[0]), int(action[1])

    def words(self, values: dict[str, float]) -> str:
        """The action {component: value} in plain words: "0.4 half-windows later, 1.10x faster". Components that are
        missing or not finite are not spoken of. In a frame other than the egocentric one: the values."""
        if not self._felt:
            each = [f"{name} {v:.2f} {self._units[name]}" for name, v in values.items() if name in self._units]
            return ", ".join(each) or "unknown"
        known = {n: v for n, v in values.items() if n in _MEANINGS and math.isfinite(v)}
        if not known:
            return "unknown"
        return ", ".join([*_moved(known.get(_OFFSET, 0.0)), *_played(known.get(_RATIO, 1.0))]) or "nothing"

    def _drawn(
        self, source: Tensor, windows: Tensor, said: str, views: Sequence[Tensor], names: tuple[str, str]
    ) -> bytes:
        """windows [1 or 2, 2]: first and last sample of each on the recording; said: what stands at the arrow."""
        num = source.shape[-1]
        reach = _BEYOND * max(num, float(windows[0, 1] - windows[0, 0]))
        low = min(0.0, max(float(windows.min()), -reach))
        high = max(float(num), min(float(windows.max()), num + reach))
        ruler = _WIDTH / (high - low)
        top = _ARROW + _TALL + _CAPTION + _GAP
        canvas = _Canvas(_WIDTH, top + _LOW + _CAPTION)
        across = [[(float(edge) - low) * ruler for edge in window] for window in windows]
        ground = (-low * ruler, _ARROW, (num - low) * ruler, _ARROW + _TALL)
        canvas.wave(source, ground, _GREY)
        for (left, right), colour in zip(across, COLOURS, strict=False):
            inside = (max(left, ground[0]), _ARROW, min(right, ground[2]), _ARROW + _TALL)
            canvas.wave(source, ground, colour, inside)
        for (left, right), colour, inset in zip(across, COLOURS, (0, _INSET), strict=False):
            canvas.frame((left, _ARROW + inset, right, _ARROW + _TALL - inset), colour)
        if said:
            middles = [min(max(sum(edges) / 2, 0), _WIDTH) for edges in across]
            canvas.arrow(middles[0], middles[1], _ARROW - 10, COLOURS[1], said)
        canvas.text(0, _ARROW + _TALL + 4, f"recording, {num / RATE:.2f} s", _GREY)
        wide = (_WIDTH - _GAP) / 2
        for number, (view, name, colour) in enumerate(zip(views, names, COLOURS, strict=True)):
            left = number * (wide + _GAP)
            box = (left, top, left + wide, top + _LOW)
            canvas.wave(view, box, colour)
            canvas.frame(box, colour)
            canvas.text(left, top + _LOW + 4, f"{name}, {view.shape[-1] / RATE:.2f} s", colour)
        return canvas.png()


class _Canvas:
    """A clear ground on which is drawn _FINE times larger."""

    def __init__(self, width: float, height: float):
        self.size = (math.ceil(width), math.ceil(height))
        self._picture = Image.new("RGBA", (self.size[0] * _FINE, self.size[1] * _FINE), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self._picture)
        self._font = ImageFont.load_default(_FONT * _FINE)

    def wave(self, x: Tensor, box: Box, colour: Colour, within: Box | None = None) -> None:
        """The envelope of x [1, N] over the box, its loudest sample touching the edge; only the part `within`."""
        left, top, right, bottom = box
        first, last = (within[0], within[2]) if within else (left, right)
        columns = max(1, round(right - left))
        low, high = _envelope(x, columns)
        middle, half = (top + bottom) / 2, (bottom - top) / 2 - 6
        for column in range(max(0, round(first - left)), min(columns, round(last - left))):
            across = (left + column) * _FINE
            upper, lower = ((middle - half * at) * _FINE for at in (high[column], low[column]))
            # Not thinner than a pixel, so that silence is a line.
            self._draw.rectangle(
                (across, upper - _FINE / 2, across + _FINE - 1, lower + _FINE / 2), fill=(*colour, 255)
            )

    def frame(self, box: Box, colour: Colour) -> None:
        """A rectangle with a pale rim, so that it is seen on any ground."""
        edges = [edge * _FINE for edge in box]
        # Of what lies beyond the picture, an edge is seen at its border.
        edges[0] = min(max(edges[0], 0.0), self._picture.width - 1 - 8 * _FINE)
        edges[2] = min(max(edges[2], edges[0] + 8 * _FINE), self._picture.width - 1)
        self._draw.rectangle(edges, outline=(255, 255, 255, 200), width=6 * _FINE)
        inner = [edges[0] + _FINE, edges[1] + _FINE, edges[2] - _FINE, edges[3] - _FINE]
        self._draw.rectangle(inner, outline=(*colour, 255), width=4 * _FINE)

    def arrow(self, start: float, end: float, height: float, colour: Colour, said: str) -> None:
        """From `start` to `end`, above the frames, and what it says beside it."""
        start, end, height = (value * _FINE for value in (start, end, height))
        tip = math.copysign(min(12 * _FINE, abs(end - start)), end - start)
        paint = (*colour, 255)
        self._draw.line([(start, height), (end - tip, height)], fill=paint, width=4 * _FINE)
        self._draw.line([(start, height - 7 * _FINE), (start, height + 7 * _FINE)], fill=paint, width=3 * _FINE)
        self._draw.polygon(
            [(end, height), (end - tip, height - 8 * _FINE), (end - tip, height + 8 * _FINE)], fill=paint
        )
        wide = self._font.getlength(said)
        place = min(max((start + end - wide) / 2, 0), self._picture.width - wide)
        self._draw.text((place, height - 36 * _FINE), said, fill=paint, font=self._font)

    def text(self, left: float, top: float, said: str, colour: Colour) -> None:
        self._draw.text((left * _FINE, top * _FINE), said, fill=(*colour, 255), font=self._font)

    def png(self) -> bytes:
        buffer = io.BytesIO()
        small = self._picture.resize(self.size, Image.Resampling.LANCZOS)
        # Three colours and their edges need no more, which makes the file a third as large.
        small.quantize(64, Image.Quantize.FASTOCTREE).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()


def _envelope(x: Tensor, columns: int) -> tuple[list[float], list[float]]:
    """The least and the largest of x [1, N] within each of so many columns, the largest magnitude scaled to 1."""
    samples = x.detach().cpu().flatten().float()
    samples = samples / samples.abs().max().clamp(min=1e-9)
    edges = torch.linspace(0, len(samples), columns + 1).round().long().clamp(max=len(samples) - 1)
    part = torch.searchsorted(edges[1:].contiguous(), torch.arange(len(samples)), right=True).clamp(max=columns - 1)
    # From its own first sample to the first of the next column: the line has no gaps, however few samples there are.
    low = torch.minimum(samples[edges[:-1]], samples[edges[1:]]).scatter_reduce_(0, part, samples, "amin")
    high = torch.maximum(samples[edges[:-1]], samples[edges[1:]]).scatter_reduce_(0, part, samples, "amax")
    return low.tolist(), high.tolist()


def _moved(halves: float) -> list[str]:
    """An offset in half-windows -> at most one phrase."""
    if abs(halves) < 0.05:
        return []
    told = f"{abs(halves):.1f}"
    return [f"{told} half-window{'' if told == '1.0' else 's'} {'later' if halves > 0 else 'earlier'}"]


def _played(ratio: float) -> list[str]:
    """A ratio of lengths -> at most one phrase."""
    if ratio <= 0 or abs(math.log(ratio)) < 0.005:
        return []
    return [f"{ratio:.2f}x faster" if ratio > 1 else f"{1 / ratio:.2f}x slower"]
