"""Bytes -> what a batch carries: the whole picture, or the views already cut while decoding.

Legend: V views, P parameters of an action, S side of a square in pixels, C channels (3, or 4 with alpha).
"""

import logging
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as pil
from torch import Tensor

from stec.actions import Compose
from stec.decoder import Opened
from stec.errors import UsageError
from stec_vision.actions import AffineCrop
from stec_vision.opencv import cv2
from stec_vision.reading import EXTENSIONS, SPARE, Picture, to_tensor
from stec_vision.saliency import Background

_log = logging.getLogger("stec")

_LARGEST = pil.MAX_IMAGE_PIXELS or 1


class _Decoder:
    """What both decoders share: formats, limits and the last step."""

    extensions = EXTENSIONS

    def __init__(self, max_pixels: int):
        if not 1 <= max_pixels <= _LARGEST:
            raise UsageError(f"decoder.max_pixels={max_pixels} must be between 1 and {_LARGEST}.")
        self.max_pixels = max_pixels

    def finish(self, x: Tensor) -> Tensor:
        """uint8 of any shape -> float in [0, 1], as the encoders eat it (no mean or deviation is taken off)."""
        return x.float().div_(255)


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

    def open(self, raw: bytes) -> Opened:
        """The (height, width) of what `whole` will give, from the header; DataError if unreadable or too large."""
        picture = Picture(raw, self.max_pixels)
        return Opened(picture.size if self.size is None else (self.size, self.size), picture)

    def whole(self, opened: Opened) -> Tensor:
        """uint8 [3, H, W], the same for training and evaluation."""
        picture: Picture = opened.content
        if self.size is None:
            return torch.from_numpy(picture.pixels()).permute(2, 0, 1).contiguous()
        return to_tensor(_centre(picture, self.size, self.size))


class ImageCrop(_Decoder):
    """Every view, uint8 [C, S, S], cut while the picture is decoded (once): the crop and the flip of the action.

    For pictures too large to be carried whole. The evaluation view is the usual one: shorter side to S * 256 / 224,
    centre S. Under multi-crop the later views are smaller.

    augment: "exact" leaves colour and blur to the device, which performs them in float; "fast" performs them here, in
    8 bits, by the parts' `paint`: as far as the parts that follow the crop have it.

    saliency: a picture's alpha channel says what belongs to the thing (all of it, in a picture without one). Views then
    have it as a fourth channel, for the part `background`, which must come next; the evaluation view has three. Colours
    are read as they are beneath it, not laid on white.
    """

    def __init__(self, space: Compose, *, augment: str = "exact", saliency: bool = False, max_pixels: int = 64_000_000):
        super().__init__(max_pixels)
        name, part = next(iter(space.parts.items()))
        if not isinstance(part, AffineCrop):
            raise UsageError(
                f"decoder=image_crop performs the first part of the action space, which is {name!r}, not a crop."
            )
        if part.rotation or part.shear:
            raise UsageError("decoder=image_crop cuts upright boxes: set rotation and shear to 0 or use decoder=image.")
        if augment not in ("exact", "fast"):
            raise UsageError(f"decoder.augment={augment!r} is unknown: choose exact or fast.")
        readers = [place for place, each in enumerate(space.parts.values()) if isinstance(each, Background)]
        if readers != ([1] if saliency else []):
            raise UsageError(
                f"decoder.saliency={str(saliency).lower()} and actions.background go together: one gives the alpha"
                f" channel that the other, right after {name!r}, reads."
            )
        self.size, self._crop, self._columns, self.saliency = part.size, part, space.slices[name], saliency
        self._painted = []
        for follower, each in list(space.parts.items())[1:] if augment == "fast" else ():
            if not hasattr(each, "paint"):
                break
            self._painted.append((each.paint, space.slices[follower]))
        self.performs = 1 + len(self._painted)

    def open(self, raw: bytes) -> Opened:
        """The (height, width) of the upright picture, from the header; DataError if it is unreadable or too large."""
        picture = Picture(raw, self.max_pixels)
        return Opened(picture.size, picture)

    def __call__(self, opened: Opened, actions: Tensor) -> tuple[Tensor, ...]:
        """V views from actions [V, P]."""
        picture: Picture = opened.content
        boxes = [tuple(row) for row in actions[:, self._columns][:, :5].tolist()]
        sides = [self._crop.side(view) for view in range(len(boxes))]
        _allow_reduction(picture, [(side, min(h, w)) for side, (_, _, h, w, _) in zip(sides, boxes, strict=True)])
        if picture.reduced:
            layers = picture.layers() if self.saliency else (picture.rgb(),)
            each = zip(boxes, sides, strict=True)
            views = [np.dstack([_cut_reduced(layer, picture.size, *which) for layer in layers]) for which in each]
        else:
            pixels = np.dstack([np.asarray(layer) for layer in picture.layers()]) if self.saliency else picture.pixels()
            views = [_cut(pixels, box, side) for box, side in zip(boxes, sides, strict=True)]
        for paint, columns in self._painted:
            views = [paint(view, action) for view, action in zip(views, actions[:, columns].numpy(), strict=True)]
        # Rows of pixels, as they are, under the names of channels first: the memory format channels_last.
        return tuple(torch.from_numpy(view).permute(2, 0, 1) for view in views)

    def whole(self, opened: Opened) -> Tensor:
        """uint8 [3, S, S]: shorter side to round(S * 256 / 224), centre square of S."""
        return to_tensor(_centre(opened.content, round(self.size * 256 / 224), self.size, opaque=self.saliency))


Box = tuple[float, ...]
"""top, left, height, width in pixels of the upright picture, and 1 if the view is mirrored."""


def _cut(pixels: np.ndarray, box: Box, side: int) -> np.ndarray:
    """uint8 [S, S, C]: the box, in whole pixels, of uint8 [H, W, C], by the antialiased bilinear filter, which sees
    nothing beyond it."""
    top, left, height, width = (int(edge) for edge in box[:4])
    inner = pixels[top : top + height, left : left + width]
    if max(height, width) <= side:  # nothing shrinks: OpenCV's, which never antialiases, is the same and sooner there
        return _mirrored(cv2.resize(inner, (side, side)), box)
    # Copied first: only of pixels that lie together, in the format channels_last, does torch resize with all that the
    # processor has.
    packed = torch.from_numpy(np.ascontiguousarray(inner))[None].permute(0, 3, 1, 2)
    view = F.interpolate(packed, (side, side), mode="bilinear", antialias=True)
    return _mirrored(view.permute(0, 2, 3, 1)[0].numpy(), box)


def _cut_reduced(image: pil.Image, size: tuple[int, int], box: Box, side: int) -> np.ndarray:
    """uint8 [S, S, ...]: the box, told in pixels of the picture of `size`, of a picture decoded with less detail."""
    top, left, height, width = box[:4]
    down, right = image.height / size[0], image.width / size[1]
    edges = (left * right, top * down, (left + width) * right, (top + height) * down)
    # Cut before resizing: the filter must not see beyond the box (resize(box=...) alone would).
    x, y = math.floor(edges[0]), math.floor(edges[1])
    inner = image.crop((x, y, min(math.ceil(edges[2]), image.width), min(math.ceil(edges[3]), image.height)))
    window = (edges[0] - x, edges[1] - y, min(edges[2] - x, inner.width), min(edges[3] - y, inner.height))
    return _mirrored(np.asarray(inner.resize((side, side), pil.Resampling.BILINEAR, box=window)), box)


def _mirrored(view: np.ndarray, box: Box) -> np.ndarray:
    """The view, mirrored if its box says so, in memory of its own."""
    return cv2.flip(view, 1) if box[4] > 0.5 else np.require(view, requirements=["C", "W"])


@cache
def _no_alpha() -> None:
    """Said once, however many decoders a run makes."""
    _log.warning("actions.background does nothing: decoder=image reads no alpha channel; take image_crop.")


def _allow_reduction(picture: Picture, wanted: Sequence[tuple[int, float]]) -> None:
    """Let the decoder skip detail as long as each (size, shortest side of its box in source pixels) that is wanted
    keeps SPARE times its size."""
    scale = min(1.0, max(SPARE * size / max(shortest, 1) for size, shortest in wanted))
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
