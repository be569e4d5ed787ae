"""Optimisers by name. The keyword-only parameters are the keys of recipes/optimizer/NAME.yaml.

Two groups of parameters. Biases, gains of norms and everything else with one dimension get neither weight decay nor
LARS's adaptation: plain SGD at the full rate, as in the paper's code and SimCLR's. The online probe is never adapted
either: under LARS its weight joins that group (the paper's code also decays it by 1e-6; here it does not).

The rates are stated for a batch of 256; `scale` says how the peak follows the global batch size.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from stec.errors import UsageError

SCALES: dict[str, Callable[[float], float]] = {"none": lambda _: 1.0, "linear": lambda r: r, "sqrt": math.sqrt}
_PROBES = "probes."


def sgd(
    model: nn.Module,
    batch_size: int,
    *,
    lr: float,
    scale: str = "linear",
    weight_decay: float = 5e-4,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> Optimizer:
    """torch's SGD with momentum."""
    peak = _peak(lr, scale, weight_decay, batch_size)
    _momentum(momentum)
    if nesterov and momentum == 0:
        raise UsageError("optimizer.nesterov=true needs an optimizer.momentum above 0.")
    decayed, plain = _groups(model, exempt=())
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return _stamp(torch.optim.SGD(groups, lr=peak, momentum=momentum, nesterov=nesterov), lr, scale)


def adamw(
    model: nn.Module,
    batch_size: int,
    *,
    lr: float,
    scale: str = "none",
    weight_decay: float = 0.05,
    beta1: float = 0.9,
    beta2: float = 0.999,
) -> Optimizer:
    """torch's AdamW."""
    peak = _peak(lr, scale, weight_decay, batch_size)
    for key, beta in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= beta < 1:
            raise UsageError(f"optimizer.{key}={beta} must be at least 0 and below 1.")
    decayed, plain = _groups(model, exempt=())
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return _stamp(torch.optim.AdamW(groups, lr=peak, betas=(beta1, beta2)), lr, scale)


def lars(
    model: nn.Module,
    batch_size: int,
    *,
    lr: float,
    scale: str = "linear",
    weight_decay: float = 1e-6,
    momentum: float = 0.9,
    trust: float = 1e-3,
) -> Optimizer:
    """timm's LARS: (g + wd p) * trust |p| / (|g| + wd |p| + eps) goes into the momentum buffer, the rate outside it."""
    from timm.optim import Lars  # here, because timm imports torchvision, which other runs need not wait for

    peak = _peak(lr, scale, weight_decay, batch_size)
    _momentum(momentum)
    if not trust > 0:
        raise UsageError(f"optimizer.trust={trust} must be above 0.")
    decayed, plain = _groups(model, exempt=(_PROBES,))
    # timm adapts a group if it is decayed or says always_adapt: said here, so that weight_decay=0 remains LARS.
    groups = [
        {"params": decayed, "weight_decay": weight_decay, "always_adapt": True},
        {"params": plain, "weight_decay": 0.0, "always_adapt": False},
    ]
    return _stamp(Lars(groups, lr=peak, momentum=momentum, trust_coeff=trust), lr, scale)


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {"sgd": sgd, "adamw": adamw, "lars": lars}


def describe(optimizer: Optimizer) -> str:
    """Both numbers: the rate as stated and the peak it becomes, and how many parameters are not decayed."""
    decayed, plain = optimizer.param_groups
    numbers = [sum(p.numel() for p in group["params"]) for group in (decayed, plain)]
    stated = "" if decayed["scale"] == "none" else f" at batch 256 ({decayed['scale']})"
    return (
        f"{type(optimizer).__name__}, lr {decayed['stated_lr']:g}{stated} -> "
        f"peak {decayed['peak_lr']:g}; weight decay {decayed['weight_decay']:g} on {numbers[0]:,} parameters, "
        f"none on {numbers[1]:,} (biases, norms)"
    )


def _peak(lr: float, scale: str, weight_decay: float, batch_size: int) -> float:
    if not (math.isfinite(lr) and lr > 0):
        raise UsageError(f"optimizer.lr={lr} must be a finite number above 0.")
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise UsageError(f"optimizer.weight_decay={weight_decay} must be a finite number, 0 or more.")
    if scale not in SCALES:
        raise UsageError(f"optimizer.scale={scale!r} is unknown: choose one of {', '.join(SCALES)}.")
    return lr * SCALES[scale](batch_size / 256)


def _momentum(momentum: float) -> None:
    if not 0 <= momentum < 1:
        raise UsageError(f"optimizer.momentum={momentum} must be at least 0 and below 1.")


def _groups(model: nn.Module, exempt: tuple[str, ...]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(parameters to decay, the others); those that do not learn are in neither."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            spared = p.ndim <= 1 or name.endswith(".bias") or name.startswith(exempt)
            (plain if spared else decayed).append(p)
    return decayed, plain


def _stamp(optimizer: Optimizer, stated: float, scale: str) -> Optimizer:
    stamp: dict[str, Any] = {"stated_lr": stated, "scale": scale}
    for group in optimizer.param_groups:
        group |= {"peak_lr": group["lr"], **stamp}
    return optimizer
