"""Before the first step: the model on its device, the way its gradient is found, and what is said about both."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from stec import rng
from stec.distributed import rank, world_size
from stec.encoder import Encoder, micro_batches
from stec.errors import UsageError
from stec.objective import STEC, Out
from stec.training import optim
from stec.training.gradcache import GradCache, batch_norms, from_first_rank, sow
from stec.training.gradient import Pass, Plain, Scale
from stec.training.options import Hardware, Training
from stec.views import Views

Gradient = Callable[[Views, bool], Out]


def place(stec: STEC, hardware: Hardware) -> None:
    """Move the model in place; its parameters stay the same objects, so an optimiser made before remains theirs."""
    stec.to(hardware.device)
    for encoder in _encoders(stec) if hardware.channels_last else ():
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if world_size() > 1 and hardware.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(stec)


def _encoders(stec: STEC) -> list[Encoder]:
    """The encoder, and the copies of it that teachers hold."""
    return [module for module in stec.modules() if isinstance(module, Encoder)]


def gradient_of(stec: STEC, options: Training, hardware: Hardware, scale: Scale) -> Gradient:
    """The function (views, measured) -> Out that leaves the batch's gradient in the parameters."""
    if options.accumulate > 1 and stec.couples_batch:
        raise UsageError(
            f"training.accumulate={options.accumulate} would change this loss, whose samples look at each other: "
            "use hardware.micro_batch, which gives the whole batch's gradient in as little memory."
        )
    if options.accumulate > 1 and hardware.micro_batch is not None:
        raise UsageError("training.accumulate and hardware.micro_batch both cut the batch: set only one of them.")
    for encoder in _encoders(stec) if hardware.compile else ():
        encoder.compile()
    if hardware.micro_batch is not None:
        return GradCache(stec, hardware, scale, hardware.micro_batch)
    model = Pass(stec)
    if world_size() == 1:
        return Plain(model, hardware, scale, options.accumulate)
    from_first_rank(stec)  # DDP does so with the parameters, but not with buffers that it is not to send in each step
    return Plain(DistributedDataParallel(model, broadcast_buffers=False), hardware, scale, options.accumulate)


def contiguous(views: Views, hardware: Hardware) -> Views:
    """Four-dimensional samples in the memory format that the encoder's weights have."""
    if not hardware.channels_last:
        return views
    return views._replace(
        x=tuple(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in views.x)
    )


def seed_step(seed: int, step: int, device: torch.device) -> None:
    """torch's own generators as a function of (seed, step, rank): dropout is the same after a resume."""
    key = torch.tensor([[seed, step, rank()]])
    high, low = rng.bits(key, 0, "training step", 2)[0].tolist()
    sow((high << 31) ^ low, device)


def felt(stec: STEC) -> list[nn.Parameter]:
    """The parameters that the objective reaches: all but the probes', whose gradients must not sway the clipping."""
    return [p for name, p in stec.named_parameters() if not name.startswith("probes.")]


def announcement(
    stec: STEC,
    optimizer: Optimizer,
    options: Training,
    hardware: Hardware,
    per_epoch: int,
    batch_size: int | None = None,
) -> list[str]:
    """The lines at the start of a run: objective, chance levels, rates, machine, statistics."""
    chance = ", ".join(f"{name} {level:.4g}" for name, level in stec.chance(batch_size).items() if level)
    warm = f"warm-up {options.warmup_epochs * per_epoch:g} steps, then cosine to 0"
    lines = [
        stec.describe(),
        f"chance levels: {chance or 'none known beforehand'}",
        f"optimiser: {optim.describe(optimizer)}; {warm}",
        f"{options.epochs} epochs of {per_epoch} steps = {options.epochs * per_epoch} steps",
        f"machine: {hardware.describe(stec.encoder)}" + (f", {world_size()} ranks" if world_size() > 1 else ""),
    ]
    return lines + ([f"batch norm: {_statistics(stec, hardware)}"] if batch_norms(stec) else [])


def _statistics(stec: STEC, hardware: Hardware) -> str:
    where = "statistics of the whole batch"
    if world_size() > 1:
        where = "statistics of all ranks (SyncBatchNorm)"
        if hardware.device.type != "cuda":
            where = "statistics of each rank's own part of the batch (there is no SyncBatchNorm on a CPU)"
    if hardware.micro_batch is None or not batch_norms(stec.encoder):
        return where
    return (
        f"in the encoder, statistics per micro-batch of {hardware.micro_batch} samples, so the gradient is not exactly "
        f"the whole batch's; in the heads, {where}"
    )


def measured(apart: dict[str, float] | None) -> str:
    """What gradcache.difference found, in words."""
    if apart is None:
        return "micro-batch statistics: their difference was not measured, for want of memory"
    return (
        f"micro-batch statistics on the first {apart['samples']:g} samples: features differ by {apart['features']:.2%} "
        f"and the loss by {apart['loss']:.2%} from those with statistics of all {apart['samples']:g} together"
    )


def is_cut(x: Tensor, hardware: Hardware) -> bool:
    """Does this batch take more than one micro-batch?"""
    return hardware.micro_batch is not None and len(micro_batches((x,), hardware.micro_batch)) > 1


def out_of_memory(hardware: Hardware, local: int) -> UsageError:
    """One sentence with the micro_batch to try, for `local` samples of this rank in a batch."""
    now = min(hardware.micro_batch or local, local)
    if now <= 1:
        return UsageError(f"{hardware.device} has too little memory for one sample: choose a smaller encoder or view.")
    return UsageError(
        f"{hardware.device} ran out of memory with {now} samples encoded at once: try hardware.micro_batch={now // 2}."
    )
