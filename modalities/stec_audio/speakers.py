"""The probe of speakers: whose voice is it, told from one window in the middle of a recording.

Legend: L samples of a window, T frames, D width of the features.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stec.encoder import Encoder, Features
from stec.errors import UsageError
from stec.samples import readable, whole_number
from stec_audio.probed import Decoder, sequence

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
        label = whole_number(members, "cls", "label", len(meta.get("classes") or ()))
        if label < 0:
            return None
        window = self._decoder.whole(self._decoder.open(readable(members, self._decoder.extensions)))
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
