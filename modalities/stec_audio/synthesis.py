"""Speech from eSpeak NG, in a process of its own: `python -m stec_audio.synthesis OUT.npz < request.json`.

The library keeps a state from one call to the next, so the same speech comes bit for bit only of the same calls in the
same order in a fresh process. Its licence is the GPL; it is found in the package espeakng-loader and never imported by
the rest of the program.
"""

import ctypes
import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from stec.errors import UsageError

RATE = 22050
"""Samples per second of the speech that comes back."""

# Of espeak-ng's speak_lib.h.
_SYNCHRONOUS, _WITH_PHONEMES, _UTF8 = 2, 1, 1
_PHONEME, _END = 7, 0
_SPEED, _PITCH = 1, 3


class Line(NamedTuple):
    """What is read: a voice of eSpeak's (language+variant), its pitch (0..99), words per minute, and the text."""

    voice: str
    pitch: int
    speed: int
    text: str


class Speech(NamedTuple):
    """samples: int16 [L] at RATE. starts: int64 [P], ascending: where each phoneme begins; phonemes: [P] eSpeak's
    names, those of a pause beginning with "_"."""

    samples: np.ndarray
    starts: np.ndarray
    phonemes: list[str]


def spoken(lines: Sequence[Line], seed: int) -> list[Speech]:
    """All lines, read in this order by a fresh process: bit-identical whenever it is asked for the same.

    UsageError if espeakng-loader is not installed or its library does not run here.
    """
    if find_spec("espeakng_loader") is None:
        raise UsageError(
            "speech is synthesised by espeakng-loader (GPL), which is missing: pip install 'stec[demo-speech]'."
        )
    with tempfile.TemporaryDirectory(prefix="stec-speech-") as folder:
        out = Path(folder) / "speech.npz"
        done = subprocess.run(
            [sys.executable, "-m", "stec_audio.synthesis", str(out)],
            input=json.dumps({"seed": seed, "lines": lines}),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise UsageError(f"eSpeak NG failed with status {done.returncode}: {last}")
        with np.load(out, allow_pickle=False) as found:
            ends = np.cumsum(found["num_samples"])[:-1], np.cumsum(found["num_phonemes"])[:-1]
            samples, starts = np.split(found["samples"], ends[0]), np.split(found["starts"], ends[1])
            phonemes = np.split(found["phonemes"], ends[1])
    return [Speech(x, at, names.tolist()) for x, at, names in zip(samples, starts, phonemes, strict=True)]


class _Name(ctypes.Union):
    _fields_: ClassVar[Any] = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_: ClassVar[Any] = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Espeak:
    """The library, started once; speak() appends to what has been heard since the last call of it."""

    def __init__(self, seed: int):
        loader = importlib.import_module("espeakng_loader")
        self._library = ctypes.CDLL(str(loader.get_library_path()))
        path = str(loader.get_data_path()).encode()
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, path, _WITH_PHONEMES)
        if rate != RATE:
            raise SystemExit(f"it speaks at {rate} samples per second, not {RATE}")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._heard: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []
        self._callback = _Callback(self._hear)  # kept: the library holds a bare pointer to it
        self._library.espeak_SetSynthCallback(self._callback)

    def _hear(self, samples: Any, num: int, events: Any) -> int:
        if samples and num > 0:
            self._heard.append(np.ctypeslib.as_array(samples, (num,)).copy())
        index = 0
        while events[index].type != _END:
            if events[index].type == _PHONEME:
                self._events.append((events[index].sample, events[index].id.string.decode()))
            index += 1
        return 0

    def speak(self, line: Line) -> Speech:
        self._heard.clear()
        self._events.clear()
        if self._library.espeak_SetVoiceByName(line.voice.encode()) != 0:
            raise SystemExit(f"there is no voice {line.voice!r}")
        self._library.espeak_SetParameter(_PITCH, line.pitch, 0)
        self._library.espeak_SetParameter(_SPEED, line.speed, 0)
        text = line.text.encode()
        self._library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        if not self._heard or not self._events:
            raise SystemExit(f"nothing was to be heard of {line.text!r}")
        starts = np.array([start for start, _ in self._events], np.int64)
        return Speech(np.concatenate(self._heard), starts, [name for _, name in self._events])


def main() -> None:
    """Read the request, write the speech: all of it end to end, with the number of samples and phonemes of each."""
    request = json.load(sys.stdin)
    espeak = _Espeak(request["seed"])
    speeches = [espeak.speak(Line(*line)) for line in request["lines"]]
    np.savez(
        sys.argv[1],
        samples=np.concatenate([speech.samples for speech in speeches]),
        num_samples=[len(speech.samples) for speech in speeches],
        starts=np.concatenate([speech.starts for speech in speeches]),
        phonemes=np.array([name for speech in speeches for name in speech.phonemes]),
        num_phonemes=[len(speech.phonemes) for speech in speeches],
    )


if __name__ == "__main__":
    main()
