"""The training loop itself (stec.training.loop), run for a while and watched: how long its steps take."""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch

from stec.objective import STEC
from stec.training import optim
from stec.training.loop import train
from stec.training.options import Hardware, Training
from stec.training.run import Run
from stec.views import Batch, Views

LR = 0.01
LOGGED = 10
"""Of so many steps one is logged, as in every run: a block has a multiple of them."""
Step = Callable[[], object]


class Task(NamedTuple):
    """A model and a batch [b] for it, on the device or not; complete: the batch's views; bare(hardware): a step of
    plain torch that teaches a copy of the model, its manipulation model left out."""

    stec: STEC
    batch: Batch
    complete: Callable[[Batch], Views]
    bare: Callable[[Hardware], Step]


class Watched:
    """A source of batches for the loop, which takes the time, in blocks: `block` steps of the loop on each of `sources`
    and of each of `others`, one way after the other; the other way round in every second round. The first round warms
    up. seconds: {name: seconds per step, one number for each round}.

    ahead: {source: batches that its processes make while it is not its turn}. These are thrown away, and half as many
    steps are of no block: by then batches are there no sooner than they are made. clock: read once a block.
    """

    replaced = 0

    def __init__(
        self,
        sources: Mapping[str, Iterator[Batch]],
        others: Mapping[str, Step],
        rounds: int,
        block: int,
        ahead: Mapping[str, int],
        clock: Callable[[], float],
    ):
        self._sources, self._others, self._rounds, self._block = sources, others, rounds, block
        self._ahead, self._clock = ahead, clock
        before = sum(ahead.get(name, 0) // 2 for name in sources)
        # After the last step the loop writes a checkpoint: this step is of no round.
        self.steps_per_epoch = (rounds + 1) * (block * len(sources) + before) + 1
        self.seconds: dict[str, list[float]] = {name: [] for name in (*sources, *others)}

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:  # noqa: ARG002
        names = list(self.seconds)
        for number in range(self._rounds + 1):
            for name in names if number % 2 else reversed(names):
                piled = self._ahead.get(name, 0)
                for _ in range(piled):
                    next(self._sources[name])
                for _ in range(piled // 2):
                    yield next(self._sources[name])
                begun = self._clock()
                for _ in range(self._block):
                    if name in self._sources:
                        yield next(self._sources[name])
                    else:
                        self._others[name]()
                if number:
                    self.seconds[name].append((self._clock() - begun) / self._block)
        yield next(self._sources[next(iter(self._sources))])


def now(device: torch.device) -> float:
    """Seconds: of this process's work on a CPU, of the clock on the wall once the GPU is done with what it was told."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def watched(
    task: Task,
    hardware: Hardware,
    rounds: int,
    block: int,
    sources: Mapping[str, Iterator[Batch]],
    others: Mapping[str, Step] | None = None,
    ahead: Mapping[str, int] | None = None,
    clock: Callable[[], float] | None = None,
) -> dict[str, list[float]]:
    """{name: seconds per step} of the loop itself (stec.training.loop) on these batches, and of the other steps; with a
    directory to write in, and what it says not shown."""
    source = Watched(sources, others or {}, rounds, block, ahead or {}, clock or partial(now, hardware.device))
    options = Training(epochs=1, warmup_epochs=0, log_every=LOGGED, checkpoint_every=10**9)
    optimizer = optim.sgd(task.stec, 256, lr=LR)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), Run(folder) as run:
        train(task.stec, source, task.complete, optimizer, options, hardware, run)
    return source.seconds
