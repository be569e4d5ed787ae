"""The learning rate over the steps of a run, as a share of its peak."""

import math

from torch.optim import Optimizer


def factor(step: int, warmup: float, total: int) -> float:
    """Share of the peak for the step number `step` (from 0) of `total`: linear from 0 over `warmup` steps, then a
    half cosine to 0 at `total` (paper, training details; the step lengths of its published code: step 0 has rate 0)."""
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) if step < total else 0.0


def set_rate(optimizer: Optimizer, share: float) -> float:
    """Give all groups their share of the peak (those marked "constant" all of it); returns the rate of the first."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * (1.0 if group.get("constant") else share)
    return float(optimizer.param_groups[0]["lr"])
