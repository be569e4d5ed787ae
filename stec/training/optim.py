"""Optimisers by name. The keyword-only parameters are the keys of recipes/optimizer/NAME.yaml.

Two groups of parameters. Biases, gains of norms, everything else with one dimension, and what an encoder names (the
positions of a transformer) get neither weight decay nor LARS's adaptation: plain SGD at the full rate, as in the
paper's code and SimCLR's. The online probe is never adapted either: under LARS its weight joins that group (the paper's
code also decays it by 1e-6; here it does not).

What a term names in `constant_rate` learns at the peak rate from the first step to the last, in groups behind those.

The rates are stated for a batch of 256; `scale` says how the peak follows the global batch size.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from stec.encoder import Encoder
from stec.errors import UsageError
from stec.objective import Term

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
    return _stamp(model, torch.optim.SGD(groups, lr=peak, momentum=momentum, nesterov=nesterov), lr, scale)


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
    return _stamp(model, torch.optim.AdamW(groups, lr=peak, betas=(beta1, beta2)), lr, scale)


def lars(
    model: nn.Module,
    batch_size: int,
    *,
    lr: float,
    scale: str = "linear",
    weight_decay: float = 1e-6,
    momentum: float = 0.9,
    trust: float = 1e-3,
    clip: bool = False,
) -> Optimizer:
    """timm's LARS: (g + wd p) * trust |p| / (|g| + wd |p| + eps) goes into the momentum buffer, the rate outside it.

    clip: that local rate, times the rate outside, is at most the latter: min(local / lr, 1) in its place (LARC, as
    solo-learn with trust .02), so that a weight moves by min(local, lr) (g + wd p).
    """
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
    return _stamp(model, Lars(groups, lr=peak, momentum=momentum, trust_coeff=trust, trust_clip=clip), lr, scale)


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {"sgd": sgd, "adamw": adamw, "lars": lars}


def describe(optimizer: Optimizer) -> str:
    """Both numbers: the rate as stated and the peak it becomes, and how many parameters are not decayed."""
    decayed, plain, *steady = optimizer.param_groups
    numbers = [sum(p.numel() for g in some for p in g["params"]) for some in ([decayed], [plain], steady)]
    constant = f"; {numbers[2]:,} more learn at the peak rate all the time" if steady else ""
    stated = "" if decayed["scale"] == "none" else f" at batch 256 ({decayed['scale']})"
    return (
        f"{type(optimizer).__name__}, lr {decayed['stated_lr']:g}{stated} -> "
        f"peak {decayed['peak_lr']:g}; weight decay {decayed['weight_decay']:g} on {numbers[0]:,} parameters, "
        f"none on {numbers[1]:,} (biases, norms){constant}"
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
    encoders = [module for module in model.modules() if isinstance(module, Encoder)]
    named = {encoder.get_parameter(name) for encoder in encoders for name in encoder.undecayed}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            spared = p.ndim <= 1 or name.endswith(".bias") or name.startswith(exempt) or p in named
            (plain if spared else decayed).append(p)
    return decayed, plain


def _stamp(model: nn.Module, optimizer: Optimizer, stated: float, scale: str) -> Optimizer:
    _set_apart(model, optimizer)
    stamp: dict[str, Any] = {"stated_lr": stated, "scale": scale}
    for group in optimizer.param_groups:
        group |= {"peak_lr": group["lr"], **stamp}
    return optimizer


def _set_apart(model: nn.Module, optimizer: Optimizer) -> None:
    """What a term wants to learn at a constant rate gets groups of its own, behind the two."""
    terms = [module for module in model.modules() if isinstance(module, Term)]
    steady = {p for term in terms for part in term.constant_rate for p in term.get_submodule(part).parameters()}
    for group in list(optimizer.param_groups):
        apart = [p for p in group["params"] if p in steady]
        group["params"] = [p for p in group["params"] if p not in steady]
        if apart:
            optimizer.add_param_group({**group, "params": apart, "constant": True})
