"""What moves along a recording: a window cut out of it, and how fast it is played.

Legend: B recordings, L samples of a view, N samples of a recording.
"""

import math
from fractions import Fraction
from itertools import product

import torch
from torch import Tensor

from stec import affine
from stec.actions import Component, Relative
from stec.errors import UsageError
from stec.frames import frame
from stec.rng import uniform

_FRAMES = ("ego", "allocentric", "augself")
_SLOWEST, _FASTEST = 0.25, 4.0


class TemporalWindow:
    """A window of the recording, uniform among its whole samples, at a speed drawn with equal chances.

    size: samples of a view. speeds: factors, source samples for each sample of a view, in hundredths (1.1: a tenth
    faster, and higher). step: windows start at multiples of so many samples. max_offset: how far the middle of a view
    may lie from that of view 0, in half-windows of view 0 (null: anywhere); where the recording's end or `step` leaves
    no such place, the nearest is taken. frame: in whose coordinates a relative action is told, "ego", "allocentric" or
    "augself".

    Parameters [B, 4]: start and length (whole samples of the source), speed, N. Beyond 2^24 samples (17 minutes at
    16 kHz) starts are rounded down to what float32 holds.
    """

    num_params = 4

    def __init__(
        self,
        *,
        size: int,
        speeds: tuple[float, ...] = (1.0,),
        step: int = 1,
        max_offset: float | None = None,
        frame: str = "ego",
    ):
        where = "actions.temporal_window"
        if size < 1:
            raise UsageError(f"{where}.size={size} must be at least 1 sample.")
        if not speeds or any(not _SLOWEST <= s <= _FASTEST or abs(100 * s - round(100 * s)) > 1e-6 for s in speeds):
            raise UsageError(
                f"{where}.speeds={list(speeds)} must be one or more factors in whole hundredths, from {_SLOWEST} to"
                f" {_FASTEST}."
            )
        if len(set(speeds)) < len(speeds):
            raise UsageError(f"{where}.speeds={list(speeds)} has a factor twice.")
        if step < 1:
            raise UsageError(f"{where}.step={step} must be at least 1 sample.")
        if max_offset is not None and not 0 <= max_offset < math.inf:
            raise UsageError(f"{where}.max_offset={max_offset} must be at least 0 half-windows, or null for no limit.")
        if frame not in _FRAMES:
            raise UsageError(f"{where}.frame={frame!r} is unknown: choose one of {', '.join(_FRAMES)}.")
        self.size, self.speeds, self.step, self.max_offset = size, tuple(speeds), step, max_offset
        self._lengths = [max(1, round(size * s)) for s in self.speeds]
        self._relate, components = _frame(frame)
        self.components = self._components() if frame == "ego" else components("t")

    def _components(self) -> tuple[Component, ...]:
        ratios = {Fraction(b, a) for a, b in product(self._lengths, repeat=2)}
        levels = tuple(sorted(float(r) for r in ratios)) if len(ratios) > 1 else ()
        # Told from the faster view to the slower or back, the same way is shorter or longer.
        reach = math.inf if self.max_offset is None else self.max_offset * float(max(ratios))
        speed, offset = affine.entry_names("t")
        return Component(speed, "ratio", levels=levels), Component(offset, "half-windows", low=-reach, high=reach)

    def sample(self, keys: Tensor, extent: Tensor, view: int) -> Tensor:
        """float32 [B, 4] for keys int64 [B, 3] and extents int64 [B, 1] = N; a source shorter than the window is heard
        from its first sample on."""
        # In numpy, whose small arrays cost less; the numbers are the same.
        which, where = torch.from_numpy(uniform(keys.numpy(), view, "temporal_window", 2)).unbind(1)
        choice = (which * len(self.speeds)).long()
        length = torch.tensor(self._lengths, dtype=torch.float64)[choice]
        speed = torch.tensor(self.speeds, dtype=torch.float64)[choice]
        num = extent[:, 0].double()
        last = ((num - length).clamp(min=0) / self.step).floor()
        low, high = torch.zeros_like(last), last
        if view > 0 and self.max_offset is not None:
            first = self.sample(keys, extent, 0).double()
            middle = first[:, 0] + (first[:, 1] - length) / 2  # where a window starts that has the same middle
            reach = self.max_offset * first[:, 1] / 2
            low = ((middle - reach) / self.step - 1e-9).ceil()
            high = ((middle + reach) / self.step + 1e-9).floor()
            nearest = (middle / self.step).round()
            low, high = (torch.where(low <= high, edge, nearest).clamp(min=0).minimum(last) for edge in (low, high))
        start = self.step * (low + (where * (high - low + 1)).floor())
        return torch.stack([_rounded_down(start), length.float(), speed.float(), num.float()], dim=1)

    def still(self, extent: Tensor) -> Tensor:
        """float32 [B, 4] for extents int64 [B, 1]: the window in the middle, at speed 1. A recording cannot be squeezed
        into a view as a picture can; one as long as a view is all of it."""
        num = extent.double()
        start = ((num - self.size).clamp(min=0) / 2).floor()
        return torch.cat([start, torch.full_like(num, self.size), torch.ones_like(num), num], dim=1).float()

    def act(self, x: Tensor, action: Tensor, view: int) -> Tensor:  # noqa: ARG002
        """Views [B, 1, L] of whole recordings x float [B, 1, N]; zeros where a window goes on beyond its recording.

        Speeds other than 1 are interpolated linearly, which aliases when it plays faster: decoders resample with a
        filter. Views [B, 1, L] which a decoder has begun already (those of recordings of another length) stay.
        """
        start, length, _, num = (column[:, None] for column in action.double().unbind(1))
        place = (torch.arange(self.size, device=x.device, dtype=torch.float64) + 0.5) * (length / self.size) - 0.5
        place = start + place.clamp(min=0).minimum(length - 1)  # nothing beyond the window is heard
        before = place.floor()
        share = (place - before).to(x.dtype)[:, None]
        last = x.shape[-1] - 1
        left, right = (before.long() + shift for shift in (0, 1))
        left, right = (x.gather(2, i.clamp(max=last)[:, None].expand(-1, x.shape[1], -1)) for i in (left, right))
        cut = torch.where((place > num - 1)[:, None], 0, left + share * (right - left))
        if x.shape[-1] != self.size:
            return cut
        return torch.where((num == self.size)[:, None], cut, x)

    def matrix(self, action: Tensor) -> Tensor:
        """A_v float64 [B, 2, 2]: a view samples its source at p = A_v u, in the source's half-extents."""
        start, length, _, num = action.double().unbind(1)
        return affine.window(((2 * start + length) / num - 1)[:, None], (length / num)[:, None])

    def relative(self, a: Tensor, b: Tensor) -> Relative:
        """The action that leads from a to b, [B, 4] each, as its frame tells it: [B, K]; valid where trusted. In the
        egocentric one: ratio of lengths, and offset."""
        values = self._relate(self.matrix(a), self.matrix(b))
        return Relative(values.float(), self.trusted(a, b)[:, None].expand_as(values))

    def trusted(self, a: Tensor, b: Tensor) -> Tensor:
        """bool [B]: neither window is longer than its recording (silence, put at the end, would tell its start)."""
        return (a[:, 1] <= a[:, 3]) & (b[:, 1] <= b[:, 3])


# The constructor's keyword `frame` hides the function of that name.
_frame = frame


def _rounded_down(whole: Tensor) -> Tensor:
    """float64 -> float32, never upwards: a window must not leave its recording."""
    near = whole.float()
    return torch.where(near.double() > whole, torch.nextafter(near, torch.zeros_like(near)), near)
