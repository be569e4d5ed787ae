"""stec's way to SimCLR's two views, through the functions that a run calls."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from stec.actions import Compose, Relative
from stec.resident import Resident
from stec.samples import make_batch
from stec.testing.bench import Memory
from stec.views import Batch, Views, make_views
from stec_vision.actions import AffineCrop
from stec_vision.decode import Image, ImageCrop
from stec_vision.photometry import ColorJitter, GaussianBlur, Grayscale


def simclr_space(augment: str, size: int = 224) -> Compose:
    """SimCLR's action space for ImageNet: crop and flip, colour, grey, blur."""
    jitter = ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, augment=augment)
    crop = AffineCrop(size=size)
    return Compose({"affine_crop": crop, "color_jitter": jitter, "grayscale": Grayscale(), "blur": GaussianBlur()})


def painting_decoder(space: Compose) -> ImageCrop:
    """The decoder that performs all of the space in 8 bits."""
    decoder = ImageCrop(space, augment="fast")
    if decoder.performs < len(space.parts):
        raise RuntimeError(f"the decoder performs {decoder.performs} of {len(space.parts)} parts of the actions")
    return decoder


class Maker:
    """Files -> batches of two views uint8 with their relative actions. decoder: what it leaves out is not performed."""

    def __init__(self, raws: Sequence[bytes], space: Compose, decoder: Any):
        self.source = Memory([{"jpg": raw} for raw in raws], {})
        self.space, self.decoder, self.epoch = space, decoder, 0

    def batch(self, numbers: Sequence[int]) -> tuple[Batch, Relative]:
        self.epoch += 1  # other actions every time
        batch, _ = make_batch(self.source, self.decoder, self.space, 2, 0, self.epoch, numbers)
        return batch, self.space.relative(*batch.actions)

    def views(self, numbers: Sequence[int]) -> Views:
        """As a training loop has them, the rest of the actions performed in float."""
        batch, _ = self.batch(numbers)
        return make_views(batch, self.space, performed=self.decoder.performs, finish=self.decoder.finish)


def resident(
    pngs: Sequence[bytes], space: Compose, *, batch_size: int, device: torch.device | str = "cpu"
) -> tuple[Iterator[Batch], Callable[[Batch], Views]]:
    """(batches without end of pictures of one size that lie on `device`, what makes a batch's views there)."""
    decoder = Image(space)
    kept = Resident(Memory([{"png": raw} for raw in pngs], {}), decoder, space, batch_size=batch_size, device=device)
    batches = itertools.chain.from_iterable(map(kept.batches, itertools.count()))
    return batches, partial(make_views, space=space, performed=0, finish=decoder.finish)
