"""A corpus of speech that is made, not downloaded: sentences of our own in the voices of eSpeak NG, with a phone label
for every 10 ms and the speaker of every recording."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torchaudio.functional import resample

from stec.errors import DataError, UsageError
from stec.rng import uniform
from stec_audio.arpabet import PHONES, phone
from stec_audio.labels import HOP, WIDTH, num_labels
from stec_audio.reading import RATE as OUT_RATE
from stec_audio.sentences import sentences
from stec_audio.synthesis import RATE, Line, Speech, spoken
from stec_audio.wav import to_wav

# Accent+variant of eSpeak NG, and the pitch (0..99) it speaks at. No two of them sound alike.
SPEAKERS = (
    ("en-us+m3", 45),
    ("en-us+f2", 55),
    ("en-gb-x-rp+m1", 35),
    ("en-gb-x-rp+f5", 65),
    ("en-gb-scotland+m7", 50),
    ("en-gb-scotland+f3", 45),
    ("en-us+Michael", 30),
    ("en+Alicia", 50),
    ("en-029+m5", 60),
    ("en-us+Annie", 40),
    ("en-gb-x-gbclan+Lee", 50),
    ("en-gb-x-gbcwmd+f4", 35),
    ("en-us-nyc+Mike", 65),
    ("en-us+linda", 60),
    ("en+Andy", 30),
    ("en-029+aunty", 45),
    ("en-us+grandpa", 40),
    ("en-gb-x-rp+belinda", 40),
    ("en-gb-scotland+Gene", 60),
    ("en-us+travis", 50),
    ("en+shelby", 55),
    ("en-us+victor", 35),
    ("en-us-nyc+f1", 75),
    ("en-gb-x-gbclan+quincy", 65),
)

_LAST_SEED = 2**31 - 1
_QUIET = 2  # of 32768: what rounding leaves of silence


class Espeak:
    """num_voices: the first so many of SPEAKERS. Each reads num_sentences sentences for training and num_test for
    testing; no sentence is read twice, so none stands in both splits. seed: of the sentences, and of how they are read
    (within a tenth of 170 words per minute, and a few steps of the voice's pitch).

    A sample is a WAV of 16 kHz and 16 bits, about 2 to 4 seconds long, with "cls" and "group" (number of the speaker),
    "txt" (the sentence), "json" and "phones": one number per 10 ms, label i being the phone that sounds at sample
    160 i + 200, the middle of the i-th frame of 25 ms. The same arguments give the same bytes on the same machine.
    UsageError if a source is named (there is none), for ranges, or without the package espeakng-loader.
    """

    splits = ("train", "test")

    def __init__(self, source: str, *, num_voices: int = 8, num_sentences: int = 60, num_test: int = 15, seed: int = 0):
        if source:
            raise UsageError(f"data={source}: these sentences are synthesised, not read: leave data away.")
        if not 2 <= num_voices <= len(SPEAKERS):
            raise UsageError(f"packer.num_voices={num_voices} must be between 2 and {len(SPEAKERS)}.")
        for name, value in {"num_sentences": num_sentences, "num_test": num_test}.items():
            if not 1 <= value <= 10_000:
                raise UsageError(f"packer.{name}={value} must be between 1 and 10000, for each voice.")
        if not 0 <= seed <= _LAST_SEED:
            raise UsageError(f"packer.seed={seed} must be between 0 and {_LAST_SEED}.")
        self.speakers = SPEAKERS[:num_voices]
        self.seed = seed
        self._num = {"train": num_sentences, "test": num_test}

    def samples(self, split: str) -> Iterator[dict[str, Any]]:
        """Recordings of all voices in turn, so that shards mix the speakers; all of a split are spoken at once."""
        lines = self._lines(split)
        for number, (line, speech) in enumerate(zip(lines, spoken(lines, self.seed), strict=True)):
            speaker = number % len(self.speakers)
            key = f"{split}-{number:06d}"
            signal = at_16_khz(speech.samples)
            about = {"path": f"{line.voice}/{key}.wav", "id": key, "speaker": line.voice}
            yield {
                "__key__": key,
                "wav": to_wav(signal, OUT_RATE),
                "cls": str(speaker).encode(),
                "group": str(speaker).encode(),
                "txt": line.text.encode(),
                "phones": " ".join(map(str, labels(speech, len(signal)).tolist())).encode(),
                "json": json.dumps({**about, "pitch": line.pitch, "speed": line.speed}).encode(),
            }

    def meta(self, split: str) -> dict[str, list[str]]:  # noqa: ARG002
        return {"classes": [voice for voice, _ in self.speakers], "phones": list(PHONES)}

    def _lines(self, split: str) -> list[Line]:
        """Test sentences are the first of the stream, so that they stay the same however many are learnt from."""
        num_test = self._num["test"] * len(self.speakers)
        first, num = (0, num_test) if split == "test" else (num_test, self._num["train"] * len(self.speakers))
        texts = list(itertools.islice(_different(sentences(self.seed)), first, first + num))
        keys = np.stack([np.full(num, self.seed), np.zeros(num), np.arange(first, first + num)], axis=-1)
        manner = uniform(keys.astype(np.int64), 0, "manner", 2)
        lines = []
        for number, (text, (high, fast)) in enumerate(zip(texts, manner.tolist(), strict=True)):
            voice, pitch = self.speakers[number % len(self.speakers)]
            lines.append(Line(voice, pitch + int(11 * high) - 5, 153 + int(35 * fast), text))
        return lines


def at_16_khz(samples: np.ndarray) -> np.ndarray:
    """int16 [L] at eSpeak's rate -> int16 [N] at 16 kHz."""
    slower = resample(torch.from_numpy(samples).double()[None], RATE, OUT_RATE)[0]
    return slower.round().clamp(-32768, 32767).to(torch.int16).numpy()


def labels(speech: Speech, num_samples: int) -> np.ndarray:
    """int64 [1 + (N - 400) // 160]: the number in PHONES of what sounds at sample 160 i + 200 of N at 16 kHz.

    Silence before a phoneme, unless it is a pause that eSpeak names, belongs to it: it is the closure of a p, t or k,
    which eSpeak counts from its burst. DataError for a sound that English has not (another version of eSpeak NG).
    """
    quiet = np.abs(speech.samples.astype(np.int32)) <= _QUIET
    last_loud = np.maximum.accumulate(np.where(quiet, -1, np.arange(len(quiet))))
    starts, numbers = [0], [0]  # silence, until the first phoneme begins
    for start, name in zip(speech.starts.tolist(), speech.phonemes, strict=True):
        if name.startswith("("):  # a change of language, not a sound
            continue
        number = phone(name)
        if number is None:
            raise DataError(f"eSpeak NG spoke a phoneme {name!r} that the table of English phones has not.")
        if number and numbers[-1] and start:
            start = max(starts[-1], int(last_loud[start - 1]) + 1)
        starts.append(start)
        numbers.append(number)
    middles = (HOP * np.arange(num_labels(num_samples)) + WIDTH // 2) * (RATE / OUT_RATE)
    return np.array(numbers)[np.searchsorted(starts, middles, side="right") - 1]


def _different(texts: Iterator[str]) -> Iterator[str]:
    seen = set()
    for text in texts:
        if text not in seen:
            seen.add(text)
            yield text
