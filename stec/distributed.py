"""The few things that ranks tell each other. A leaf: without a process group everything here is the one-rank case.

The convention: each rank returns a loss whose *mean over ranks* is the loss of the global batch. DDP averages gradients
over ranks, so that the trained gradient is then the global one too.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Every rank's loss looks at every row: the gradient of the sum of losses is the sum of what the ranks found.
        # (clone: autograd may still hand the same tensor to someone else.)
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def gather(x: Tensor) -> Tensor:
    """[N, ...] of every rank -> [W * N, ...] in the order of ranks, with gradient; N must be the same on all ranks."""
    return x if world_size() == 1 else _Gather.apply(x.contiguous())


def global_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over all ranks of the items [...] whose mask [...] is true (all, if None): a scalar.

    Each rank returns W * (its own sum) / (the count of all ranks); the mean over ranks of that is the global mean, even
    if the ranks count differently. Without any true item the loss is 0, and still hangs on the graph.
    """
    count = torch.full((), values.numel(), device=values.device) if mask is None else mask.sum()
    total = values.sum() if mask is None else torch.where(mask, values, torch.zeros_like(values)).sum()
    if world_size() > 1:
        count = count.clone()
        dist.all_reduce(count)
    return world_size() * total / count.clamp(min=1)


def all_reduce_sums(sums: Mapping[str, tuple[Tensor | float, Tensor | float]]) -> dict[str, tuple[Tensor, Tensor]]:
    """{name: (sum, count)} added up over ranks in one message, as float64 scalars; all ranks bring the same names."""
    names = sorted(sums)
    if not names:
        return {}
    device = next((t.device for pair in sums.values() for t in pair if isinstance(t, Tensor)), torch.device("cpu"))
    flat = torch.stack([torch.as_tensor(t, dtype=torch.float64, device=device) for n in names for t in sums[n]])
    if world_size() > 1:
        dist.all_reduce(flat)
    return {name: (flat[2 * i], flat[2 * i + 1]) for i, name in enumerate(names)}


patient: dist.ProcessGroup | None = None
"""A group of all ranks for waiting until one has done what it does alone; None: the ordinary one."""


def barrier() -> None:
    """Wait for all ranks, as long as it takes."""
    if world_size() > 1:
        dist.barrier(group=patient)
