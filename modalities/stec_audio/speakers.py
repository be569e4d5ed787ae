"""The probe of speakers: whose voice is it, told from one window in the middle of a recording.

Legend: L samples of a window, T frames, D width of the features.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stec.encoder import Encoder, Features
from stec.errors import DataError, UsageError
from stec_audio.probed import Decoder, payload, sequence

_POOLS = ("mean", "last")


class Speaker:
    """Speakers, from the member `cls` (-1: unknown), or whatever else the classes of the data are.

    pool: "mean" of context over time, as Greedy InfoMax reads it, or the "last" frame of context, as CPC's other code
    bases do: a recurrent network may know there what the mean does not show, so compare only like with like.
    """

    needs = frozenset({"context"})

    def __init__(self, decoder: Decoder, *, pool: str = "mean"):
        if pool not in _POOLS:
            raise UsageError(f"pool={pool!r} is unknown: choose one of {', '.join(_POOLS)}.")
        self.pool, self._decoder = pool, decoder

    def example(self, members: Mapping[str, bytes], meta: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
        """The window, float [1, 1, L], and its label int64 [1]; None without one. DataError if it is no class."""
        if "cls" not in members:
            return None
        text = members["cls"].decode("utf-8", "replace").strip()
        num_classes = len(meta.get("classes") or ())
        try:
            label = int(text)
        except ValueError:
            raise DataError(f"the label {text[:40]!r} is not a whole number.") from None
        if not -1 <= label < (num_classes or 2**31):
            raise DataError(f"the label {label} is not one of the {num_classes or 'possible'} classes.")
        if label < 0:
            return None
        window = self._decoder.whole(payload(self._decoder, members))
        return self._decoder.finish(window[None]), torch.tensor([label])

    def rows(self, encoder: Encoder, features: Features, labels: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """[1, D] and [1]."""
        frames = sequence(features, "context")
        return frames.mean(dim=0, keepdim=True) if self.pool == "mean" else frames[-1:], labels

    def classes(self, meta: Mapping[str, Any]) -> list[str]:
        return list(meta.get("classes") or [])

    def describe(self) -> str:
        where = "the mean of context over time" if self.pool == "mean" else "the last frame of context"
        return f"a label for each recording, read from {where} of its central window"
