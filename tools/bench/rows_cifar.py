"""R3: two views of CIFAR's pictures, which lie in memory, on one core."""

import io
from collections.abc import Callable

import numpy as np
import ours
import torch
import torchvision.transforms as v1
from clock import Work
from contest import contest, over
from peers import Twice
from PIL import Image
from row import Options, Outcome, Row
from skimage import data
from torch import Tensor
from torchvision.transforms import v2

from stec.actions import Compose
from stec_vision.actions import AffineCrop
from stec_vision.photometry import ColorJitter, Grayscale

_SIDE = 32
_JITTER = (0.4, 0.4, 0.4, 0.1)
_BASE = "torchvision v1 (PIL), one by one"
_FAST = "stec, augment=fast"


def pictures(number: int) -> Tensor:
    """uint8 [B, 3, 32, 32]: patches of a photograph."""
    photograph = data.astronaut()
    corners = np.random.default_rng(0).integers(0, len(photograph) - _SIDE, (number, 2))
    patches = [photograph[top : top + _SIDE, left : left + _SIDE] for top, left in corners]
    return torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).contiguous()


def views(options: Options) -> Outcome:
    x = pictures(8 if options.small else 256)

    def one_by_one(views: Callable[[Image.Image], Tensor]) -> Work:
        each = [Image.fromarray(one) for one in x.permute(0, 2, 3, 1).numpy()]
        return lambda: len(torch.stack([views(one) for one in each], dim=1)[0])

    def tensors() -> Work:
        colour = [v2.RandomApply([v2.ColorJitter(*_JITTER)], p=0.8), v2.RandomGrayscale(0.2)]
        crop = [v2.RandomResizedCrop(_SIDE, antialias=True), v2.RandomHorizontalFlip()]
        views = Twice(v2.Compose([*crop, *colour, v2.ToDtype(torch.float32, scale=True)]))
        return lambda: len(torch.stack([views(one) for one in x], dim=1)[0])

    makers = {
        _BASE: lambda: one_by_one(Twice(_transform_v1())),
        _FAST: lambda: _resident(x, "fast"),
        "stec, augment=exact": lambda: _resident(x, "exact"),
        "torchvision v2, uint8 tensors, one by one": tensors,
        "lightly, SimCLRTransform(32)": lambda: one_by_one(_lightly()),
        f"kornia, batches of {len(x)}": lambda: _kornia(x),
    }
    ways = contest(makers, options, "images/s")
    return over(ways[_FAST], ways[_BASE], ways, "cutting the window out of each picture")


def _transform_v1() -> v1.Compose:
    colour = [v1.RandomApply([v1.ColorJitter(*_JITTER)], p=0.8), v1.RandomGrayscale(0.2)]
    return v1.Compose([v1.RandomResizedCrop(_SIDE), v1.RandomHorizontalFlip(), *colour, v1.ToTensor()])


def _lightly() -> Callable[[Image.Image], Tensor]:
    from lightly.transforms import SimCLRTransform

    views = SimCLRTransform(input_size=_SIDE, cj_strength=0.5, gaussian_blur=0.0)
    return lambda one: torch.stack(views(one))


def _kornia(x: Tensor) -> Work:
    import kornia.augmentation as K

    both = K.AugmentationSequential(
        K.RandomResizedCrop((_SIDE, _SIDE), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(*_JITTER, p=0.8),
        K.RandomGrayscale(p=0.2),
    )
    return lambda: len(torch.stack([both(x.float() / 255), both(x.float() / 255)])[0])


def space(augment: str) -> Compose:
    """SimCLR's action space for CIFAR: crop and flip, colour, grey."""
    brightness, contrast, saturation, hue = _JITTER
    jitter = ColorJitter(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, augment=augment)
    return Compose({"affine_crop": AffineCrop(size=_SIDE), "color_jitter": jitter, "grayscale": Grayscale()})


def _resident(x: Tensor, augment: str) -> Work:
    """stec's, of pictures that are resident: batch and actions drawn, performed, told relative to each other."""
    batches, views = ours.resident(pngs(x), space(augment), batch_size=len(x))
    return lambda: len(views(next(batches)).keys)


def pngs(x: Tensor) -> list[bytes]:
    """Files of uint8 [B, 3, S, S]."""
    files = [io.BytesIO() for _ in x]
    for one, file in zip(x, files, strict=True):
        Image.fromarray(one.permute(1, 2, 0).numpy()).save(file, "PNG")
    return [file.getvalue() for file in files]


_WHAT = "CIFAR in memory -> 2 views (augment=fast) and their action, batched, over torchvision v1, one core"
ROWS = [Row("R3", _WHAT, 10, 15, views)]
