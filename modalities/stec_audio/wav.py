"""WAV files of 16-bit integers: their samples lie in the bytes as they are, so nothing has to be decoded."""

import io
import struct
from typing import NamedTuple

import numpy as np
import soundfile

_PCM = 1
# Sizes that are written when the length is not known yet (into a pipe), and never mended.
_OPEN = 0x7FFFF000


class Wav(NamedTuple):
    """What the header says. samples: int16 [N, C], if they are stored so; missing: bytes cut off at the end."""

    rate: int
    samples: np.ndarray | None
    missing: int


def parse(raw: bytes) -> Wav | None:
    """The header of a RIFF/WAVE file; None for all others, and for those without the two chunks that tell."""
    if raw[:4] != b"RIFF" or raw[8:12] != b"WAVE":
        return None
    at, form = 12, None
    while at + 8 <= len(raw):
        name, size = struct.unpack_from("<4sI", raw, at)
        at += 8
        if name == b"fmt " and at + 16 <= len(raw):
            form = struct.unpack_from("<HHIIHH", raw, at)
        if name == b"data" and form is not None:
            tag, channels, rate, _, align, bits = form
            there = len(raw) - at if size >= _OPEN else min(size, len(raw) - at)
            missing = 0 if size >= _OPEN else size - there
            if (tag, bits) != (_PCM, 16) or align != 2 * channels or not channels:
                return Wav(rate, None, missing)
            count = there // align * channels
            return Wav(rate, np.frombuffer(raw, "<i2", count, at).reshape(-1, channels), missing)
        at += size + size % 2
    return None


def to_wav(x: np.ndarray, rate: int) -> bytes:
    """int16 [N] or [N, C] -> the bytes of a WAV file of 16 bits."""
    buffer = io.BytesIO()
    soundfile.write(buffer, x, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
