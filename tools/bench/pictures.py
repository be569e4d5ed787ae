"""JPEG files as ImageNet has them, made of the photographs that come inside scikit-image: nothing is downloaded.

ImageNet's files (Russakovsky et al. 2015) are mostly 500 x 375, of about 100 KB. There are fewer photographs here than
pictures: each picture is another crop of one, at another scale, mirrored or not, with a little grain (an enlarged crop
is smoother than a photograph, and would decode faster). All of it is a function of the number of the picture.
"""

import io
import itertools
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

LONG, SHORT = 500, 375
_GRAIN = 9.5
"""Standard deviation of the grain, in levels of 255: so much that files of this quality have about 100 KB."""


@cache
def _photographs() -> list[Image.Image]:
    names = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "retina", "rocket")
    return [Image.fromarray(getattr(data, name)()) for name in names]


@cache
def synthesised(number: int) -> bytes:
    """JPEG number 0, 1, ...: one in four is upright (375 x 500); quality 89 to 96, three in five with 4:2:0."""
    rng = np.random.default_rng(number)
    photographs = _photographs()
    photograph = photographs[number % len(photographs)]
    size = (SHORT, LONG) if number % 4 == 3 else (LONG, SHORT)
    share = rng.uniform(0.6, 1) * min(photograph.width / size[0], photograph.height / size[1])
    width, height = share * size[0], share * size[1]
    left, top = rng.uniform(0, photograph.width - width), rng.uniform(0, photograph.height - height)
    crop = photograph.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    pixels = np.asarray(crop)[:, :: rng.choice([-1, 1])] + rng.normal(0, _GRAIN, (size[1], size[0], 1))
    subsampling = "4:2:0" if number % 5 < 3 else "4:4:4"
    return _jpeg(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), int(rng.integers(89, 97)), subsampling)


def jpegs(number: int, folder: Path | None = None) -> list[bytes]:
    """So many files: synthesised, or the first JPEG files below a folder (fewer, if it has fewer)."""
    if folder is None:
        return [synthesised(each) for each in range(number)]
    paths = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg"))
    found = [path.read_bytes() for path in itertools.islice(paths, number)]
    if not found:
        raise ValueError(f"{folder}: no .jpg or .jpeg below this folder.")
    return found


def _jpeg(image: Image.Image, quality: int, subsampling: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()
