"""What can be set about training and about the machine; the keyword-only parameters are the YAML keys."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from stec.cores import cores, told
from stec.errors import UsageError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long, how often. Units: epochs for epochs, warmup_epochs and eval_every; optimiser steps for the rest.

    eval_every: 0 = only at the end. keep: newest checkpoints left on disk. ema: decay of an averaged copy of the
    encoder, None = no copy. clip_grad: largest norm of the gradient, None = as it is. accumulate: parts that each
    batch is cut into, one after the other (exact only for losses that do not couple the batch: refused otherwise).
    stop_after: leave after this many steps with a checkpoint, as a signal would, but without an error.
    """

    epochs: int
    warmup_epochs: float = 10.0
    log_every: int = 10
    checkpoint_every: int = 500
    eval_every: int = 0
    keep: int = 2
    accumulate: int = 1
    clip_grad: float | None = None
    ema: float | None = None
    stop_after: int | None = None

    def __post_init__(self) -> None:
        for key in ("epochs", "log_every", "checkpoint_every", "keep", "accumulate", "stop_after"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UsageError(f"training.{key}={value} must be at least 1.")
        if self.eval_every < 0:
            raise UsageError(f"training.eval_every={self.eval_every} must be 0 (only at the end) or more.")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise UsageError(
                f"training.warmup_epochs={self.warmup_epochs:g} must be 0 or more and less than "
                f"training.epochs={self.epochs}."
            )
        if self.clip_grad is not None and not self.clip_grad > 0:
            raise UsageError(f"training.clip_grad={self.clip_grad} must be above 0, or null.")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UsageError(f"training.ema={self.ema} must lie between 0 and 1, or be null.")


class Hardware:
    """The machine: what is asked for, with every `auto` and null resolved when it is made.

    device: torch.device (under torchrun the GPU of this process's LOCAL_RANK). precision: fp32, bf16 or fp16 (autocast;
    the weights stay float32); auto = bf16 where the device computes in it, else fp32. channels_last: memory format of
    four-dimensional samples; null = yes (convolutions are faster in it, on a CPU too). compile: torch.compile of the
    encoder. num_workers: loading processes of this rank; null = by the number of cores. micro_batch: samples of this
    rank that are encoded at once (GradCache); null = all. patience: seconds after which a loading process or another
    rank that gives no sign of life ends the run. deterministic: only operations that repeat themselves bit for bit, or
    an error (stec.training.deterministic).

    UsageError if the device is not there, or cannot do what is asked.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        precision: str = "auto",
        channels_last: bool | None = None,
        compile: bool = False,
        num_workers: int | None = None,
        micro_batch: int | None = None,
        patience: float = 600.0,
        deterministic: bool = False,
    ):
        self.device = _device(device)
        cuda = self.device.type == "cuda"
        if precision not in ("auto", *PRECISIONS):
            raise UsageError(
                f"hardware.precision={precision!r} is unknown: choose one of auto, {', '.join(PRECISIONS)}."
            )
        if precision == "fp16" and not cuda:
            raise UsageError("hardware.precision=fp16 needs a GPU: on this CPU choose bf16 or fp32.")
        self.precision = ("bf16" if _computes_bf16(self.device) else "fp32") if precision == "auto" else precision
        self.channels_last = True if channels_last is None else channels_last
        self.compile = compile
        if num_workers is not None and num_workers < 0:
            raise UsageError(f"hardware.num_workers={num_workers} must be 0 or more, or null.")
        self.num_workers = _workers(cuda) if num_workers is None else num_workers
        if micro_batch is not None and micro_batch < 1:
            raise UsageError(f"hardware.micro_batch={micro_batch} must be at least 1, or null.")
        self.micro_batch = micro_batch
        if not 0 < patience < 1e6:
            raise UsageError(f"hardware.patience={patience:g} must be above 0, in seconds, and below a million.")
        self.patience = patience
        self.deterministic = deterministic

    def autocast(self) -> AbstractContextManager[None]:
        """A fresh context for one forward pass: autocast's cached weights must not outlive it."""
        return torch.autocast(self.device.type, PRECISIONS[self.precision], enabled=self.precision != "fp32")

    def describe(self, encoder: nn.Module | None = None) -> str:
        """In words; of a known encoder, the memory format is told only if it has weights that take it."""
        square = encoder is None or any(p.dim() == 4 for p in encoder.parameters())
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else f"{cores()} cores"
        processes = "1 loading process" if self.num_workers == 1 else f"{self.num_workers} loading processes"
        parts = [f"{self.device} ({name})", self.precision, processes]
        parts += ["channels_last"] * (self.channels_last and square) + ["encoder compiled"] * self.compile
        parts += ["deterministic"] * self.deterministic
        return ", ".join(parts + [f"micro-batches of {self.micro_batch}"] * (self.micro_batch is not None))


def _device(asked: str) -> torch.device:
    local = told("LOCAL_RANK", 0)
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise UsageError(f"hardware.device={asked!r} is unknown: choose auto, cpu, cuda or cuda:N.") from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise UsageError(f"hardware.device={asked!r} is not supported: choose auto, cpu, cuda or cuda:N.")
    found, wanted = torch.cuda.device_count(), local if device.index is None else device.index
    if wanted >= found:
        raise UsageError(f"hardware.device={asked} asks for GPU number {wanted}, but this machine shows {found} GPUs.")
    return torch.device("cuda", wanted)


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # before it, bf16 is emulated
    able = torch.cpu.get_capabilities()
    # Measured on ResNets: with avx512_bf16 alone, 2.4 times float32's speed on an AMD Zen 5, but 0.7 to 0.9 on an Intel
    # Xeon without AMX. Decided by name, not by a stopwatch: a run that goes on must find the same answer.
    intel = "intel" in str(able.get("cpu_name", "")).lower()
    return bool(able.get("amx_bf16") or (able.get("avx512_bf16") and not intel))


def _workers(cuda: bool) -> int:
    # The CPU that also trains keeps most of its cores for that; a GPU wants to be fed by what there is.
    if cuda:
        return min(8, cores())
    return 0 if cores() == 1 else max(1, cores() // 4)
