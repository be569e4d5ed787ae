"""Files of pictures into samples: with their bytes as they are, or smaller, so that shards take less room and are read
faster. What that loses is lost for good: a picture that is resized is encoded anew."""

import io
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from PIL import Image

from stec.cores import cores
from stec.errors import DataError
from stec.shards.folders import File, read_bytes
from stec_vision.reading import SPARE, Picture

QUALITY = 90
"""Of the JPEGs; colour is kept at half the resolution (4:2:0)."""
MAX_PIXELS = 64_000_000
"""Pictures of more are not decoded here: the decoder of a run has a limit of its own."""
_LONGEST_JPEG = 65_500

_log = logging.getLogger("stec")
Given = TypeVar("Given")
Made = TypeVar("Made")


def as_they_are(files: Iterable[File]) -> Iterator[dict[str, Any]]:
    """A sample of each file with the bytes on disk; DataError if they cannot be had."""
    for file in files:
        yield {**file.sample, _extension(file): read_bytes(file.path)}


def shrunk(files: Iterable[File], split: str, shorter: int) -> Iterator[dict[str, Any]]:
    """A sample of each file, in the same order: as `smaller` makes it, or with the bytes on disk where that is None.

    What cannot be decoded keeps its bytes too and is named in the log: a run will find it as it would have without
    resizing. Threads work ahead. What is done is logged before the first sample and after the last.
    """
    _log.info(
        "%s: pictures whose shorter side has more than %d pixels are resized and stored as JPEG of quality %d, 4:2:0"
        " (as PNG if transparent): detail is lost",
        split,
        shorter,
        QUALITY,
    )
    count = resized = unreadable = 0
    for sample, changed, fault in _ahead(partial(_sample, shorter), files):
        if fault:
            _log.warning("packed as it is: %s", fault)
        count, resized, unreadable = count + 1, resized + changed, unreadable + bool(fault)
        yield sample
    rest = f"; {unreadable:,} that cannot be decoded are packed as they are" if unreadable else ""
    _log.info("%s: %s of %s pictures resized%s", split, f"{resized:,}", f"{count:,}", rest)


def smaller(raw: bytes, shorter: int) -> tuple[str, bytes] | None:
    """(extension, bytes) of the upright picture with its shorter side resized to `shorter`; None if it has no more
    pixels than that already.

    Antialiased, as the decoders resize; the aspect is kept to the nearest pixel; EXIF, profile and comment are dropped.
    A JPEG; but a PNG if any pixel is transparent (colours and alpha are resized apart, so that those beneath it stay
    what they are), or if it is longer than a JPEG can be. DataError if the picture is damaged or has too many pixels.
    """
    picture = Picture(raw, MAX_PIXELS)
    height, width = picture.size
    least = min(height, width)
    if least <= shorter:
        return None
    size = (round(width * shorter / least), round(height * shorter / least))
    picture.reduce(SPARE * size[1], SPARE * size[0])
    colours, alpha = (layer.resize(size, Image.Resampling.BILINEAR) for layer in picture.layers())
    file = io.BytesIO()
    opaque = alpha.getextrema()[0] == 255
    if opaque and max(size) <= _LONGEST_JPEG:
        colours.save(file, "JPEG", quality=QUALITY, subsampling="4:2:0", comment=b"")
        return "jpg", file.getvalue()
    # Merged, a picture keeps nothing but its pixels.
    Image.merge("RGB" if opaque else "RGBA", (*colours.split(), *(() if opaque else (alpha,)))).save(file, "PNG")
    return "png", file.getvalue()


def _sample(shorter: int, file: File) -> tuple[dict[str, Any], bool, str]:
    """The sample of a file, whether its picture was resized, and why it could not be decoded ("" if it could)."""
    raw = read_bytes(file.path)
    try:
        made, fault = smaller(raw, shorter), ""
    except DataError as error:
        made, fault = None, f"{file.path}: {error}"
    extension, data = made or (_extension(file), raw)
    return {**file.sample, extension: data}, made is not None, fault


def _extension(file: File) -> str:
    return "jpg" if file.extension == "jpeg" else file.extension


def _ahead(work: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
    """map(work, given), in order, by a thread to each core (PIL lets go of the interpreter where it decodes and
    resizes), with at most four results to a thread in memory."""
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(cores()) as pool:
        for one in given:
            waiting.append(pool.submit(work, one))
            if len(waiting) == 4 * cores():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
