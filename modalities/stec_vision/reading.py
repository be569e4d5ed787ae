"""Bytes -> picture. Nothing is allocated for the picture before its header has been checked."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from stec.errors import DataError

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm")
# Formats whose decoders PIL carries itself: none of these starts another program.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SPARE = 3
"""A JPEG may be decoded at 1/2, 1/4 or 1/8 as long as it keeps this many times the side that is wanted of it: what the
reduced decoding then still misses is above the frequencies that the final picture can hold."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextmanager
def _blamed_on_data(what: str) -> Iterator[None]:
    """PIL raises OSError, SyntaxError, struct.error and more on damaged bytes: all of it is the data's fault.

    What PIL only warns of (odd metadata, many pixels) would fill the console of a run: the limit that counts is ours.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    except DataError:
        raise
    except UnidentifiedImageError as error:  # its own words are about Python objects
        raise DataError(f"{what}.") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"a picture of far too many pixels: not decoded ({str(error).partition(',')[0]}).") from error
    except Exception as error:
        raise DataError(f"{what}: {type(error).__name__}: {error}.") from error


class Picture:
    """A picture whose header has been read; `size` is the (height, width) of the upright picture (EXIF applied)."""

    def __init__(self, raw: bytes, max_pixels: int):
        if not raw:
            raise DataError("a picture of 0 bytes: is the sample empty?")
        self._raw = raw
        with _blamed_on_data(f"not a picture of a known format ({len(raw)} bytes)"):
            self._image = Image.open(io.BytesIO(raw), formats=_FORMATS)
            self._orientation = _orientation(self._image)
        self._stored = width, height = self._image.size
        if width * height > max_pixels:
            raise DataError(f"a picture of {width}x{height} pixels, more than max_pixels={max_pixels}: not decoded.")
        self.size = (width, height) if self._orientation >= 5 else (height, width)

    def reduce(self, height: int, width: int) -> None:
        """Let a JPEG decoder skip detail while the picture stays at least this large; other formats ignore it."""
        wanted = (height, width) if self._orientation >= 5 else (width, height)
        with _blamed_on_data("a damaged picture"):
            self._image.draft(None, (max(1, wanted[0]), max(1, wanted[1])))

    @property
    def reduced(self) -> bool:
        """Will the decoder skip detail?"""
        return self._image.size != self._stored

    def pixels(self) -> np.ndarray:
        """Decode to upright 8-bit RGB, uint8 [H, W, 3]: as `rgb`, and sooner for the usual JPEG (where libjpeg, unlike
        PIL, says on stderr what it passes over in silence: a byte too many between two markers, and the like)."""
        if (self._image.format, self._image.mode, self._orientation) != ("JPEG", "RGB", 1) or self.reduced:
            return np.array(self.rgb())
        stored = torch.frombuffer(bytearray(self._raw), dtype=torch.uint8)
        try:
            return decode_jpeg(stored, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()
        except RuntimeError:  # damaged, or a torchvision built without JPEG: PIL has the last word
            return np.array(self.rgb())

    def rgb(self) -> Image.Image:
        """Decode to upright 8-bit RGB: 16 bits are scaled, transparency is laid on white."""
        with _blamed_on_data("a truncated or damaged picture"):
            self._image.load()
            image = _to_rgb(self._image)
        return self._upright(image)

    def layers(self) -> tuple[Image.Image, Image.Image]:
        """Decode to upright colours, as they are beneath any transparency, and alpha (255 if there is none): 8-bit RGB
        and grey. (Two pictures: PIL would resize one of four channels with its colours multiplied by alpha.)"""
        with _blamed_on_data("a truncated or damaged picture"):
            self._image.load()
            if self._image.has_transparency_data:
                layer = self._image.convert("RGBA")
                colours, alpha = layer.convert("RGB"), layer.getchannel("A")
            else:
                colours, alpha = _to_rgb(self._image), Image.new("L", self._image.size, 255)
        return self._upright(colours), self._upright(alpha)

    def _upright(self, image: Image.Image) -> Image.Image:
        return image.transpose(_TURNS[self._orientation]) if self._orientation in _TURNS else image


def to_tensor(image: Image.Image) -> Tensor:
    """RGB picture -> uint8 [3, H, W]; a grey one -> uint8 [1, H, W]."""
    values = torch.from_numpy(np.asarray(image).copy())
    return values[None] if values.dim() == 2 else values.permute(2, 0, 1).contiguous()


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8. PIL turns TIFF upright itself; PNG's own getexif would decode everything: not that one."""
    if image.format == "TIFF":
        return 1
    try:
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:  # a picture with a damaged EXIF block is still a picture
        return 1
    return value if value in _TURNS else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise DataError("a picture of floating-point numbers has no agreed range: store 8 or 16 bits.")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64).clip(0, 65535) / 257
        return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
