"""How others make SimCLR's two views (Chen et al. 2020) of JPEG files: each as its own documentation does it.

All draw their parameters from the same distributions: window of .08 to 1 of the area, mirrored or not, colour jitter
.8, .8, .8, .2 with p .8, grey with p .2, blur of sigma .1 to 2 with p .5. What they then do to the pixels is not the
same: filters, the order of the colours and where they are clamped differ (DALI's colour is one matrix too).
Each maker returns a way: files -> a batch of both views.
"""

import io
from collections.abc import Callable, Sequence
from random import random, uniform
from typing import Any

import torch
import torchvision.transforms as v1
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

Batched = Callable[[Sequence[bytes]], Any]

SIZE = 224
_JITTER = (0.8, 0.8, 0.8, 0.2)


def picture(raw: bytes) -> Image.Image:
    return Image.open(io.BytesIO(raw)).convert("RGB")


def stored(raw: bytes) -> Tensor:
    return decode_jpeg(torch.frombuffer(bytearray(raw), dtype=torch.uint8), mode=ImageReadMode.RGB)


class PilBlur:
    """MoCo's blur: PIL's, which takes three box blurs for a Gaussian."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(uniform(0.1, 2.0))) if random() < 0.5 else image


class Twice:
    """A picture -> both its views, stacked."""

    def __init__(self, transform: Callable[[Any], Tensor]):
        self.transform = transform

    def __call__(self, image: Any) -> Tensor:
        return torch.stack([self.transform(image), self.transform(image)])


def transform_v1(size: int = SIZE) -> v1.Compose:
    """torchvision's first transforms, on PIL pictures, to uint8."""
    colour = [v1.RandomApply([v1.ColorJitter(*_JITTER)], p=0.8), v1.RandomGrayscale(0.2), PilBlur()]
    return v1.Compose([v1.RandomResizedCrop(size), v1.RandomHorizontalFlip(), *colour, v1.PILToTensor()])


def torchvision_v1() -> Batched:
    views = Twice(transform_v1())
    return lambda raws: torch.stack([views(picture(raw)) for raw in raws], dim=1)


def torchvision_v2() -> Batched:
    """torchvision's second transforms on uint8 tensors; the kernel of the blur is SimCLR's, a tenth of the side."""
    colour = [v2.RandomApply([v2.ColorJitter(*_JITTER)], p=0.8), v2.RandomGrayscale(0.2)]
    blur = v2.RandomApply([v2.GaussianBlur(SIZE // 10 + 1, (0.1, 2.0))], p=0.5)
    crop = v2.RandomResizedCrop(SIZE, antialias=True)
    views = Twice(v2.Compose([crop, v2.RandomHorizontalFlip(), *colour, blur]))
    return lambda raws: torch.stack([views(stored(raw)) for raw in raws], dim=1)


def lightly() -> Batched:
    """Its SimCLRTransform, to float (it has no uint8)."""
    from lightly.transforms import SimCLRTransform

    views = SimCLRTransform(input_size=SIZE)
    return lambda raws: torch.stack([torch.stack(views(picture(raw))) for raw in raws], dim=1)


def kornia() -> Batched:
    """Its augmentations on float batches. A batch has pictures of one size: the files must be (here: are turned)."""
    import kornia.augmentation as K

    space = K.AugmentationSequential(
        K.RandomResizedCrop((SIZE, SIZE), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(*_JITTER, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((SIZE // 10 + 1,) * 2, (0.1, 2.0), p=0.5),
    )

    def batch(raws: Sequence[bytes]) -> Tensor:
        each = [stored(raw) for raw in raws]
        first = each[0].shape
        x = torch.stack([one if one.shape == first else one.mT for one in each]).float() / 255
        return torch.stack([space(x), space(x)])

    return batch


def dali(size: int) -> Batched:
    """NVIDIA DALI on the CPU with one thread: decoded once, cropped twice, colour as one matrix, blur; to uint8."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(enable_conditionals=True)
    def pipeline() -> tuple[Any, ...]:
        raw = fn.external_source(name="raw", no_copy=True)
        whole = fn.decoders.image(raw, device="cpu", output_type=types.RGB)
        return _dali_view(whole), _dali_view(whole)

    def _dali_view(whole: Any) -> Any:
        view = fn.random_resized_crop(whole, size=SIZE, random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3])
        view = fn.flip(view, horizontal=fn.random.coin_flip(probability=0.5))
        if fn.random.coin_flip(probability=0.8, dtype=types.BOOL):
            factors = {name: fn.random.uniform(range=[0.2, 1.8]) for name in ("brightness", "contrast", "saturation")}
            view = fn.color_twist(view, hue=fn.random.uniform(range=[-72.0, 72.0]), **factors)
        if fn.random.coin_flip(probability=0.2, dtype=types.BOOL):
            view = fn.saturation(view, saturation=0.0)
        if fn.random.coin_flip(probability=0.5, dtype=types.BOOL):
            view = fn.gaussian_blur(view, sigma=fn.random.uniform(range=[0.1, 2.0]))
        return view

    # Without running ahead: what is timed is the work of this batch.
    made = pipeline(batch_size=size, num_threads=1, device_id=None, exec_async=False, exec_pipelined=False)
    made.build()

    def batch(raws: Sequence[bytes]) -> tuple[Tensor, ...]:
        import numpy as np

        made.feed_input("raw", [np.frombuffer(raw, dtype=np.uint8) for raw in raws])
        return tuple(torch.from_numpy(views.as_array()) for views in made.run())

    return batch
