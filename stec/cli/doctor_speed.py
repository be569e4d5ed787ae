"""`stec-doctor speed`: how fast disk, loader and training step of a recipe are on this machine, each for itself."""

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from stec import build
from stec.build import Model
from stec.cli import recipes, rows
from stec.data import open_data
from stec.errors import UsageError
from stec.experiment import Experiment, fitting
from stec.loading import Stream
from stec.samples import make_batch
from stec.shards.fetching import address
from stec.shards.reader import Shards, find_split
from stec.training import prepare
from stec.training.limits import Account, Augment, augment_of, verdict
from stec.training.making import time_making
from stec.training.meter import Meter
from stec.training.options import Hardware
from stec.training.phases import Phases
from stec.views import Batch, make_views

# Seconds for each of the four parts, beginnings not counted.
_EACH = 3.0
# A step that would take longer than this (s) is measured on fewer samples.
_LONG = 2.0
# Recipes for data of one's own begin so; which one is meant is told by the files that their decoders read.
_OWN = "my_"
# Files of a folder that are looked at to find that out.
_LOOK_AT = 1000
_CHUNK = 2**22


def speed(words: Sequence[str]) -> Iterator[str]:
    """The table, row by row, and the sentence below it; a folder is packed first. words: as for stec-train, and so are
    UsageError and DataError; recipe=NAME may be left out."""
    named = any(word.startswith("recipe=") for word in words)
    config = rows.composed(words if named else [f"recipe={own(words)}", *words])
    experiment = Experiment(config)
    settings, dataset, hardware = experiment.settings, experiment.dataset, experiment.hardware
    if settings.data and address(settings.data):
        raise UsageError(f"data={settings.data}: a disk is measured here: shards, or a folder, on one were expected.")
    splits = open_data(dataset, settings.data, experiment.packer, experiment.packer.described())
    shards, num_views = splits.train, settings.num_views
    batch_size = fitting(settings.batch_size, shards.num_samples)
    torch.manual_seed(settings.seed)
    model = build.model(experiment.describe(splits))
    parts = (shards, model.decoder, model.space)
    size = shards.num_bytes / shards.num_samples
    yield f"{settings.name}: {shards.num_samples:,} samples of {size / 1e3:,.1f} kB ({shards.folder})"
    yield f"{hardware.describe(model.encoder)}; batches of {batch_size}"

    read = disk(shards) / size
    yield _row("disk", read, f"{read * size / 1e6:,.0f} MB/s")
    making = time_making(*parts, num_views=num_views, batch_size=batch_size, least=_EACH)
    once = "; once, before the first step" if dataset.resident else ""
    yield _row("one core", making.rate, f"{making.shares}{once}")
    loader = making.rate
    if hardware.num_workers and not dataset.resident:
        served: dict[str, Any] = {"window": dataset.window, "max_bad": dataset.max_bad}
        served |= {"num_workers": hardware.num_workers, "num_views": num_views}
        stream = Stream(*parts, batch_size=batch_size, **served)
        yield _row("loader", delivered(stream), f"hardware.num_workers={hardware.num_workers}")
    some = range(min(batch_size, max(2, round(making.rate * _EACH))))
    batch, _ = make_batch(*parts, num_views, settings.seed, 0, some)
    step = stepped(Steps(experiment, model, batch_size), batch, batch_size)
    shares = [f"{name} {step.share(name):.0%}" for name in step.phases if step.share(name) >= 0.005]
    yield _row("step", step.rate, f"{', '.join(shares)}; {step.samples} samples at once")
    yield conclusion(
        step._replace(making=None if dataset.resident else making), read, loader, hardware, augment_of(config)
    )


def _row(name: str, rate: float, what: str) -> str:
    return f"  {name:10}{rate:12,.0f} samples/s   {what}"


def conclusion(step: Account, read: float, loader: float, hardware: Hardware, augment: Augment) -> str:
    """The sentence below the table. step: of samples that were there already, without a wait; read, loader: samples/s
    from the disk and as they are delivered, of no account for samples that come from memory."""
    if step.making is None:
        return verdict(step, hardware, augment)
    if read < min(loader, step.rate):
        return (
            f"the disk limits: it reads {read:,.0f} samples/s, the step could take {step.rate:,.0f}: copy the shards to"
            " a nearer one, pack smaller samples, or set dataset.resident=true if they fit into memory."
        )
    # Loading processes make the next batches during the step; without them one comes after the other.
    meanwhile = step.step if hardware.num_workers else 0.0
    waits = max(0.0, step.samples / loader - meanwhile)
    return verdict(step._replace(phases=step.phases | {"wait": waits}), hardware, augment)


def own(words: Sequence[str]) -> str:
    """The recipe for data of one's own whose decoder reads what is at data=PATH; UsageError if there is none."""
    given = next((word.removeprefix("data=") for word in words if word.startswith("data=")), "")
    path = Path(given).expanduser()
    if not given or not path.exists():
        raise UsageError(f"data={given}: there is no such file or folder." if given else "data=PATH is needed.")
    shards = find_split(path, "train") if path.is_dir() else None
    files = [path] if path.is_file() else islice(path.rglob("*"), _LOOK_AT)
    found = {file.suffix.lower().lstrip(".") for file in files} if shards is None else set(shards.fields)
    known = [name for name in recipes.listing() if name.startswith(_OWN)]
    for name in known:
        parts = build.plan(Experiment(rows.composed([f"recipe={name}", f"data={given}"])).spec)
        if found & set(parts.decoder(build.space(parts)).extensions):
            return name
    seen = ", ".join(sorted(found - {""})[:5]) or "nothing"
    raise UsageError(f"recipe=NAME is needed: none of {', '.join(known)} reads what is at {given} ({seen}).")


def disk(shards: Shards) -> float:
    """Bytes a second, in the order of the files; the system is asked to forget what it holds of them in memory, which
    it need not do."""
    read, begun = 0, time.perf_counter()
    for name in shards.shard_names:
        with open(Path(shards.folder, name), "rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):  # not on macOS
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while time.perf_counter() - begun < _EACH and (some := len(file.read(_CHUNK))):
                read += some
    return read / max(time.perf_counter() - begun, 1e-9)


def delivered(stream: Stream) -> float:
    """Samples a second that a stream delivers to somebody who does nothing else, its first batch not counted."""
    samples, begun, epoch = 0, None, 0
    while True:
        for batch in stream.batches(epoch):
            if begun is None:
                begun = time.perf_counter()
                continue
            samples += len(batch.keys)
            if time.perf_counter() - begun > _EACH:
                return samples / (time.perf_counter() - begun)
        epoch += 1


class Steps:
    """Training steps of an experiment, without a run: nothing is kept of what they learn.

    What the loop (stec.training.loop) does beyond them is left out, for it takes little time beside forward and
    backward: the learning rate's schedule, seeding, clipping, the averaged encoder, log lines and checkpoints.
    """

    def __init__(self, experiment: Experiment, model: Model, batch_size: int):
        stec, hardware = model.stec, experiment.hardware
        assert stec is not None
        prepare.place(stec, hardware)
        self.stec, self.hardware, self.done = stec, hardware, 0
        self.phases, self.meter = Phases(hardware.device), Meter(hardware.device)
        self.optimizer = experiment.optimizer(stec, batch_size)
        self.scaler = GradScaler(hardware.device.type, enabled=hardware.precision == "fp16")
        scale = self.phases.around(self.scaler.scale, "forward", then="backward")
        self.backward = prepare.gradient_of(stec, experiment.training, hardware, scale)
        decoder, space = model.decoder, model.space
        self.complete = partial(
            make_views, space=space, pairs=stec.pairs, performed=decoder.performs, finish=decoder.finish
        )
        stec.train()

    def timed(self, batch: Batch, least: float) -> tuple[dict[str, float], int]:
        """Seconds in each phase, and the number of steps, of at least one, in at least so many seconds."""
        self.phases.on, begun, num = True, time.perf_counter(), 0
        while not num or time.perf_counter() - begun < least:
            self.step(batch)
            num += 1
            if self.hardware.device.type == "cuda":  # the program would run ahead of the clock that ends it
                torch.cuda.synchronize(self.hardware.device)
        return self.phases.seconds(), num

    def step(self, batch: Batch) -> None:
        self.phases.begin("other")
        self.stec.before_step(self.done, 1 + self.done)
        self.phases.begin("transfer")
        moved = batch.to(self.hardware.device)
        self.phases.begin("augment")
        views = prepare.contiguous(self.complete(moved), self.hardware)
        self.phases.begin("forward")
        out = self.backward(views, False)
        self.phases.begin("optimiser")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.phases.begin("other")
        self.meter.add(out.sums, out.loss)
        self.done += 1


def stepped(steps: Steps, batch: Batch, batch_size: int) -> Account:
    """The time of a step on samples that are there already: of so many (over again, if there are too few) as fit into
    memory and into _LONG."""
    size, larger = 0, min(batch_size, 8)
    try:
        while larger > size:
            steps.timed(_rows(batch, larger), 0.0)  # memory is found, kernels are chosen
            seconds, _ = steps.timed(_rows(batch, larger), 0.0)
            size = larger
            if 4 * sum(seconds.values()) < _LONG:
                larger = min(batch_size, 4 * size)
    except torch.OutOfMemoryError as error:
        if not size:
            raise prepare.out_of_memory(steps.hardware, larger) from error
        steps.optimizer.zero_grad()
        steps.phases.seconds()
    seconds, num = steps.timed(_rows(batch, size), _EACH)
    return Account({name: each / num for name, each in seconds.items()}, size, None)


def _rows(batch: Batch, num: int) -> Batch:
    """The first samples of a batch, begun again at its end."""
    which = torch.arange(num) % len(batch.keys)

    def rows(t: Tensor | None) -> Tensor | None:
        return None if t is None else t[which]

    x = tuple(x[which] for x in batch.x)
    return Batch(x, batch.actions[:, which], batch.keys[which], rows(batch.group), rows(batch.labels))
