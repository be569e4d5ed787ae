import torch

from stec.actions import Component, Relative
from stec.rng import uniform


class Window:
    """A stretch of a recording [B, 3, N], its length uniform in `lengths` (shares of N), resampled to `size`."""

    num_params = 2  # start and length, in samples
    components = (Component("linear_tt", "ratio"), Component("translation_t", "half-windows"))

    def __init__(self, *, size: int = 64, lengths: tuple[float, float] = (0.25, 0.75)):
        self.size, self.lengths = size, lengths

    def sample(self, keys, extent, view):
        draw, (low, high) = uniform(keys, view, "motion_window", 2), self.lengths
        length = torch.round(extent[:, 0] * (low + (high - low) * draw[:, 0]))
        return torch.stack([torch.floor(draw[:, 1] * (extent[:, 0] - length + 1)), length], dim=1).float()

    def act(self, x, action, view):
        steps = (torch.arange(self.size, device=x.device) + 0.5) / self.size
        place = (action[:, :1] + action[:, 1:] * steps).long()
        return x.gather(2, place[:, None].expand(-1, x.shape[1], -1))

    def relative(self, a, b):
        shift = 2 * (b[:, 0] - a[:, 0]) / a[:, 1] + b[:, 1] / a[:, 1] - 1  # of the centres
        return Relative(torch.stack([b[:, 1] / a[:, 1], shift], dim=1), self.trusted(a, b)[:, None].expand(-1, 2))

    def trusted(self, a, b):
        return torch.ones(len(a), dtype=torch.bool, device=a.device)


class Gain:
    """Louder or weaker, uniform within +- `most` decibels; what is felt is the difference."""

    num_params, components = 1, (Component("gain", "dB"),)

    def __init__(self, *, most: float = 6.0):
        self.most = most

    def sample(self, keys, extent, view):
        return ((2 * uniform(keys, view, "motion_gain", 1) - 1) * self.most).float()

    def act(self, x, action, view):
        return x * 10 ** (action[:, :, None] / 20)

    def relative(self, a, b):
        return Relative(b - a, torch.ones_like(a, dtype=torch.bool))

    trusted = Window.trusted
