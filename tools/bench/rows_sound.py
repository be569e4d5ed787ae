"""R4: windows cut out of recordings in memory, as a batch pays for them, beside a full decode of each by soundfile.

What a batch pays: the header is read, windows are drawn, cut and stacked, the labels made.
"""

import io
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torchaudio
from clock import Work
from contest import contest, over
from row import Options, Outcome, Row
from torch import Tensor

from stec.actions import Compose
from stec.samples import make_batch
from stec.testing.bench import Memory
from stec_audio.actions import TemporalWindow
from stec_audio.decode import Window
from stec_audio.reading import RATE
from stec_audio.wav import to_wav

SIZE = 20_480
SECONDS = 14
_OURS, _SEEKING = "stec, as a batch pays", "soundfile, seek and read"
_COUNT = 32
"""Recordings of a batch."""


class Recordings(NamedTuple):
    """`kind`: extension of all of `raws`; windows of `size` samples are cut out of them."""

    raws: Sequence[bytes]
    kind: str
    size: int

    @property
    def space(self) -> Compose:
        return Compose({"temporal_window": TemporalWindow(size=self.size)})

    def batch(self, epoch: int = 0) -> tuple[Tensor, Tensor]:
        """Windows int16 [B, 1, L] and actions [B, P] of an epoch, the way a loading process makes them."""
        source = Memory([{self.kind: raw} for raw in self.raws], {})
        made, _ = make_batch(source, Window(self.space), self.space, 1, 0, epoch, range(len(self.raws)))
        return made.x[0], made.actions[0]


def flac(x: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, x, RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def synthesised(number: int, seconds: float = SECONDS) -> list[bytes]:
    """FLAC files: harmonics that swell and fade over a little noise, about as compressible as speech."""
    rng, made = np.random.default_rng(0), []
    time_axis = np.arange(int(seconds * RATE)) / RATE
    for _ in range(number):
        pitch = rng.uniform(80, 250) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.2, 1) * time_axis))
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        voiced = sum(np.sin(k * phase) / k for k in range(1, 20))
        swell = np.abs(np.sin(2 * np.pi * rng.uniform(1, 3) * time_axis)) ** 2
        x = 0.05 * voiced * swell + 0.003 * rng.standard_normal(len(time_axis))
        made.append(flac(np.rint(32767 * x.clip(-1, 1)).astype(np.int16)))
    return made


def found(folder: Path) -> list[bytes]:
    """The first FLAC files of 12 to 17 seconds below a folder."""
    fitting = (p for p in sorted(folder.rglob("*.flac")) if 12 <= soundfile.info(p).duration <= 17)
    kept = [path.read_bytes() for path in itertools.islice(fitting, _COUNT)]
    if not kept:
        raise ValueError(f"{folder}: no FLAC of 12 to 17 seconds below this folder.")
    return kept


def flacs(options: Options) -> Recordings:
    """A batch of them: few are synthesised and come several times, each time with another window."""
    if options.small:
        return Recordings(synthesised(2, 1.0) * 2, "flac", 2048)
    raws = synthesised(4) if options.recordings is None else found(options.recordings)
    return Recordings([raws[i % len(raws)] for i in range(_COUNT)], "flac", SIZE)


def pcm(recordings: Recordings) -> Recordings:
    """The same ones, as a shard of WAV files holds them."""
    wavs = [to_wav(soundfile.read(io.BytesIO(raw), dtype="int16")[0], RATE) for raw in recordings.raws]
    return recordings._replace(raws=wavs, kind="wav")


def by_soundfile(recordings: Recordings) -> Work:
    return _each(recordings, lambda raw, action: soundfile.read(io.BytesIO(raw), dtype="int16")[0][int(action[0]) :])


def by_seeking(recordings: Recordings) -> Work:
    """soundfile, asked for nothing but the window: what there is to reach with its decoder."""

    def cut(raw: bytes, action: Tensor) -> object:
        with soundfile.SoundFile(io.BytesIO(raw)) as file:
            file.seek(int(action[0]))
            return file.read(recordings.size, dtype="int16")

    return _each(recordings, cut)


def by_ours(recordings: Recordings) -> Work:
    epochs = itertools.count()  # other windows in each, as in training

    def batch() -> int:
        return len(recordings.batch(next(epochs))[0])

    return batch


def one_by_one(recordings: Recordings) -> Work:
    """Our decoder alone: opened once, one window cut."""
    decoder = Window(recordings.space)
    return _each(recordings, lambda raw, action: decoder(decoder.open(raw), action[None]))


def by_torchaudio(recordings: Recordings) -> Work:
    return _each(
        recordings,
        lambda raw, action: torchaudio.load(io.BytesIO(raw), frame_offset=int(action[0]), num_frames=recordings.size),
    )


def by_torchcodec(recordings: Recordings) -> Work:
    from torchcodec.decoders import AudioDecoder  # needs FFmpeg

    def cut(raw: bytes, action: Tensor) -> object:
        start = int(action[0])
        return AudioDecoder(raw).get_samples_played_in_range(start / RATE, (start + recordings.size) / RATE)

    return _each(recordings, cut)


def _each(recordings: Recordings, cut: Callable[[bytes, Tensor], Any]) -> Work:
    """cut(raw, action [P]) of each recording; the actions are drawn before: those of a few epochs, in turn."""
    epochs = itertools.cycle([recordings.batch(epoch)[1] for epoch in range(4)])

    def work() -> int:
        for raw, action in zip(recordings.raws, next(epochs), strict=True):
            cut(raw, action)
        return len(recordings.raws)

    return work


def ways(recordings: Recordings) -> dict[str, Callable[[], Work]]:
    """{way: makes what cuts one batch of windows}."""
    known: dict[str, Callable[[Recordings], Work]] = {
        _OURS: by_ours,
        "stec, open and cut": one_by_one,
        _SEEKING: by_seeking,
        "torchaudio, frame_offset": by_torchaudio,
        "torchcodec, range": by_torchcodec,
    }
    return {name: partial(make, recordings) for name, make in known.items()}


def _compared(recordings: Recordings, whole: Recordings, options: Options) -> Outcome:
    base = f"soundfile, all of the {whole.kind}"
    shown = contest({base: partial(by_soundfile, whole), **ways(recordings)}, options, "windows/s")
    share = shown[_OURS].median / shown[_SEEKING].median
    return over(
        shown[_OURS],
        shown[base],
        shown,
        f"soundfile's seeking and reading of {recordings.kind}, {min(share, 1):.0%} of the time",
    )


def of_flac(options: Options) -> Outcome:
    recordings = flacs(options)
    return _compared(recordings, recordings, options)


def of_pcm(options: Options) -> Outcome:
    recordings = flacs(options)
    limit = "Python: there is nothing to decode"
    return _compared(pcm(recordings), recordings, options)._replace(limit=limit)


ROWS = [
    Row("R4", "window of 1.28 s from a FLAC of 14 s in memory, in a batch / full decode", 5.5, 7.5, of_flac),
    Row("R4b", "the same from PCM (WAV shards) / full decode of the FLAC", 30, None, of_pcm, format="{:.0f}"),
]
