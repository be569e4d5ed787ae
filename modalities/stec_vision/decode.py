"""Bytes -> what a batch carries: the whole picture, or the views already cut while decoding.

Legend: V views, P parameters of an action, S side of a square in pixels.
"""

import math

from PIL import Image as pil
from torch import Tensor

from stec.actions import Compose
from stec.errors import UsageError
from stec_vision.actions import AffineCrop
from stec_vision.reading import EXTENSIONS, Picture, to_tensor

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

    def __init__(self, space: Compose, *, size: int | None = None, max_pixels: int = 64_000_000):  # noqa: ARG002
        """`space` is handed to every decoder; this one leaves all of it to the device."""
        super().__init__(max_pixels)
        if size is not None and size < 1:
            raise UsageError(f"decoder.size={size} must be at least 1 pixel, or null to leave pictures as they are.")
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
    centre S.
    """

    performs = 1

    def __init__(self, space: Compose, *, max_pixels: int = 64_000_000):
        super().__init__(max_pixels)
        name, part = next(iter(space.parts.items()))
        if not isinstance(part, AffineCrop):
            raise UsageError(
                f"decoder=image_crop performs the first part of the action space, which is {name!r}, not a crop."
            )
        if part.rotation or part.shear:
            raise UsageError("decoder=image_crop cuts upright boxes: set rotation and shear to 0 or use decoder=image.")
        self.size, self._columns = part.size, space.slices[name]

    def extent(self, raw: bytes) -> tuple[int, int]:
        """(height, width) of the upright picture, from the header alone; DataError if it is unreadable or too large."""
        return Picture(raw, self.max_pixels).size

    def __call__(self, raw: bytes, actions: Tensor | None = None) -> tuple[Tensor, ...]:
        """V views from actions [V, P]; without actions the evaluation view."""
        if actions is None:
            return (self.whole(raw),)
        picture = Picture(raw, self.max_pixels)
        boxes = [row[:5] for row in actions[:, self._columns].tolist()]
        _allow_reduction(picture, self.size, min(min(h, w) for _, _, h, w, _ in boxes))
        image = picture.rgb()
        return tuple(to_tensor(self._cut(image, picture.size, box)) for box in boxes)

    def whole(self, raw: bytes) -> Tensor:
        """uint8 [3, S, S]: shorter side to round(S * 256 / 224), centre square of S."""
        return to_tensor(_centre(Picture(raw, self.max_pixels), round(self.size * 256 / 224), self.size))

    def _cut(self, image: pil.Image, size: tuple[int, int], box: list[float]) -> pil.Image:
        top, left, height, width, flip = box
        down, right = image.height / size[0], image.width / size[1]  # below 1 if the decoder skipped detail
        edges = (left * right, top * down, (left + width) * right, (top + height) * down)
        # Cut before resizing: the filter must not see beyond the box (resize(box=...) alone would).
        x, y = math.floor(edges[0]), math.floor(edges[1])
        inner = image.crop((x, y, min(math.ceil(edges[2]), image.width), min(math.ceil(edges[3]), image.height)))
        window = (edges[0] - x, edges[1] - y, min(edges[2] - x, inner.width), min(edges[3] - y, inner.height))
        view = inner.resize((self.size, self.size), pil.Resampling.BILINEAR, box=window)
        return view.transpose(pil.Transpose.FLIP_LEFT_RIGHT) if flip > 0.5 else view


def _allow_reduction(picture: Picture, size: int, shortest: float) -> None:
    """Let the decoder skip detail as long as a box side of `shortest` source pixels keeps _SPARE times `size`."""
    scale = min(1.0, _SPARE * size / max(shortest, 1))
    picture.reduce(math.ceil(picture.size[0] * scale), math.ceil(picture.size[1] * scale))


def _centre(picture: Picture, shorter: int, size: int) -> pil.Image:
    """Shorter side to `shorter`, antialiased, then the centre square of `size`: torchvision's Resize and CenterCrop."""
    height, width = picture.size
    _allow_reduction(picture, shorter, min(height, width))
    tall, wide = (shorter, shorter * width // height) if height <= width else (shorter * height // width, shorter)
    image = picture.rgb()
    # The square is resized alone, seeing its surroundings through the filter: resizing all of a 1x20000 picture would
    # take gigabytes for the same square.
    left, top = round((wide - size) / 2) * image.width / wide, round((tall - size) / 2) * image.height / tall
    window = (left, top, left + size * image.width / wide, top + size * image.height / tall)
    window = (*window[:2], min(window[2], image.width), min(window[3], image.height))
    return image.resize((size, size), pil.Resampling.BILINEAR, box=window)
