"""Recordings made of a few numbers: two speakers, tones in place of phones, a label every 10 ms."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from stec.shards.writer import write_split
from stec_audio.labels import HOP, WIDTH, num_labels
from stec_audio.wav import to_wav

RATE = 16_000
PHONES = ["SIL", "low", "middle", "high"]
SPEAKERS = ["alto", "bass"]

_TONES = (0.0, 300.0, 700.0, 1500.0)  # Hz; silence is a tone of no loudness
_LENGTH = RATE // 10  # samples of a phone


def recording(number: int, seconds: float = 2.0) -> dict[str, Any]:
    """The sample of this number: speakers take turns, and the bass is a third lower."""
    speaker, numbers = number % 2, np.random.default_rng(number)
    num = round(seconds * RATE)
    phones = np.repeat(numbers.integers(0, len(PHONES), -(-num // _LENGTH)), _LENGTH)[:num]
    tones = np.array(_TONES)[phones] * (1.0, 0.8)[speaker]
    wave = 8000 * np.sin(2 * np.pi * np.cumsum(tones) / RATE) * (phones > 0)
    x = (wave + 20 * numbers.standard_normal(num)).round().astype(np.int16)
    labels = phones[HOP * np.arange(num_labels(num)) + WIDTH // 2]
    return {
        "__key__": f"{number:04d}",
        "wav": to_wav(x, RATE),
        "cls": b"%d" % speaker,
        "group": b"%d" % speaker,
        "txt": " ".join(PHONES[phone] for phone in phones[::_LENGTH]).encode(),
        "phones": " ".join(map(str, labels.tolist())).encode(),
        "json": json.dumps({"id": f"{number:04d}", "speaker": SPEAKERS[speaker]}).encode(),
    }


def write_corpus(folder: Path, num_train: int = 8, num_test: int = 4, seconds: float = 2.0) -> Path:
    """Shards of both splits, no recording in both."""
    for split, numbers in {"train": range(num_train), "test": range(num_train, num_train + num_test)}.items():
        samples = [recording(number, seconds) for number in numbers]
        write_split(samples, folder / split, name=split, meta={"classes": SPEAKERS, "phones": PHONES})
    return folder
