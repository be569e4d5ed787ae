"""What an encoder gives, and how a part of it is asked for by name."""

from typing import NamedTuple

from torch import Tensor, nn

from stec.errors import UsageError


class Features(NamedTuple):
    """pooled [B, D] (the representation); local [B, T, E] and context [B, T, C] for sequences; frames [B] = valid T;
    layers: named inner layers, pooled to [B, E] each, if the encoder was asked for them."""

    pooled: Tensor
    local: Tensor | None = None
    context: Tensor | None = None
    frames: Tensor | None = None
    layers: dict[str, Tensor] | None = None


class Encoder(nn.Module):
    """A network x -> Features. `dims` tells the width of each output and layer by name ("pooled" always).

    prefix: what the names of its state have in front of those by which others know this network ("" if nothing).
    hop: samples of the signal between two frames of local and context (0: it gives no sequence); centre: the sample,
    numbered from 0, that frame 0 is centred on. takes: what x is, in words for whoever loads it from an export.
    """

    dims: dict[str, int]
    prefix: str = ""
    takes: str = "a batch of samples"
    hop: int = 0
    centre: float = 0.0

    def forward(self, x: Tensor) -> Features:
        raise NotImplementedError


def tap(features: Features, name: str) -> Tensor:
    """The pooled output or a named inner layer, [B, E]; UsageError lists what there is."""
    if name == "pooled":
        return features.pooled
    layers = features.layers or {}
    if name not in layers:
        raise UsageError(
            f"tap={name!r} is not an output of this encoder: choose one of {', '.join(['pooled', *layers])}."
        )
    return layers[name]
