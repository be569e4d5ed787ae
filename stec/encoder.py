"""What an encoder gives, and how a part of it is asked for by name."""

from itertools import groupby
from typing import NamedTuple

import torch
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
    undecayed: names of parameters that, like biases and norms, are not to be decayed.
    """

    dims: dict[str, int]
    prefix: str = ""
    takes: str = "a batch of samples"
    hop: int = 0
    centre: float = 0.0
    undecayed: frozenset[str] = frozenset()

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


def encode(encoder: Encoder, xs: tuple[Tensor, ...], *, joint: bool = True) -> tuple[Features, ...]:
    """Features of each of V views [B, ...]. joint: neighbours of one shape share a call (and the statistics of batch
    norms); else each view has its own."""
    groups = groupby(xs, key=lambda x: x.shape) if joint else (((), [x]) for x in xs)
    features: list[Features] = []
    for _, same in groups:
        group = list(same)
        x = torch.cat(group) if len(group) > 1 else group[0]
        features += _split(_as_promised(encoder, x, encoder(x)), len(group))
    return tuple(features)


def micro_batches(xs: tuple[Tensor, ...], size: int) -> list[tuple[Tensor, ...]]:
    """The rows of V views [B, ...] in ceil(B / size) parts, as equal as can be."""
    num = -(-len(xs[0]) // size)
    return list(zip(*(x.tensor_split(num) for x in xs), strict=True))


def _as_promised(encoder: Encoder, x: Tensor, found: Features) -> Features:
    """UsageError if it is not what an encoder promises: somebody else's may be wrong, and what follows would fail in
    other words."""
    name, wanted = type(encoder).__name__, f"Features with pooled of shape [{len(x)}, {encoder.dims['pooled']}]"
    if not isinstance(found, Features):
        raise UsageError(f"the encoder {name} gives a {type(found).__name__}: {wanted} was promised.")
    pooled = found.pooled
    like_x = pooled.device == x.device and (pooled.dtype == torch.float64) == (x.dtype == torch.float64)
    if pooled.shape != (len(x), encoder.dims["pooled"]) or not pooled.is_floating_point() or not like_x:
        told = f"{pooled.dtype}".removeprefix("torch.")
        raise UsageError(
            f"the encoder {name} gives pooled of shape {list(pooled.shape)}, {told} on {pooled.device}:"
            f" {wanted}, float32 or less on {x.device}, was promised (`stec-doctor plugin NAME` checks a modality)."
        )
    return found


def _split(joint: Features, num: int) -> list[Features]:
    """Features of `num` equal batches, one after the other, taken apart again; each a tensor of its own, so that the
    gradient at one output is not also counted at another from which it was made."""

    def parts(t: Tensor | None) -> list[Tensor | None]:
        return [None] * num if t is None else list(t.chunk(num))

    layers: list[dict[str, Tensor] | None] = [None] * num
    if joint.layers is not None:
        layers = [{name: t.chunk(num)[i] for name, t in joint.layers.items()} for i in range(num)]
    local, context, frames = parts(joint.local), parts(joint.context), parts(joint.frames)
    return [Features(*row) for row in zip(joint.pooled.chunk(num), local, context, frames, layers, strict=True)]
