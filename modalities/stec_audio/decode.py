"""Bytes -> the views of a recording, cut out while it is read: what lies between them is not decoded.

Legend: V views, P parameters of an action, L samples of a view, N samples of the recording at 16 kHz.
"""

import math

import numpy as np
import torch
from torch import Tensor

from stec.actions import Compose
from stec.decoder import Opened
from stec.errors import DataError, UsageError
from stec_audio.actions import TemporalWindow
from stec_audio.reading import EXTENSIONS, MAX_SECONDS, Sound, resampler, to_int16


class Window:
    """Every view, int16 [1, L], at 16 kHz and mono: the window of the action, at its speed.

    short: what to do with recordings shorter than the longest window: "pad" puts zeros at their end, "refuse" calls
    them damaged samples. quiet: "keep", or "refuse" to call a sample damaged if each of its drawn windows is digital
    silence (nothing but zeros) from end to end; one window that is not makes the sample sound, and evaluation views are
    never refused. max_seconds: a header that promises more is not believed.
    """

    extensions = EXTENSIONS
    performs = 1

    def __init__(
        self,
        space: Compose,
        *,
        short: str = "pad",
        quiet: str = "keep",
        max_seconds: float = MAX_SECONDS,
    ):
        if short not in ("pad", "refuse"):
            raise UsageError(f"decoder.short={short!r} is unknown: choose pad or refuse.")
        if quiet not in ("keep", "refuse"):
            raise UsageError(f"decoder.quiet={quiet!r} is unknown: choose keep or refuse.")
        if not 0 < max_seconds < math.inf:
            raise UsageError(f"decoder.max_seconds={max_seconds} must be above 0 seconds, and finite.")
        name, part = next(iter(space.parts.items()))
        if not isinstance(part, TemporalWindow):
            raise UsageError(
                f"decoder=window performs the first part of the action space, which is {name!r}, not a temporal window."
            )
        self.short, self.quiet, self.max_seconds = short, quiet, max_seconds
        self.size, self._columns = part.size, space.slices[name]
        self._longest = max(round(part.size * speed) for speed in part.speeds)

    def open(self, raw: bytes) -> Opened:
        """(N,), from the header alone; DataError if it is unreadable, over a limit, or too short and short=refuse."""
        sound = Sound(raw, max_seconds=self.max_seconds)
        num = sound.num_samples
        if self.short == "refuse" and num < self._longest:
            raise DataError(
                f"a recording of {num} samples, shorter than a window of {self._longest} (decoder.short=refuse)."
            )
        return Opened((num,), sound)

    def __call__(self, opened: Opened, actions: Tensor) -> tuple[Tensor, ...]:
        """V views from actions [V, P].

        DataError if the recording is damaged within what the windows need of it, or silent and quiet=refuse.
        """
        sound: Sound = opened.content
        views = [self._cut(sound, int(start), speed) for start, _, speed, _ in actions[:, self._columns].tolist()]
        if self.quiet == "refuse" and not any(view.any() for view in views):
            raise DataError("digital silence in every window that was drawn (decoder.quiet=refuse).")
        return tuple(_tensor(view) for view in views)

    def whole(self, opened: Opened) -> Tensor:
        """int16 [1, L]: the window in the middle; a shorter recording from its beginning, with zeros at its end."""
        sound: Sound = opened.content
        return _tensor(self._cut(sound, max(0, (sound.num_samples - self.size) // 2), 1.0))

    def all(self, opened: Opened) -> Tensor:
        """int16 [1, N]: the whole recording, however long or short."""
        sound: Sound = opened.content
        return _tensor(sound.read(0, sound.num_samples))

    def finish(self, x: Tensor) -> Tensor:
        """int16 of any shape -> float32, full scale at +-1 (no mean or deviation is taken off)."""
        return x.float() / 32768

    def _cut(self, sound: Sound, start: int, speed: float) -> np.ndarray:
        """int16 [L]: from `start` on, `speed` samples of the recording for each of the view; zeros beyond its ends.

        At another speed than 1 the filter sees the few samples that it needs to either side of the window, so that a
        view is what the recording, resampled from `start` on, sounds like there.
        """
        percent = round(100 * speed)
        if percent == 100:
            return _stretch(sound, start, start + self.size)
        shared = math.gcd(percent, 100)
        old, new = percent // shared, 100 // shared
        resample = resampler(old, new)
        margin = -(-resample.width // old)
        first, last = start - margin * old, start + (-(-self.size // new) + margin) * old
        excerpt = torch.from_numpy(_stretch(sound, first, last).astype(np.float32) / 32768)
        return to_int16(resample(excerpt).numpy()[margin * new : margin * new + self.size])


def _stretch(sound: Sound, start: int, stop: int) -> np.ndarray:
    """int16 [stop - start] of a recording, zeros where there is none of it."""
    first, last = (min(max(0, at), sound.num_samples) for at in (start, stop))
    found = sound.read(first, last)
    if len(found) == stop - start:
        return found
    padded = np.zeros(stop - start, np.int16)
    padded[first - start : first - start + len(found)] = found
    return padded


def _tensor(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x)[None]
