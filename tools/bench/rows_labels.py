"""R7: is the stored action what was done to the pixels? The label is exact only if it is."""

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from row import Options, Outcome, Row, Way
from skimage import data
from torch import Tensor

from stec.actions import Compose
from stec.rng import make_keys
from stec_vision.actions import AffineCrop
from stec_vision.decode import ImageCrop

_HEIGHT, _WIDTH, _SIDE, _BORDER = 60, 80, 64, 2
"""A window is at least a quarter of the view's side, so that its edge is felt within two pixels of the view's border
and nowhere else."""


def error(seed: int, number: int) -> tuple[float, float]:
    """The largest difference between views and what their stored actions A_v predict: at place u the source at A_v u.

    First of sources whose values are their own coordinates x, y and x y, which resizing bilinearly leaves exact:
    nothing need be sampled again. Second of photographs, sampled again by torch's affine_grid and grid_sample.
    Enlarging windows alone: what shrinks is averaged, by a filter that the second does not have.
    """
    space = AffineCrop(size=_SIDE, scale=(0.25, 0.8))
    extent = torch.tensor([[_HEIGHT, _WIDTH]]).expand(number, -1)
    action = space.sample(make_keys(seed, 0, torch.arange(number)), extent, 0)
    action = action[(action[:, 2:4] <= _SIDE).all(dim=1)]
    theta = space.matrix(action)[:, :2]
    grid = F.affine_grid(theta, [len(action), 1, _SIDE, _SIDE], align_corners=False)
    x, y = grid.unbind(3)
    predicted = torch.stack([x, y, x * y], dim=1)
    found = space.act(_coordinates().float().expand(len(action), -1, -1, -1), action, 0)
    photographs = _photographs(len(action), seed)
    again = F.grid_sample(photographs, grid, padding_mode="border", align_corners=False)
    return _apart(found, predicted), _apart(space.act(photographs.float(), action, 0), again)


def _coordinates() -> Tensor:
    """float64 [1, 3, H, W]: at each pixel x, y and x y, in [-1, 1]."""
    sides = [(2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1 for side in (_HEIGHT, _WIDTH)]
    y, x = torch.meshgrid(*sides, indexing="ij")
    return torch.stack([x, y, x * y])[None]


def _photographs(number: int, seed: int) -> Tensor:
    """float64 [B, 3, H, W] in [0, 1]: pieces of a photograph."""
    photograph = data.astronaut()
    corners = np.random.default_rng(seed).integers(0, len(photograph) - _WIDTH, (number, 2))
    pieces = [photograph[top : top + _HEIGHT, left : left + _WIDTH] for top, left in corners]
    return torch.from_numpy(np.stack(pieces)).permute(0, 3, 1, 2).double() / 255


def _apart(view: Tensor, other: Tensor) -> float:
    inner = slice(_BORDER, -_BORDER)
    return float((view.double() - other)[..., inner, inner].abs().max())


def levels(seed: int, number: int, times: int) -> float:
    """The same of the views that `image_crop` decodes in 8 bits, in levels of 255: of a PNG, `times` the size of those
    above, whose red rises with the column and whose green with the row. Resizing leaves such a ramp what it is; a level
    is 1/3 and 1/4 of a pixel of the one that is enlarged (times=1), and a whole one of one that is shrunk (3)."""
    height, width = times * _HEIGHT, times * _WIDTH
    steps = torch.tensor([255 // (width - 1), 255 // (height - 1)])
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ramp = torch.stack([steps[0] * x, steps[1] * y, 0 * x], dim=2).to(torch.uint8)
    file = io.BytesIO()
    Image.fromarray(ramp.numpy()).save(file, "PNG")
    crop = AffineCrop(size=_SIDE, scale=(0.25, 0.8))
    space = Compose({"affine_crop": crop})
    decoder = ImageCrop(space)
    keys = make_keys(seed, 0, torch.arange(number))
    action = space.sample(keys, torch.tensor([[height, width]]).expand(number, -1), 0)
    action = action[(action[:, 2:4] <= _SIDE).all(dim=1) == (times == 1)]
    views = torch.stack(decoder(decoder.open(file.getvalue()), action))
    grid = F.affine_grid(crop.matrix(action)[:, :2], [len(action), 1, _SIDE, _SIDE], align_corners=False)
    pixel = (grid + 1) / 2 * torch.tensor([width, height]) - 0.5
    return _apart(views[:, :2], (pixel * steps).permute(0, 3, 1, 2))


def labels(options: Options) -> Outcome:
    number = 8 if options.small else 256
    errors = [error(seed, number) for seed in range(options.rounds)]
    names = ("sources that are their own coordinates", "photographs, sampled again in float64")
    each = [Way(name, "of 1", values, base=name) for name, values in zip(names, zip(*errors, strict=True), strict=True)]
    for name, times in (("enlarged", 1), ("shrunk", 3)):
        values = [levels(seed, number, times) for seed in range(options.rounds)]
        each.append(Way(f"image_crop, 8 bits, a ramp {name}", "levels of 255", values))
    return Outcome([max(pair) for pair in errors], each, "float32")


_WHAT = (
    "largest error of a view against its stored action (float views, enlarging windows, without a border of"
    f" {_BORDER} pixels)"
)
ROWS = [Row("R7", _WHAT, 1e-5, None, labels, most=True, format="{:.1e}")]
