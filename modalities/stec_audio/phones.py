"""The probe of phones: which one is it, every 10 ms, told from the encoder's frame at that time.

Two facts decide which frame that is (measured on genuine lines of CPC's label file and their recordings):

* A recording of N samples at 16 kHz has n = 1 + (N - 400) // 160 labels, the windows of 25 ms every 10 ms that lie
  wholly in it, so that label i is centred on sample 160 i + 200.
* Frame j of an encoder is centred on sample hop * j + centre. Of CPC's encoder, whose hop is 160 as well, that is
  160 j + 79 or 160 j + 20 (by its padding): either way the frame nearest to label i is frame i + 1.

Legend: N samples, n labels, T frames, D width of the features.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stec.encoder import Encoder, Features
from stec.errors import DataError, UsageError
from stec.samples import readable
from stec_audio.labels import HOP, WIDTH, check_length
from stec_audio.probed import Decoder, sequence

_LAYERS = ("context", "local")


def frame_of(labels: Tensor, hop: int, centre: float) -> Tensor:
    """The number j of the frame nearest to each of the labels with these numbers i (between two: the later one)."""
    return torch.floor((HOP * labels.double() + WIDTH / 2 - centre) / hop + 0.5).long()


class Phones:
    """Phones, each read from the frame nearest to it. The labels are in the member `phones`, whole numbers with spaces
    between them (-1: unknown), their names in meta["phones"], if they are known.

    layer: context (what the paper reads) or local, the encoder's frames before any recurrence.
    """

    def __init__(self, decoder: Decoder, *, layer: str = "context"):
        if layer not in _LAYERS:
            raise UsageError(f"layer={layer!r} is unknown: choose one of {', '.join(_LAYERS)}.")
        if not hasattr(decoder, "all"):
            raise UsageError("name=phones needs a decoder that gives whole recordings, such as window.")
        self.needs = frozenset({layer})
        self.layer, self._decoder = layer, decoder

    def example(self, members: Mapping[str, bytes], meta: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
        """The recording, float [1, 1, N], and its labels int64 [n]; None without any. DataError if there are more or
        fewer of them than the rule says, or one is none of the phones."""
        if "phones" not in members:
            return None
        labels = _labels(members["phones"], len(self.classes(meta)))
        sound = self._decoder.all(self._decoder.open(readable(members, self._decoder.extensions)))
        check_length("the member phones", len(labels), sound.shape[-1])
        return (self._decoder.finish(sound[None]), labels) if len(labels) else None

    def rows(self, encoder: Encoder, features: Features, labels: Tensor) -> tuple[Tensor, Tensor]:
        """[n', D] and [n']: the frame of each label; labels whose frame lies beyond the first or last are dropped."""
        if encoder.hop < 1:
            raise UsageError(f"{type(encoder).__name__} does not say how far apart its frames are (hop=0).")
        frames = sequence(features, self.layer)
        nearest = frame_of(torch.arange(len(labels)), encoder.hop, encoder.centre)
        there = (nearest >= 0) & (nearest < len(frames))
        return frames[nearest[there].to(frames.device)], labels[there]

    def classes(self, meta: Mapping[str, Any]) -> list[str]:
        names = meta.get("phones") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError("what the index says of phones is no list of their names: index the data again.")
        return names

    def describe(self) -> str:
        return f"a label every 10 ms of whole recordings, read from the frame of {self.layer} nearest to its centre"


def _labels(text: bytes, num_classes: int) -> Tensor:
    words = text.decode("utf-8", "replace").split()
    try:
        numbers = [int(word) for word in words]
    except ValueError as error:
        raise DataError(f"the member phones is not a row of whole numbers ({error}).") from None
    wrong = next((number for number in numbers if not -1 <= number < (num_classes or 2**31)), None)
    if wrong is not None:
        raise DataError(f"the phone label {wrong} is not one of the {num_classes or 'possible'} phones.")
    return torch.tensor(numbers, dtype=torch.int64)
