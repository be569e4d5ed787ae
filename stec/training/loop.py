"""The only loop. One batch: wait for it, move it, perform its actions, encode and score it, step, tell.

Legend: a step is one optimiser step on one global batch.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from signal import Signals
from typing import Any, Protocol

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stec.distributed import all_reduce_sums, world_size
from stec.errors import Interrupted, NonFinite
from stec.objective import STEC
from stec.training import prepare, schedule
from stec.training.collapse import Watch
from stec.training.gradcache import batch_norms, difference
from stec.training.learner import Learner, restore, snapshot
from stec.training.log import Clock
from stec.training.meter import Meter
from stec.training.options import Hardware, Training
from stec.training.profile import Profile, Unprofiled
from stec.training.run import Run
from stec.views import Batch, Views


class Batches(Protocol):
    """Where batches come from: this rank's parts of the global batches first, first + 1, ... of an epoch."""

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def replaced(self) -> int: ...

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]: ...


def train(
    stec: STEC,
    stream: Batches,
    complete: Callable[[Batch], Views],
    optimizer: Optimizer,
    options: Training,
    hardware: Hardware,
    run: Run,
    evaluate: Callable[[int], Mapping[str, float] | None] | None = None,
    *,
    spec: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    profile: Profile | None = None,
) -> None:
    """Train `stec` in place, from where `run` left off to the end.

    complete(batch on the device) -> the views to be encoded. evaluate(step) -> {metric: value}, every
    options.eval_every epochs and at the end, on all ranks. spec, data: what a checkpoint says of the model and of the
    data ({"fingerprint", "shards", "batch_size", "seed"}); on resume the data must be the same. profile: looks into
    some steps.
    NonFinite, Interrupted (with a checkpoint of the last step), UsageError (see prepare, learner, run).
    """
    spec, data = spec or {}, data or {}
    seed, device = int(data.get("seed", 0)), hardware.device
    per_epoch = stream.steps_per_epoch
    total = options.epochs * per_epoch
    end = min(total, options.stop_after or total)
    prepare.place(stec, hardware)
    ema = AveragedModel(stec.encoder, multi_avg_fn=get_ema_multi_avg_fn(options.ema)) if options.ema else None
    scaler = GradScaler(device.type, enabled=hardware.precision == "fp16")
    learner = Learner(stec, optimizer, scaler, ema, Meter(device), Watch())
    step = restore(learner, run.restore(options.keep), data)
    run.verdict = learner.watch.verdict
    look = profile or Unprofiled()  # without a profile, `around` gives the function back
    scale = look.around(scaler.scale, "forward", then="backward")
    backward = look.around(prepare.gradient_of(stec, options, hardware, scale), "forward", then="optimiser")
    move = look.around(partial(Batch.to, device=device), "transfer", then="augment")
    add = look.around(learner.meter.add, "other", then="other")
    for line in prepare.announcement(stec, optimizer, options, hardware, per_epoch, data.get("batch_size")):
        run.say(line)
    run.say(f"starting at step {step} of {total}")
    if end <= step < total:
        return
    run.start(total)
    stec.train()
    clock, rate, local = Clock(), 0.0, 0
    try:
        for epoch in range(step // per_epoch, options.epochs):
            batches = clock.waits(stream.batches(epoch, step % per_epoch))
            for batch in look.steps(batches, end - step, clock.restart):
                local = len(batch.keys)
                logs = step == 0 or (step + 1) % options.log_every == 0 or step + 1 == total
                rate = schedule.set_rate(optimizer, schedule.factor(step, options.warmup_epochs * per_epoch, total))
                prepare.seed_step(seed, step, device)
                stec.before_step(step, total)

                views = prepare.contiguous(complete(move(batch)), hardware)
                if step == 0 and batch_norms(stec.encoder) and prepare.is_cut(views.x[0], hardware):
                    run.say(prepare.measured(difference(stec, views, hardware, hardware.micro_batch or local)))
                out = backward(views, logs)  # encode and score; the gradient is left in the parameters
                if options.clip_grad is not None:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(prepare.felt(stec), options.clip_grad)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                if ema is not None:
                    ema.update_parameters(stec.encoder)

                add(out.sums, out.loss)
                step += 1
                run.advance(step)
                if logs:
                    values = learner.meter.read(step) | {"train/lr": rate}
                    timing = clock.read(local * world_size(), total - step)
                    run.record(step / per_epoch, values, total, timing)
                    if verdict := learner.watch.look(step, values["train/z_std"], values["train/rankme"]):
                        run.warn(verdict)
                if evaluate is not None and step < total and _due(step, options.eval_every * per_epoch):
                    run.record(step / per_epoch, evaluate(step) or {})
                    stec.train()
                    clock.restart()
                signal = run.asked_to_stop(device)
                leaves = bool(signal) or step == end
                if leaves or step % options.checkpoint_every == 0:
                    run.save(snapshot(learner, step, spec, data), options.keep, must=leaves)
                if signal:
                    name = Signals(signal).name
                    raise Interrupted(f"{name}: left after step {step} of {total}; the same command goes on.", signal)
                if step == end < total:
                    return
    except NonFinite as error:
        advice = "try a lower optimizer.lr, or hardware.precision=fp32"
        raise NonFinite(f"{error} (learning rate {rate:g}); {run.last_checkpoint()}: {advice}.") from error
    except torch.OutOfMemoryError as error:
        raise prepare.out_of_memory(hardware, local) from error
    finally:
        run.stop()
    own = torch.tensor(float(stream.replaced), device=device)  # there, since NCCL knows nothing of the CPU
    replaced = int(all_reduce_sums({"replaced": (own, torch.ones_like(own))})["replaced"][0])
    if replaced and run.main:
        run.log.warning("%d damaged samples were replaced", replaced)
    # The last checkpoint is on disk: whatever goes wrong from here on, the same command begins here.
    measured = None if evaluate is None else evaluate(total)
    if not run.finished:
        run.finish(options.epochs, measured or {})


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
