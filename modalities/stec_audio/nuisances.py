"""What changes the sound of a view and not its place: performed, never predicted.

Every sample has its own parameters, drawn with its keys; performing them draws nothing.

Legend: B samples [B, 1, L], float; P parameters.
"""

import math

import torch
from torch import Tensor

from stec.actions import Component, Relative
from stec.errors import UsageError
from stec.rng import bits, uniform
from stec_audio.reading import RATE

# Order of each flank of the band-pass: 24 dB per octave, as of two biquads in a row.
_ORDER = 4
# Zeros between the end and the beginning, which are neighbours for a Fourier transform, in seconds.
_MARGIN = 0.05


class _Nuisance:
    """What the three share: no component to predict, and which samples need work."""

    components: tuple[Component, ...] = ()
    num_params = 1

    def act(self, x: Tensor, action: Tensor, view: int) -> Tensor:  # noqa: ARG002
        """Perform the actions [B, P] on x float [B, 1, L]; x itself stays as it is."""
        with torch.autocast(x.device.type, enabled=False):
            touched = self.touches(action)
            if x.device.type != "cpu":
                # Asking an accelerator which samples are touched would stall it: all are changed, and some dropped.
                return torch.where(touched[:, None, None], self.change(x, action), x)
            out = x.clone()
            if touched.any():
                out[touched] = self.change(x[touched], action[touched])
            return out

    def touches(self, action: Tensor) -> Tensor:
        """bool [B]: does the action [B, P] change anything?"""
        return action[:, 0] != 0

    def change(self, x: Tensor, action: Tensor) -> Tensor:
        """x changed, as a new tensor."""
        raise NotImplementedError

    def relative(self, a: Tensor, b: Tensor) -> Relative:  # noqa: ARG002
        """Nothing to predict: values and valid [B, 0]."""
        return Relative(a.new_empty(len(a), 0), torch.empty(len(a), 0, dtype=torch.bool, device=a.device))

    def trusted(self, a: Tensor, b: Tensor) -> Tensor:  # noqa: ARG002
        """bool [B]: the other parts' copies may be learnt from."""
        return torch.ones(len(a), dtype=torch.bool, device=a.device)


class Gain(_Nuisance):
    """Louder or softer, with probability p. db: range of the gain in dB (uniform). What exceeds 1 is not clipped.

    Parameter [B, 1]: dB, 0 if left alone.
    """

    def __init__(self, *, db: tuple[float, float] = (-6.0, 6.0), p: float = 0.5):
        self.db, self.p = _checked_range("gain.db", db, "dB"), _checked_probability("gain", p)

    def sample(self, keys: Tensor, extent: Tensor, view: int) -> Tensor:  # noqa: ARG002
        """float32 [B, 1] for keys int64 [B, 3]."""
        chosen, where = _draws(keys, view, "gain", 2).split(1, dim=1)
        return torch.where(chosen < self.p, _between(self.db, where), 0.0).float()

    def change(self, x: Tensor, action: Tensor) -> Tensor:
        return x * 10 ** (action[:, :, None].to(x.dtype) / 20)


class Noise(_Nuisance):
    """White Gaussian noise added, with probability p. snr: range of the signal-to-noise ratio in dB (uniform): the mean
    square of the view over that of the noise. Digital silence stays silent.

    Parameters [B, 3]: 1 if noise is added, the ratio in dB, and the number (below 2^24) which names the noise.
    """

    num_params = 3

    def __init__(self, *, snr: tuple[float, float] = (10.0, 30.0), p: float = 0.5):
        self.snr, self.p = _checked_range("noise.snr", snr, "dB"), _checked_probability("noise", p)

    def sample(self, keys: Tensor, extent: Tensor, view: int) -> Tensor:  # noqa: ARG002
        """float32 [B, 3] for keys int64 [B, 3]."""
        chosen, where, name = _draws(keys, view, "noise", 3).split(1, dim=1)
        action = torch.cat([torch.ones_like(where), _between(self.snr, where), (name * 2**24).floor()], dim=1)
        return torch.where(chosen < self.p, action, 0.0).float()

    def change(self, x: Tensor, action: Tensor) -> Tensor:
        ratio = 10 ** (action[:, 1, None, None].to(x.dtype) / 20)
        noise = _white(action[:, 2].long(), x.shape[-1]).to(x.dtype)[:, None]
        level = x.square().mean(dim=(1, 2), keepdim=True).sqrt()
        return torch.addcmul(x, noise, level / ratio)


def _white(names: Tensor, num: int) -> Tensor:
    """float32 [B, num] normal numbers of mean square 1, a function of names int64 [B] alone, on any device.

    Counter-based words, two of which give two normal numbers (Box and Muller, 1958).
    """
    keys = torch.stack([names, torch.zeros_like(names), torch.zeros_like(names)], dim=1)
    words = bits(keys, 0, "white", num + num % 2).float()
    first, second = words.view(len(names), -1, 2).unbind(2)
    radius = torch.sqrt(-2 * torch.log((first + 1) / (2.0**32 + 1)))
    angle = second * (2 * math.pi / 2.0**32)
    white = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2).flatten(1)[:, :num]
    return white / white.square().mean(dim=1, keepdim=True).sqrt()


class BandPass(_Nuisance):
    """What is below one frequency and above another taken off, with probability p, as by a telephone.

    low, high: ranges of the two edges in Hz (log-uniform): there the power has fallen to half, from there on it falls
    by 24 dB per octave. Without shift in time (zero phase).

    Parameters [B, 2]: the two edges in Hz, 0 if left alone.
    """

    num_params = 2

    def __init__(
        self,
        *,
        low: tuple[float, float] = (50.0, 300.0),
        high: tuple[float, float] = (3000.0, 7000.0),
        p: float = 0.5,
    ):
        self.low, self.high = _checked_range("band_pass.low", low, "Hz"), _checked_range("band_pass.high", high, "Hz")
        if not 0 < low[0] <= low[1] < high[0] <= high[1] <= RATE / 2:
            raise UsageError(
                f"actions.band_pass.low={list(low)} and .high={list(high)} must be frequencies above 0 and up to half"
                f" the sampling rate ({RATE / 2:g} Hz), all of `low` below all of `high`."
            )
        self.p = _checked_probability("band_pass", p)

    def sample(self, keys: Tensor, extent: Tensor, view: int) -> Tensor:  # noqa: ARG002
        """float32 [B, 2] for keys int64 [B, 3]."""
        chosen, low, high = _draws(keys, view, "band_pass", 3).split(1, dim=1)
        edges = []
        for (least, most), where in ((self.low, low), (self.high, high)):
            edges.append(torch.exp(_between((math.log(least), math.log(most)), where)))
        return torch.where(chosen < self.p, torch.cat(edges, dim=1), 0.0).float()

    def change(self, x: Tensor, action: Tensor) -> Tensor:
        num = x.shape[-1]
        # A multiple of a power of 2: prime numbers of samples are transformed slowly.
        padded = -(-(num + round(_MARGIN * RATE)) // 1024) * 1024
        frequency = torch.fft.rfftfreq(padded, 1 / RATE, device=x.device, dtype=x.dtype)
        # 0, of those not touched, must not be divided by; nor is 0 Hz a frequency to divide by.
        low, high = action.to(x.dtype).clamp(min=1e-3).split(1, dim=1)
        kept = 1 + (low / frequency.clamp(min=1e-3)) ** (2 * _ORDER)
        kept = (kept * (1 + (frequency / high) ** (2 * _ORDER))).rsqrt()
        return torch.fft.irfft(torch.fft.rfft(x, padded) * kept[:, None], padded)[..., :num]


def _draws(keys: Tensor, view: int, stream: str, num: int) -> Tensor:
    """float64 [B, num] in [0, 1): drawn in numpy, whose small arrays cost less; the numbers are the same."""
    return torch.from_numpy(uniform(keys.numpy(), view, stream, num))


def _between(limits: tuple[float, float], where: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * where


def _checked_range(key: str, limits: tuple[float, float], unit: str) -> tuple[float, float]:
    if len(limits) != 2 or not -math.inf < limits[0] <= limits[1] < math.inf:
        raise UsageError(f"actions.{key}={list(limits)} must be two rising numbers, in {unit}.")
    return limits[0], limits[1]


def _checked_probability(part: str, p: float) -> float:
    if not 0 <= p <= 1:
        raise UsageError(f"actions.{part}.p={p} must be a probability in [0, 1].")
    return p
