"""Bytes -> what a batch carries: the whole picture, or the views already cut while decoding.

Legend: V views, P parameters of an action, S side of a square in pixels.
"""

import logging
import math
from collections.abc import Sequence
from functools import cache

import torch
from PIL import Image as pil
from torch import Tensor

from stec.actions import Compose
from stec.errors import UsageError
from stec_vision.actions import AffineCrop
from stec_vision.reading import EXTENSIONS, Picture, to_tensor
from stec_vision.saliency import Background

_log = logging.getLogger("stec")

_LARGEST = pil.MAX_IMAGE_PIXELS or 1
# A JPEG may be decoded at 1/2, 1/4 or 1/8 as long as a crop keeps this many times its final side: what the reduced
# decoding then still misses is above the frequencies that the final picture can hold.
_SPARE = 3


class _Decoder:
    """What both decoders share: formats, limits and the last step."""

    extensions = EXTENSIONS

    def __init__(self, max_pixels: int):
        if not 1 <= max_pixels <= _LARGEST:
            raise UsageError(f"decoder.max_pixels={max_pixels} must be between 1 and {_LARGEST}.")
        self.max_pixels = max_pixels

    def finish(self, x: Tensor) -> Tensor:
        """uint8 of any shape -> float in [0, 1], as the encoders eat it (no mean or deviation is taken off)."""
        return x.float() / 255


class Image(_Decoder):
    """The whole picture, uint8 [3, H, W]; every view is made from it later, on the device.

    size: shrink or enlarge the shorter side to this and cut the centre square, so that a ragged folder gives equal
    pictures; None leaves pictures as they are (they must then be of one size to share a batch).
    """

    performs = 0

    def __init__(self, space: Compose, *, size: int | None = None, max_pixels: int = 64_000_000):
        """All of `space` is left to the device."""
        super().__init__(max_pixels)
        if size is not None and size < 1:
            raise UsageError(f"decoder.size={size} must be at least 1 pixel, or null to leave pictures as they are.")
        if any(isinstance(part, Background) and part.p for part in space.parts.values()):
            _no_alpha()
        self.size = size

    def extent(self, raw: bytes) -> tuple[int, int]:
        """(height, width) of what `__call__` will give, from the header alone; DataError if unreadable or too large."""
        size = Picture(raw, self.max_pixels).size
        return size if self.size is None else (self.size, self.size)

    def __call__(self, raw: bytes, actions: Tensor | None = None) -> tuple[Tensor, ...]:  # noqa: ARG002
        """One source for all views; the actions [V, P] are performed later."""
        return (self.whole(raw),)

    def whole(self, raw: bytes) -> Tensor:
        """uint8 [3, H, W], the same for training and evaluation."""
        picture = Picture(raw, self.max_pixels)
        return to_tensor(picture.rgb() if self.size is None else _centre(picture, self.size, self.size))


class ImageCrop(_Decoder):
    """Every view, uint8 [3, S, S], cut while the picture is decoded (once): the crop and the flip of the action.

    For pictures too large to be carried whole. The evaluation view is the usual one: shorter side to S * 256 / 224,
    centre S. Under multi-crop the later views are smaller.

    saliency: a picture's alpha channel says what belongs to the thing (all of it, in a picture without one). Views then
    have it as a fourth channel, for the part `background`, which must come next; the evaluation view has three. Colours
    are read as they are beneath it, not laid on white.
    """

    performs = 1

    def __init__(self, space: Compose, *, saliency: bool = False, max_pixels: int = 64_000_000):
        super().__init__(max_pixels)
        name, part = next(iter(space.parts.items()))
        if not isinstance(part, AffineCrop):
            raise UsageError(
                f"decoder=image_crop performs the first part of the action space, which is {name!r}, not a crop."
            )
        if part.rotation or part.shear:
            raise UsageError("decoder=image_crop cuts upright boxes: set rotation and shear to 0 or use decoder=image.")
        readers = [place for place, each in enumerate(space.parts.values()) if isinstance(each, Background)]
        if readers != ([1] if saliency else []):
            raise UsageError(
                f"decoder.saliency={str(saliency).lower()} and actions.background go together: one gives the alpha"
                f" channel that the other, right after {name!r}, reads."
            )
        self.size, self._crop, self._columns, self.saliency = part.size, part, space.slices[name], saliency

    def extent(self, raw: bytes) -> tuple[int, int]:
        """(height, width) of the upright picture, from the header alone; DataError if it is unreadable or too large."""
        return Picture(raw, self.max_pixels).size

    def __call__(self, raw: bytes, actions: Tensor | None = None) -> tuple[Tensor, ...]:
        """V views from actions [V, P]; without actions the evaluation view."""
        if actions is None:
            return (self.whole(raw),)
        picture = Picture(raw, self.max_pixels)
        boxes = [row[:5] for row in actions[:, self._columns].tolist()]
        sides = [self._crop.side(view) for view in range(len(boxes))]
        _allow_reduction(picture, [(side, min(h, w)) for side, (_, _, h, w, _) in zip(sides, boxes, strict=True)])
        layers = picture.layers() if self.saliency else (picture.rgb(),)
        return tuple(
            torch.cat([to_tensor(self._cut(layer, picture.size, box, side)) for layer in layers])
            for side, box in zip(sides, boxes, strict=True)
        )

    def whole(self, raw: bytes) -> Tensor:
        """uint8 [3, S, S]: shorter side to round(S * 256 / 224), centre square of S."""
        picture = Picture(raw, self.max_pixels)
        return to_tensor(_centre(picture, round(self.size * 256 / 224), self.size, opaque=self.saliency))

    def _cut(self, image: pil.Image, size: tuple[int, int], box: list[float], side: int) -> pil.Image:
        top, left, height, width, flip = box
        down, right = image.height / size[0], image.width / size[1]  # below 1 if the decoder skipped detail
        edges = (left * right, top * down, (left + width) * right, (top + height) * down)
        # Cut before resizing: the filter must not see beyond the box (resize(box=...) alone would).
        x, y = math.floor(edges[0]), math.floor(edges[1])
        inner = image.crop((x, y, min(math.ceil(edges[2]), image.width), min(math.ceil(edges[3]), image.height)))
        window = (edges[0] - x, edges[1] - y, min(edges[2] - x, inner.width), min(edges[3] - y, inner.height))
        view = inner.resize((side, side), pil.Resampling.BILINEAR, box=window)
        return view.transpose(pil.Transpose.FLIP_LEFT_RIGHT) if flip > 0.5 else view


@cache
def _no_alpha() -> None:
    """Said once, however many decoders a run makes."""
    _log.warning("actions.background does nothing: decoder=image reads no alpha channel; take image_crop.")


def _allow_reduction(picture: Picture, wanted: Sequence[tuple[int, float]]) -> None:
    """Let the decoder skip detail as long as each (size, shortest side of its box in source pixels) that is wanted
    keeps _SPARE times its size."""
    scale = min(1.0, max(_SPARE * size / max(shortest, 1) for size, shortest in wanted))
    picture.reduce(math.ceil(picture.size[0] * scale), math.ceil(picture.size[1] * scale))


def _centre(picture: Picture, shorter: int, size: int, *, opaque: bool = False) -> pil.Image:
    """Shorter side to `shorter`, antialiased, then the centre square of `size`: torchvision's Resize and CenterCrop.
    opaque: without regard to an alpha channel."""
    height, width = picture.size
    _allow_reduction(picture, [(shorter, min(height, width))])
    tall, wide = (shorter, shorter * width // height) if height <= width else (shorter * height // width, shorter)
    image = picture.layers()[0] if opaque else picture.rgb()
    # The square is resized alone, seeing its surroundings through the filter: resizing all of a 1x20000 picture would
    # take gigabytes for the same square.
    left, top = round((wide - size) / 2) * image.width / wide, round((tall - size) / 2) * image.height / tall
    window = (left, top, left + size * image.width / wide, top + size * image.height / tall)
    window = (*window[:2], min(window[2], image.width), min(window[3], image.height))
    return image.resize((size, size), pil.Resampling.BILINEAR, box=window)
