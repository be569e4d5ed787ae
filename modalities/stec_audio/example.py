"""A few sounds made from nothing, so that `stec.testing` can try the parts of this modality without any data."""

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from stec_audio.labels import num_labels
from stec_audio.reading import RATE

_NUM = 8
_PITCHES = (110.0, 220.0)  # of the two voices, in Hz
_SECONDS = (0.35, 0.6)
_HALF = 0.5


class Hums:
    """Hums of two voices that glide upwards, as FLAC of several lengths, with labels of all kinds; small options.

    The label of a frame says in which half of its recording it lies.
    """

    splits = ("train",)
    options = {  # noqa: RUF012
        "action_space": {"temporal_window": {"size": 2400, "speeds": [0.9, 1.0, 1.1], "step": 10}},
        "encoder": {"cpc": {"channels": 16, "width": 16}},
    }

    def samples(self, split: str) -> Iterator[dict[str, Any]]:
        numbers = np.random.default_rng(0)
        for i in range(_NUM):
            voice, num = i % 2, round(RATE * numbers.uniform(*_SECONDS))
            glide = np.linspace(1, 2, num)
            phase = 2 * np.pi * np.cumsum(_PITCHES[voice] * glide) / RATE
            hum = np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.05 * numbers.normal(size=num)
            file = io.BytesIO()
            soundfile.write(file, (6000 * hum).astype(np.int16), RATE, format="FLAC")
            halves = np.arange(num_labels(num)) >= _HALF * num_labels(num)
            yield {
                "__key__": f"{split}-{i}",
                "flac": file.getvalue(),
                "cls": b"%d" % voice,
                "group": b"%d" % voice,
                "txt": b"HM",
                "phones": " ".join(map(str, halves.astype(int))).encode(),
                "json": json.dumps({"id": f"hum-{i}", "speaker": f"voice {voice}"}).encode(),
            }

    def meta(self, split: str) -> dict[str, Any]:  # noqa: ARG002
        return {"classes": ["low", "high"], "phones": ["first", "second"]}
