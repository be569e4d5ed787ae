"""What the packers of recordings share: files into members of a sample, checked from their header to their end."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stec.errors import DataError
from stec.shards.folders import read_bytes
from stec_audio.reading import RATE, Sound
from stec_audio.wav import to_wav

_log = logging.getLogger("stec")
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
        sound = Sound(raw, rate=RATE, max_seconds=_LONGEST)
        if pcm:
            return Recording("wav", to_wav(sound.read(0, sound.num_samples), RATE), sound.num_samples, len(raw))
        sound.check_end()
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return Recording(path.name.rpartition(".")[2].lower(), raw, sound.num_samples, len(raw))


def recorded(files: Iterator[Path], split: str, *, pcm: bool) -> Iterator[Recording]:
    """Each file of a split; at the end their number, length and, if they were made larger by pcm, sizes are logged."""
    count, seconds, stored, written = 0, 0.0, 0, 0
    for path in files:
        one = record(path, pcm=pcm)
        count, seconds = count + 1, seconds + one.num_samples / RATE
        stored, written = stored + one.stored, written + len(one.data)
        yield one
    size = f"{written / 1e6:,.1f} MB" + (f" of 16-bit PCM, {stored / 1e6:,.1f} MB as they were" if pcm else "")
    _log.info("%s: %s recordings, %.2f hours, %s", split, f"{count:,}", seconds / 3600, size)
