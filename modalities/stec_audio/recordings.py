"""What the packers of recordings share: files into members of a sample, checked from their header to their end."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from stec.errors import DataError
from stec.shards.folders import read_bytes
from stec_audio.reading import RATE, Sound
from stec_audio.wav import to_wav

_log = logging.getLogger("stec")
T = TypeVar("T")
# Only what no recording is: how long the samples of a run may be is for its decoder to say.
_LONGEST = 86_400.0


class Recording(NamedTuple):
    """extension and data: the member of the sample; num_samples at 16 kHz; stored: bytes of the file."""

    extension: str
    data: bytes
    num_samples: int
    stored: int


def record(path: Path, *, pcm: bool) -> Recording:
    """A file as it is, or (pcm) as a WAV of 16 bits, one channel and 16 kHz; DataError names a damaged one."""
    raw = read_bytes(path)
    try:
        sound = Sound(raw, max_seconds=_LONGEST)
        if pcm:
            return Recording("wav", to_wav(sound.read(0, sound.num_samples), RATE), sound.num_samples, len(raw))
        sound.check_end()
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return Recording(path.name.rpartition(".")[2].lower(), raw, sound.num_samples, len(raw))


def recorded(
    files: Iterable[tuple[T, Path]], split: str, *, pcm: bool, max_bad: float = 0.0
) -> Iterator[tuple[T, Recording]]:
    """Each file of a split beside what it was given with; at the end their number, length and sizes are logged.

    A damaged file ends it with a DataError that names it; with max_bad it is logged and left out instead, and the
    DataError comes if no file is left, or more of them are damaged than one and than this share of all.
    """
    files = list(files)
    count, num, stored, written, bad = 0, 0, 0, 0, 0
    for given, path in files:
        try:
            one = record(path, pcm=pcm)
        except DataError as error:
            if not max_bad:
                raise
            bad += 1
            if bad > max(1, max_bad * len(files)):
                raise DataError(
                    f"{split}: {bad} of {len(files)} recordings are damaged, more than packer.max_bad={max_bad} allows;"
                    f" the last one: {error}"
                ) from error
            if bad == len(files):
                raise DataError(f"{split}: no recording is left: {error}") from error
            _log.warning("left out: %s", error)
            continue
        count, num = count + 1, num + one.num_samples
        stored, written = stored + one.stored, written + len(one.data)
        yield given, one
    size = _size(written) + (f" of 16-bit PCM, {_size(stored)} as they were" if pcm else "")
    left_out = f"; {bad:,} damaged ones left out" if bad else ""
    _log.info("%s: %s recordings, %s, %s%s", split, f"{count:,}", _duration(num / RATE), size, left_out)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:,.2f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"
