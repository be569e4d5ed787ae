"""What the probes share: what they ask of a decoder and of an encoder's features.

Legend: N samples of a recording, L of a window, T frames, D width of the features.
"""

from typing import Protocol

from torch import Tensor

from stec.decoder import Opened
from stec.encoder import Features
from stec.errors import UsageError


class Decoder(Protocol):
    """What a probe asks of a decoder."""

    @property
    def extensions(self) -> tuple[str, ...]: ...

    def open(self, raw: bytes) -> Opened: ...

    def all(self, opened: Opened) -> Tensor:
        """The whole recording, int16 [1, N]."""

    def whole(self, opened: Opened) -> Tensor:
        """The window in the middle, int16 [1, L]."""

    def finish(self, x: Tensor) -> Tensor: ...


def sequence(features: Features, layer: str) -> Tensor:
    """The valid frames [T, D] of the first sample."""
    frames = features.context if layer == "context" else features.local
    if frames is None:
        raise UsageError(f"this encoder gives no {layer}.")
    return frames[0] if features.frames is None else frames[0, : int(features.frames[0])]
