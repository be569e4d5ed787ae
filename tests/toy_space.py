"""A minimal two-dimensional window space: integer windows by the usual area and aspect law, mirrored half the time."""

import math

import torch
from torch import Tensor

from stec import affine
from stec.actions import Relative
from stec.frames import frame
from stec.rng import uniform

TRIES = 10


class Windows:
    """Parameters (i, j, h, w, mirrored, H, W) of a window in an H x W extent; area .08 to 1, aspect 3/4 to 4/3."""

    num_params = 7

    def __init__(self, name: str = "ego", mirror: float = 0.5, trusted_share: float = 1.0):
        self.relate, components = frame(name)
        self.components = components("xy")
        self.mirror, self.trusted_share = mirror, trusted_share

    def sample(self, keys: Tensor, extent: Tensor, view: int) -> Tensor:
        draws = uniform(keys, view, "windows", 4 * TRIES + 1)
        area, aspect, top, left = draws[:, :-1].reshape(-1, 4, TRIES).unbind(1)
        height, width = extent[:, :1].double(), extent[:, 1:].double()
        area = (0.08 + 0.92 * area) * height * width
        ratio = torch.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * aspect)
        w, h = torch.round((area * ratio).sqrt()), torch.round((area / ratio).sqrt())
        fits = (w >= 1) & (w <= width) & (h >= 1) & (h <= height)
        first = fits.int().argmax(dim=1, keepdim=True)
        i, j = torch.floor(top * (height - h + 1)), torch.floor(left * (width - w + 1))
        chosen = [t.gather(1, first).squeeze(1) for t in (i, j, h, w)]
        return torch.stack(
            [*chosen, (draws[:, -1] < self.mirror).double(), height.squeeze(1), width.squeeze(1)], dim=1
        ).float()

    def matrix(self, action: Tensor) -> Tensor:
        i, j, h, w, mirrored, height, width = action.double().unbind(1)
        half = torch.stack([(1 - 2 * mirrored) * w / width, h / height], dim=1)
        centre = torch.stack([(2 * j + w) / width - 1, (2 * i + h) / height - 1], dim=1)
        return affine.window(centre, half)

    def act(self, x: Tensor, action: Tensor, view: int) -> Tensor:
        return x + 0.1 * action[:, :1] / 32

    def relative(self, a: Tensor, b: Tensor) -> Relative:
        values = self.relate(self.matrix(a), self.matrix(b))
        return Relative(values.float(), self.trusted(a, b)[:, None].expand_as(values))

    def trusted(self, a: Tensor, b: Tensor) -> Tensor:
        """Pairs are told apart by where the first window lies: some share of them is not to be trusted."""
        return (a[:, 0] * 7 + a[:, 1] * 3 + b[:, 0]) % 10 < 10 * self.trusted_share
