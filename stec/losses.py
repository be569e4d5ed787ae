"""Losses that several methods share. Each returns one value per item; the caller takes the mean over ranks.

Legend: N anchors, M candidates, B samples of this rank, W ranks, D dimensions of an embedding.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from stec.distributed import gather, rank, world_size
from stec.errors import UsageError

NEGATIVES = ("global", "local")


def float_of(t: Tensor) -> Tensor:
    """As float32, unless it is float64: losses are computed so whatever the precision of the networks."""
    return t if t.dtype == torch.float64 else t.float()


def unit(z: Tensor) -> Tensor:
    """Rows of length 1, in float32 (float64 if given)."""
    return F.normalize(float_of(z), dim=-1)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) [...] of distributions that are given as log-probabilities [..., C]; with gradient for both."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


# Logits are made in slabs of about this many numbers (16 MiB of float32), but never fewer rows than keep a GPU busy.
_SLAB = 2**22
_MIN_ROWS = 256


def _slabs(num_anchors: int, num_candidates: int) -> Iterator[slice]:
    rows = max(_MIN_ROWS, _SLAB // max(num_candidates, 1))
    return (slice(start, start + rows) for start in range(0, num_anchors, rows))


def _logits(anchors: Tensor, candidates: Tensor, excluded: Tensor | None, temperature: float) -> Tensor:
    logits = (anchors / temperature) @ candidates.T
    if excluded is not None:
        logits.scatter_(1, excluded[:, None], -torch.inf)
    return logits


class _InfoNCE(torch.autograd.Function):
    """Keeps the embeddings and one number per anchor; the logits are made again, slab by slab, on the way back."""

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, candidates: Tensor, positive: Tensor, excluded: Tensor | None, temperature: float
    ) -> Tensor:
        losses, normalisers = anchors.new_empty(len(anchors)), anchors.new_empty(len(anchors))
        for s in _slabs(len(anchors), len(candidates)):
            logits = _logits(anchors[s], candidates, None if excluded is None else excluded[s], temperature)
            normalisers[s] = torch.logsumexp(logits, dim=1)
            losses[s] = normalisers[s] - logits.gather(1, positive[s, None]).squeeze(1)
        ctx.save_for_backward(anchors, candidates, positive, excluded, normalisers)
        ctx.temperature = temperature
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        anchors, candidates, positive, excluded, normalisers = ctx.saved_tensors
        to_anchors = torch.empty_like(anchors)
        to_candidates = torch.zeros_like(candidates)
        # Autocast belongs to whoever called backward; the recomputed logits must be those of the forward pass.
        with torch.autocast(anchors.device.type, enabled=False):
            for s in _slabs(len(anchors), len(candidates)):
                logits = _logits(anchors[s], candidates, None if excluded is None else excluded[s], ctx.temperature)
                error = logits.sub_(normalisers[s, None]).exp_()
                error[torch.arange(len(error), device=error.device), positive[s]] -= 1
                error *= gradient[s, None] / ctx.temperature
                torch.mm(error, candidates, out=to_anchors[s])
                to_candidates.addmm_(error.T, anchors[s])
        return to_anchors, to_candidates, None, None, None


def info_nce(
    anchors: Tensor, candidates: Tensor, positive: Tensor, temperature: float, excluded: Tensor | None = None
) -> Tensor:
    """-log softmax_j(<a_i, c_j> / temperature) at j = positive[i], for each of N anchors: [N].

    anchors [N, D], candidates [M, D] (both get gradients), positive int64 [N]; excluded int64 [N] names one candidate
    that anchor i does not see (itself). Memory O(N + M) D beside one slab of logits: no N x M matrix lives until
    backward. Differentiable once. Computed in float32 (float64 if given), whatever the autocast precision.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        return _InfoNCE.apply(float_of(anchors), float_of(candidates), positive, excluded, temperature)


def num_compared(negatives: str, batch_size: int) -> int:
    """Of how many samples of a global batch an anchor's candidates are, by where its negatives come from."""
    return batch_size if negatives == "global" else batch_size // world_size()


def nt_xent(z1: Tensor, z2: Tensor, temperature: float, negatives: str = "global") -> Tensor:
    """NT-Xent of SimCLR, one value for each of this rank's 2B anchors: [2B] (first those of z1, then those of z2).

    z1, z2 [B, D]: projections of two views of the same B samples, normalised here to length 1. An anchor's candidates
    are both views of every sample but itself: of all ranks, with gradient ("global": 2B * W - 1, B equal on all ranks),
    or of this rank only ("local"). UsageError if shapes differ, temperature <= 0, or `negatives` is unknown.
    """
    if z1.shape != z2.shape or z1.dim() != 2:
        raise UsageError(f"nt_xent takes two [B, D] of one shape, not {list(z1.shape)} and {list(z2.shape)}.")
    if not temperature > 0:
        raise UsageError(f"temperature={temperature} is out of range: it must be above 0.")
    if negatives not in NEGATIVES:
        raise UsageError(f"negatives={negatives!r} is unknown: choose one of {', '.join(NEGATIVES)}.")
    with torch.autocast(z1.device.type, enabled=False):
        both = torch.cat([z1, z2])
        anchors = unit(both)
        candidates, offset = (gather(anchors), rank() * len(both)) if negatives == "global" else (anchors, 0)
        myself = torch.arange(len(both), device=both.device) + offset
        return info_nce(anchors, candidates, myself.roll(len(z1)), temperature, excluded=myself)
