"""Bytes -> samples. Nothing is allocated for a recording before its header has been checked, and a window is read
without decoding what lies around it.

Legend: N samples of the recording at 16 kHz, T samples of a window.
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import torch

from stec.errors import DataError
from stec_audio import wav

if TYPE_CHECKING:
    from torchaudio.transforms import Resample

EXTENSIONS = ("flac", "wav", "mp3", "ogg")
RATE = 16_000
"""Samples per second of everything in this package: what is read at another rate is resampled."""
SLOWEST, FASTEST, MOST_CHANNELS = 1_000, 384_000, 32
"""Sampling rates in Hz, and channels, that a header may state."""
MAX_SECONDS = 3600.0

# libsndfile reads many more formats; these are the ones that are promised (and tested).
_FORMATS = ("FLAC", "WAV", "WAVEX", "RF64", "OGG", "MP3")
# Longer stretches are read piece by piece: 6 s, at most 400 MB even at the highest rate with all channels.
_PIECE = 96_000
# A seek into the last page of a Vorbis stream lands late, so it is entered before: a page has 255 packets of at most
# 1024 samples.
_LONGEST_PAGE = 1 << 18
# What a header says of its own length if it was written into a pipe.
_UNKNOWN = 1 << 40
# 44.1 kHz -> 16 kHz is 441:160. The filter bank has the product of the two as its size.
_LARGEST_RATIO = 1 << 20


class _Stream(soundfile.SoundFile):
    """A stream that is read onwards from where it was sought last.

    soundfile seeks after every read of what is seekable: this costs time, and an MP3 does not survive it exactly (a
    frame leans on those before it, so a decoder that starts in the middle errs at first, and says so on stderr).
    """

    def seekable(self) -> bool:
        return False


@contextmanager
def _blamed_on_data(what: str) -> Iterator[None]:
    try:
        yield
    except soundfile.LibsndfileError as error:  # its own words begin with the address of a Python object
        raise DataError(f"{what}: {error.error_string.removeprefix('Error : ').removesuffix('.')}.") from error
    except (soundfile.SoundFileError, RuntimeError, ValueError, OverflowError) as error:
        raise DataError(f"{what}: {type(error).__name__}: {error}.") from error


class Sound:
    """A recording whose header has been read: FLAC, WAV, OGG (Vorbis, Opus) or MP3.

    native_rate, channels: as stored. num_samples: N at 16 kHz, as all that is read here.
    DataError if the bytes are not such a recording, or if the header promises what no recording is: more than
    max_seconds, a rate or a number of channels out of range; and if a WAV has fewer bytes than its header promises.
    """

    def __init__(self, raw: bytes, *, max_seconds: float = MAX_SECONDS):
        self._raw = raw
        header = wav.parse(raw)
        if header is not None and header.missing:
            raise DataError(f"truncated: by its header, {header.missing} bytes are missing at its end.")
        self._plain = None if header is None else header.samples
        if header is not None and self._plain is not None:
            self.native_rate, (self._frames, self.channels) = header.rate, self._plain.shape
            self._format, self._exact = "WAV", True
        else:
            stream = self._open()
            self.native_rate, self.channels, self._frames = stream.samplerate, stream.channels, stream.frames
            self._format, self._exact = stream.format, stream.subtype == "PCM_16"
        self._check(max_seconds)
        shared = math.gcd(self.native_rate, RATE)
        self._native, self._wanted = self.native_rate // shared, RATE // shared
        if self._native * self._wanted > _LARGEST_RATIO:
            raise DataError(f"{self.native_rate} Hz has no simple ratio to {RATE} Hz: resample it beforehand.")
        # As many as torchaudio's resampler gives.
        self.num_samples = -(-self._frames * self._wanted // self._native)

    def read(self, start: int, stop: int) -> np.ndarray:
        """int16 [stop - start]: the samples start .. stop of the recording, all channels averaged, at 16 kHz.

        They are the stored numbers if the source has 16 bits, one channel and this rate; else rounded, and clipped at
        full scale. The result does not depend on what else is read. DataError if the stream ends or breaks before
        `stop`, or holds NaN or infinity. MP3 is decoded from its beginning to `stop`: it has no exact way in.
        """
        if not 0 <= start <= stop <= self.num_samples:
            raise IndexError(f"samples {start} to {stop} of {self.num_samples}.")
        pieces = [self._piece(at, min(at + _PIECE, stop)) for at in range(start, stop, _PIECE)]
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.int16), *pieces])

    def check_end(self) -> None:
        """DataError unless the stream goes on to the last sample that its header promises."""
        self.read(max(0, self.num_samples - 1), self.num_samples)

    def _piece(self, start: int, stop: int) -> np.ndarray:
        if self._native == self._wanted:
            found = self._stored(start, stop)
            return found if found.dtype == np.int16 else to_int16(found)
        resample = resampler(self._native, self._wanted)
        # Whole blocks of `native` samples make whole blocks of `wanted`; the filter reaches `width` to both sides.
        margin = -(-resample.width // self._native)
        first = max(0, start // self._wanted - margin)
        last = -(-stop // self._wanted) + margin
        excerpt = self._stored(first * self._native, min(last * self._native, self._frames))
        if excerpt.dtype == np.int16:
            excerpt = excerpt.astype(np.float32) / 32768
        found = resample(torch.from_numpy(excerpt)).numpy()
        return to_int16(found[start - first * self._wanted : stop - first * self._wanted])

    def _stored(self, start: int, stop: int) -> np.ndarray:
        """int16 (16 bits and one channel) or float32 [stop - start]: mono at the native rate."""
        exact = self._exact and self.channels == 1
        if self._plain is not None:
            part = self._plain[start:stop]
            return part[:, 0].copy() if exact else part.mean(axis=1, dtype=np.float32) / np.float32(32768)
        with _blamed_on_data(f"damaged between the samples {start} and {stop} of {self._frames}"):
            self._go_to(start)
            found = self._stream.read(stop - start, dtype="int16" if exact else "float32")
        self._at = stop
        if len(found) < stop - start:
            raise DataError(
                f"truncated: the header promises {self._frames} samples, the stream ends at {start + len(found)}."
            )
        if not exact and not np.isfinite(found).all():
            raise DataError(f"NaN or infinity between the samples {start} and {stop} of {self._frames}.")
        return found if found.ndim == 1 else found.clip(-1, 1).mean(axis=1)

    def _go_to(self, start: int) -> None:
        if self._format == "MP3":
            if start < self._at:
                self._open()
            while self._at < start:
                step = min(start - self._at, _PIECE)
                if len(self._stream.read(step, dtype="float32")) < step:
                    raise DataError(f"truncated: the header promises {self._frames} samples, the stream ends before.")
                self._at += step
        elif start != self._at:
            if self._format == "OGG" and self._at:  # sought from elsewhere, a little further on, Vorbis errs
                self._open()
            if self._stream.subtype == "VORBIS" and (entry := self._frames - _LONGEST_PAGE) < start:
                self._stream.seek(max(0, entry))
                self._stream.read(start - max(0, entry), dtype="float32")
            else:
                self._stream.seek(start)

    def _open(self) -> _Stream:
        if not self._raw:
            raise DataError("a recording of 0 bytes: is the sample empty?")
        with _blamed_on_data(f"not a recording of a known format ({len(self._raw)} bytes)"):
            self._stream, self._at = _Stream(io.BytesIO(self._raw)), 0
        return self._stream

    def _check(self, max_seconds: float) -> None:
        if self._format not in _FORMATS:
            raise DataError(f"a recording in the format {self._format}: one of {', '.join(EXTENSIONS)} was expected.")
        if not SLOWEST <= self.native_rate <= FASTEST:
            raise DataError(
                f"a sampling rate of {self.native_rate} Hz: from {SLOWEST} to {FASTEST} Hz was expected. Not decoded."
            )
        if self.channels > MOST_CHANNELS:
            raise DataError(f"a recording of {self.channels} channels, more than {MOST_CHANNELS}: not decoded.")
        if self._frames > _UNKNOWN:
            raise DataError("the header does not say how long the recording is (written into a pipe?): encode it anew.")
        if self._frames > max_seconds * self.native_rate:
            seconds = self._frames / self.native_rate
            raise DataError(
                f"a recording of {seconds:,.0f} seconds, more than max_seconds={max_seconds:g}: not decoded."
            )
        if self._frames < 1:
            raise DataError("a recording of 0 samples.")


def to_int16(x: np.ndarray) -> np.ndarray:
    """float in [-1, 1] -> int16, rounded; what is beyond full scale is clipped."""
    return np.rint(np.minimum(x.clip(-1, 1) * x.dtype.type(32768), x.dtype.type(32767))).astype(np.int16)


@lru_cache(maxsize=64)
def resampler(old: int, new: int) -> "Resample":
    """torchaudio's windowed-sinc resampler from `old` to `new` samples; its filter bank is worked out once."""
    from torchaudio.transforms import Resample  # takes a second to import, and most recordings need none

    return Resample(old, new)
