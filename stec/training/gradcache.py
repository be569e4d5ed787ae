"""Large batches in little memory: the gradient of the whole batch, with one micro-batch's activations at a time.

GradCache (Gao et al., 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"), cut at the
encoder's output:

1. encode micro-batches without gradient; 2. score the whole batch, which gives the gradient at every feature (and of
all heads); 3. encode each micro-batch again, with gradient, and hand it its rows of that gradient.

The sum is the whole batch's gradient, whatever the loss, if an encoder treats each sample alone. With batch norm it is
not: statistics are then those of a micro-batch (`difference` measures it). Running statistics move in pass 3 only, and
dropout is the same in passes 1 and 3. A teacher, which keeps nothing for a way back, encodes the same parts in pass 2.

Legend: B samples of this rank, M of them in a micro-batch, V views.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from stec.distributed import all_reduce_sums, world_size
from stec.encoder import Features, micro_batches
from stec.objective import STEC, Out, tally
from stec.teacher import teachers
from stec.training.gradient import Scale, health, rows
from stec.training.options import Hardware
from stec.views import Views


class GradCache:
    """Forward and backward of one batch; gradients are averaged over ranks here, since DDP is passed by."""

    def __init__(self, stec: STEC, hardware: Hardware, scale: Scale, micro_batch: int):
        self.stec, self.hardware, self.scale, self.micro_batch = stec, hardware, scale, micro_batch
        for teacher in teachers(stec):
            teacher.micro_batch = micro_batch
        from_first_rank(stec)

    def __call__(self, views: Views, measured: bool) -> Out:
        seed = torch.initial_seed()
        parts = micro_batches(views.x, self.micro_batch)
        with torch.no_grad(), still_statistics(self.stec.encoder):
            encoded = [self._encode(part, seed + number) for number, part in enumerate(parts)]
        # The features of the whole batch, as leaves: backward stops here.
        features = pytree.tree_map(_leaf, join(encoded))
        leaves = pytree.tree_leaves(features)
        with self.hardware.autocast():
            out: Out = self.stec.score(features, views, grad_share=measured)
        self.scale(out.loss).backward()
        begin = 0
        for number, part in enumerate(parts):
            end = begin + len(part[0])
            again = pytree.tree_leaves(self._encode(part, seed + number))
            pairs = [(t, f.grad[begin:end]) for t, f in zip(again, leaves, strict=True) if _felt(t, f)]
            torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])
            begin = end
        average_gradients(self.stec)
        return Out(out.loss.detach(), out.sums | health(features) if measured else out.sums)

    def _encode(self, xs: tuple[Tensor, ...], seed: int) -> tuple[Features, ...]:
        sow(seed, self.hardware.device)
        with self.hardware.autocast():
            return self.stec.encode(xs)


def join(encoded: list[tuple[Features, ...]]) -> tuple[Features, ...]:
    """The features of micro-batches as those of the whole batch."""
    leaves = [pytree.tree_leaves(part) for part in encoded]
    whole = [None if part[0] is None else torch.cat(part) for part in zip(*leaves, strict=True)]  # None: not given
    return pytree.tree_unflatten(whole, pytree.tree_structure(encoded[0]))


def sow(seed: int, device: torch.device) -> None:
    """Seed the generators in use. (torch.manual_seed speaks to all devices there might be: a millisecond each time.)"""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


@contextmanager
def still_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norm keeps normalising by the batch, but its running statistics stay as they are."""
    moving = [m for m in batch_norms(module) if m.track_running_stats]
    for m in moving:
        m.track_running_stats = False
    try:
        yield
    finally:
        for m in moving:
            m.track_running_stats = True


@torch.no_grad()
def from_first_rank(module: nn.Module) -> None:
    """All ranks take the weights, and the buffers (random ones may be among them), of the first one."""
    if world_size() == 1:
        return
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.numel():  # of an empty queue there is nothing to send
            sent = tensor.detach().contiguous()  # another memory format is no matter of the backend's
            dist.broadcast(sent, src=0)
            tensor.copy_(sent)


def average_gradients(module: nn.Module) -> None:
    """The mean over ranks of every gradient, in one message for each data type."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    for dtype in sorted({g.dtype for g in gradients}, key=str):
        mine = [g for g in gradients if g.dtype == dtype]
        flat = torch.cat([g.flatten() for g in mine])
        dist.all_reduce(flat)
        for g, averaged in zip(mine, (flat / world_size()).split([g.numel() for g in mine]), strict=True):
            g.copy_(averaged.view_as(g))


@torch.no_grad()
def difference(stec: STEC, views: Views, hardware: Hardware, micro_batch: int) -> dict[str, float] | None:
    """How far statistics of micro-batches are from those of several together: relative {"features", "loss"}, and the
    number of "samples" (of this rank) that they were measured on.

    The first two micro-batches, not the whole batch, which may not fit into memory; on copies, which are thrown away:
    nothing of the run is touched. None if even that is too much memory (of a single rank: several must not part ways).
    """
    some = rows(views, slice(0, 2 * micro_batch))
    try:
        whole = _scored(stec, some, hardware, len(some.x[0]))
        parts = _scored(stec, some, hardware, micro_batch)
    except torch.OutOfMemoryError:
        if world_size() > 1:
            raise
        return None
    apart = (parts[0] - whole[0]).norm() / whole[0].norm().clamp(min=1e-30)
    sums = {"features": tally(apart), "whole": tally(whole[1]), "parts": tally(parts[1])}
    mean = {name: float(total / count) for name, (total, count) in all_reduce_sums(sums).items()}
    loss = abs(mean["parts"] - mean["whole"]) / max(abs(mean["whole"]), 1e-30)
    return {"features": mean["features"], "loss": loss, "samples": len(some.x[0])}


def _scored(stec: STEC, views: Views, hardware: Hardware, size: int) -> tuple[Tensor, Tensor]:
    """Pooled features and loss of a copy that encodes the views, and whose teachers do, so many samples at a time."""
    twin, seed = copy.deepcopy(stec), torch.initial_seed()
    for teacher in teachers(twin):
        teacher.micro_batch = size
    try:
        with hardware.autocast():
            encoded = join([twin.encode(part) for part in micro_batches(views.x, size)])
            loss = twin.score(encoded, views).loss
    finally:
        sow(seed, hardware.device)
    return torch.cat([f.pooled for f in encoded]).float(), loss.float()


def _leaf(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.detach().requires_grad_(t.is_floating_point())


def _felt(t: Tensor | None, whole: Tensor | None) -> bool:
    """Is there a gradient to hand on to this output, and anything behind it that learns?"""
    return t is not None and whole is not None and t.requires_grad and whole.grad is not None
