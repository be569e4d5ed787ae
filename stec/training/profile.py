"""`profile=true`: a few steps of a run are looked into; what limits it is told once, and a trace is left to look at."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec, Protocol, TypeVar

from torch import profiler
from torch.autograd import DeviceType

from stec.errors import StecError
from stec.training.limits import Account, augment_of, verdict
from stec.training.making import Making
from stec.training.options import Hardware
from stec.training.phases import Phases
from stec.training.run import Run
from stec.views import Batch

# Steps before those that are looked at (buffers are found, kernels chosen), and how many these are, at most.
WARM, STEPS = 10, 10
TRACE = "trace.json"

P = ParamSpec("P")
T = TypeVar("T")


class Unprofiled:
    """A run that nobody looks into: its functions and its batches stay what they are."""

    def around(self, function: Callable[P, T], name: str, then: str) -> Callable[P, T]:  # noqa: ARG002
        """The function, its calls told apart as the phase `name`, what comes after them as the phase `then`."""
        return function

    def steps(self, batches: Iterable[Batch], left: int, restart: Callable[[], None]) -> Iterable[Batch]:  # noqa: ARG002
        """The same batches, in each epoch. left: how many there will be to the end of the run; restart: the clock of
        the progress line, after whatever is no part of a step."""
        return batches


class Profile(Unprofiled):
    """Steps 11 to 20 after the start of a run, fewer of a short one, told by phases (of this rank, the first).

    make: makes a few batches in this process and times their parts; None if batches come from memory.
    """

    def __init__(self, run: Run, hardware: Hardware, make: Callable[[], Making] | None):
        self.run, self.hardware, self.make = run, hardware, make
        self.phases = Phases(hardware.device)
        self.seen, self.first, self.last = 0, WARM, WARM + STEPS
        self.samples = 0
        self._trace: profiler.profile | None = None

    def around(self, function: Callable[P, T], name: str, then: str) -> Callable[P, T]:
        return self.phases.around(function, name, then)

    def steps(self, batches: Iterable[Batch], left: int, restart: Callable[[], None]) -> Iterator[Batch]:
        if not self.seen:
            self._choose(left)
        iterator = iter(batches)
        try:
            while True:
                if self._between():
                    restart()
                self.phases.begin("wait")
                batch = next(iterator, None)
                self.phases.begin("other")
                if batch is None:
                    return
                self.samples = len(batch.keys)
                self.seen += 1
                yield batch
        except BaseException:  # the run is left amid the steps that are looked at
            self._stop()
            raise

    def _choose(self, left: int) -> None:
        """Which steps: not the last one of the run, after which nobody asks for another batch."""
        self.first = min(WARM, max(0, left - 1) // 2)
        self.last = min(self.first + STEPS, left - 1)
        if self.last <= self.first:
            self.run.say("profile=true: nothing is left of this run that could be looked into")

    def _between(self) -> bool:
        """Before a batch is asked for: begin looking, or end it and tell what was seen; False if there is neither."""
        if self.seen == self.first < self.last and self._trace is None:
            kinds = [profiler.ProfilerActivity.CPU]
            kinds += [profiler.ProfilerActivity.CUDA] * (self.hardware.device.type == "cuda")
            self._trace = profiler.profile(activities=kinds, acc_events=True)  # or it warns
            self._trace.start()
            self.phases.on = True
            return True
        if self.seen == self.last and self.phases.on:
            seconds = self.phases.seconds()
            trace = self._stop()
            self._tell(seconds, trace)
            return True
        return False

    def _stop(self) -> profiler.profile | None:
        trace, running = self._trace, self.phases.on
        self.phases.stop()
        if trace is not None and running:
            trace.stop()
        return trace

    def _tell(self, seconds: dict[str, float], trace: profiler.profile | None) -> None:
        num, cuda = self.last - self.first, self.hardware.device.type == "cuda"
        spent = sum(seconds.values())
        moving = spent - seconds["wait"]
        busy = min(1.0, computed(trace.events()) / max(moving, 1e-9)) if trace is not None and cuda else None
        per_step = {name: total / num for name, total in seconds.items()}
        account = Account(per_step, self.samples, self._made(), busy)
        begun = self.run.step - num
        for line in [
            f"profile: steps {begun + 1} to {begun + num}, {1000 * account.step:,.1f} ms each, {self.samples} samples"
            f" (of this process) in each: {account.rate:,.0f} samples/s while being looked at",
            *account.table(),
            *([] if account.making is None else [f"  {account.making}"]),
            verdict(account, self.hardware, augment_of(self.run.config)),
            self._written(trace),
        ]:
            self.run.say(line)

    def _made(self) -> Making | None:
        try:
            return None if self.make is None else self.make()
        except StecError as error:  # a damaged sample is the loader's to report
            self.run.say(f"the parts of a batch could not be timed: {error}")
            return None

    def _written(self, trace: profiler.profile | None) -> str:
        path = self.run.directory / TRACE
        try:
            assert trace is not None
            trace.export_chrome_trace(str(path))
        except (OSError, RuntimeError) as error:
            return f"{path} could not be written: {error}"
        return f"trace: {path}, to be opened at https://ui.perfetto.dev"


class Event(Protocol):
    """What is read of an event of torch's profiler; times in microseconds."""

    device_type: Any
    time_range: Any


def computed(events: Iterable[Event]) -> float:
    """Seconds in which anything ran on the GPU: kernels may run side by side, and the ranges that carry our names of
    phases span gaps, so these are left out and the rest is joined."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    )
    busy, until = 0.0, float("-inf")
    for begun, ended in spans:
        busy += max(0.0, ended - max(begun, until))
        until = max(until, ended)
    return busy / 1e6
