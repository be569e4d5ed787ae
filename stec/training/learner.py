"""Everything that changes while a run learns, and how it goes into a checkpoint and comes back."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from stec.errors import NonFinite, UsageError
from stec.objective import STEC
from stec.training import checkpoint
from stec.training.checkpoint import State
from stec.training.collapse import Watch
from stec.training.meter import Meter


class Learner(NamedTuple):
    """The model, what steps it, its averaged encoder, the metrics since the last log line, the watch for collapse."""

    stec: STEC
    optimizer: Optimizer
    scaler: GradScaler
    ema: AveragedModel | None
    meter: Meter
    watch: Watch


def snapshot(learner: Learner, step: int, spec: Mapping[str, Any], data: Mapping[str, Any]) -> State:
    """The state after `step` steps. NonFinite if a loss or a weight is not a finite number: that is not worth keeping.

    All ranks must ask. spec: plain description of the model; data: what it learns from (fingerprint, shards,
    batch size, seed).
    """
    stec, optimizer, scaler, ema, meter, watch = learner
    meter.check(step)
    for name, p in stec.named_parameters():
        if not torch.isfinite(p).all():
            raise NonFinite(f"the weight {name} is not finite any more at step {step}")
    return {
        "spec": dict(spec),
        "step": step,
        "model": stec.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "ema": None if ema is None else ema.module.state_dict(),
        "data": dict(data),
        "log": {"meter": meter.state_dict(), "watch": watch.state_dict()},
    }


def restore(learner: Learner, state: State | None, data: Mapping[str, Any]) -> int:
    """Take up a state (None: begin at 0) in place; returns the number of steps done.

    UsageError if it belongs to other data or another model.
    """
    if state is None:
        return 0
    stec, optimizer, scaler, ema, meter, watch = learner
    if changed := _changes(state["data"], data):
        raise UsageError(f"the checkpoint was trained on other data ({'; '.join(changed)}): choose another run_dir.")
    step = int(state["step"])
    checkpoint.fill(stec, state["model"], "the checkpoint's model")
    try:
        optimizer.load_state_dict(state["optimizer"])
    except ValueError as error:
        raise UsageError(f"the checkpoint's optimiser does not fit this one: {error}.") from error
    scaler.load_state_dict(state["scaler"])
    if ema is not None:
        if state["ema"] is None:
            raise UsageError("training.ema is set, but the checkpoint holds no averaged encoder.")
        checkpoint.fill(ema.module, state["ema"], "the checkpoint's averaged encoder")
        ema.n_averaged.fill_(step)
    meter.load_state_dict(state["log"]["meter"])
    watch.load_state_dict(state["log"]["watch"])
    return step


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How the data are others, in words: the shards by name, if the checkpoint knows them (older ones do not)."""
    changed = [f"{k}: {before.get(k)} -> {v}" for k, v in now.items() if k != "shards" and before.get(k) != v]
    old, new = before.get("shards", {}), now.get("shards", {})
    shards = [f"{name} is {'another' if name in new else 'missing'}" for name in old if new.get(name) != old[name]]
    shards += [f"{name} is new" for name in new if name not in old]
    if not old or not shards:
        return changed
    more = f" and {len(shards) - 3} more" if len(shards) > 3 else ""
    return [", ".join(shards[:3]) + more, *(text for text in changed if not text.startswith("fingerprint: "))]
