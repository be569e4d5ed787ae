"""Windows per second that a decoder cuts out of recordings in memory, beside what decoding all of each would give.

    python tools/window_speed.py [FOLDER] [--size 20480] [--rounds 7]

FOLDER: FLAC files, of which those of 12 to 17 seconds are taken; without it, 14 seconds are synthesised. The ways are
taken in turn, round after round, in this process (one thread, its own CPU time, at least 50 ms for each); medians over
the rounds are printed, each with its ratio to a full decode by soundfile of the same kind of file and of FLAC.
"""

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

from stec.actions import Compose
from stec.rng import make_keys
from stec_audio.actions import TemporalWindow
from stec_audio.decode import Window
from stec_audio.reading import RATE
from stec_audio.wav import to_wav

_COUNT = 20
"""Recordings, and windows between two looks at the clock."""
_LEAST = 0.05
"""Seconds of CPU time that a measurement takes at least."""


def synthesised() -> list[bytes]:
    """FLAC files of 14 s: harmonics that swell and fade over a little noise, about as compressible as speech."""
    rng, made = np.random.default_rng(0), []
    time_axis = np.arange(14 * RATE) / RATE
    for _ in range(4):
        pitch = rng.uniform(80, 250) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.2, 1) * time_axis))
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        voiced = sum(np.sin(k * phase) / k for k in range(1, 20))
        swell = np.abs(np.sin(2 * np.pi * rng.uniform(1, 3) * time_axis)) ** 2
        x = 0.05 * voiced * swell + 0.003 * rng.standard_normal(len(time_axis))
        made.append(flac(np.rint(32767 * x.clip(-1, 1)).astype(np.int16)))
    return made


def flac(x: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, x, RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def found(folder: Path) -> list[bytes]:
    """The first FLAC files of about 14 s below a folder."""
    kept: list[bytes] = []
    for path in sorted(folder.rglob("*.flac")):
        if 12 <= soundfile.info(path).duration <= 17:
            kept.append(path.read_bytes())
        if len(kept) == _COUNT:
            break
    return kept


def ways(decoder: Window, space: Compose, size: int, flacs: list[bytes]) -> dict[str, Callable[[int], object]]:
    """{name: what cuts one window out of recording number i}."""
    wavs = [to_wav(soundfile.read(io.BytesIO(raw), dtype="int16")[0], RATE) for raw in flacs]
    keys = make_keys(0, 0, torch.arange(_COUNT))
    extents = torch.tensor([decoder.extent(flacs[i % len(flacs)]) for i in range(_COUNT)])
    actions = space.sample(keys, extents, 0)

    def full(raws: list[bytes]) -> Callable[[int], object]:
        def cut(i: int) -> object:
            start = int(actions[i, 0])
            return soundfile.read(io.BytesIO(raws[i % len(raws)]), dtype="int16")[0][start : start + size]

        return cut

    return {
        "flac, soundfile full decode": full(flacs),
        "flac, window": lambda i: decoder(flacs[i % len(flacs)], actions[i : i + 1]),
        "flac, extent and window": lambda i: (
            decoder.extent(flacs[i % len(flacs)]),
            decoder(flacs[i % len(flacs)], actions[i : i + 1]),
        ),
        "pcm, soundfile full decode": full(wavs),
        "pcm, window": lambda i: decoder(wavs[i % len(wavs)], actions[i : i + 1]),
        "pcm, extent and window": lambda i: (
            decoder.extent(wavs[i % len(wavs)]),
            decoder(wavs[i % len(wavs)], actions[i : i + 1]),
        ),
    }


def measured(cut: Callable[[int], object]) -> float:
    """Seconds of CPU time for one window: over all recordings again and again, until the clock can tell."""
    begun, num, spent = time.process_time(), 0, 0.0
    while spent < _LEAST:
        for i in range(_COUNT):
            cut(i)
        num, spent = num + _COUNT, time.process_time() - begun
    return spent / num


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--size", type=int, default=20_480, help="samples of a window; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    arguments = parser.parse_args()
    flacs = synthesised() if arguments.folder is None else found(arguments.folder)
    if not flacs:
        print(f"{arguments.folder}: no FLAC of 12 to 17 seconds below this folder.", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    space = Compose({"temporal_window": TemporalWindow(size=arguments.size)})
    each = ways(Window(space), space, arguments.size, flacs)
    seconds: dict[str, list[float]] = {name: [] for name in each}
    for number in range(arguments.rounds + 1):
        for name, cut in each.items():
            spent = measured(cut)
            if number:  # the first round warms up
                seconds[name].append(spent)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    whole = medians["flac, soundfile full decode"]
    print("| way | windows/s | ms | x full decode | x full decode of FLAC |")
    print("|---|---|---|---|---|")
    for name, value in medians.items():
        own = medians[name.partition(",")[0] + ", soundfile full decode"]
        print(f"| {name} | {1 / value:.0f} | {1000 * value:.3f} | {own / value:.2f} | {whole / value:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
