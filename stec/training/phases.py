"""Where the time of a step goes: it is always in one phase, and each phase begins where the one before ends."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import ParamSpec, TypeVar

import torch
from torch.profiler import record_function

P = ParamSpec("P")
T = TypeVar("T")

PHASES = {
    "wait": "for the loader",
    "transfer": "of the batch to the device",
    "augment": "the actions left to the device, and the copies",
    "forward": "encoder and losses",
    "backward": "",
    "optimiser": "",
    "other": "log lines, checkpoints, evaluations, teachers",
}
"""The phases of a step in their order, and what is in them."""


class Phases:
    """Marks the beginnings of phases on the clock that the work itself follows.

    On a CPU that is the clock of the process. A GPU runs behind the program that feeds it, whose clock says nothing of
    it: there, marks are events in its stream, so that a phase lasts until its last kernel is done, and includes the
    time in which the stream stood still for want of work.
    """

    def __init__(self, device: torch.device):
        self.device, self.on = device, False
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []
        self._range: record_function | None = None

    def begin(self, name: str) -> None:
        """From here on it is this phase, also in the trace of a profiler; nothing happens unless it is `on`."""
        if not self.on:
            return
        self._leave()
        self._marks.append((name, self._now()))
        self._range = record_function(name)
        self._range.__enter__()

    def around(self, function: Callable[P, T], name: str, then: str) -> Callable[P, T]:
        """The function, each call of which is the phase `name`; when it has returned, the phase `then` begins."""

        def marked(*args: P.args, **kwargs: P.kwargs) -> T:
            self.begin(name)
            try:
                return function(*args, **kwargs)
            finally:
                self.begin(then)

        return marked

    def seconds(self) -> dict[str, float]:
        """Seconds in each phase, up to now; the marks are gone after it. Waits for the device."""
        self._leave()
        marks, self._marks = [*self._marks, ("", self._now())], []
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        found = dict.fromkeys(PHASES, 0.0)
        for (name, begun), (_, ended) in pairwise(marks):
            found[name] += _between(begun, ended)
        return found

    def stop(self) -> None:
        """Mark nothing from here on."""
        self._leave()
        self.on = False

    def _leave(self) -> None:
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None

    def _now(self) -> float | torch.cuda.Event:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


def _between(begun: float | torch.cuda.Event, ended: float | torch.cuda.Event) -> float:
    if isinstance(begun, torch.cuda.Event):
        assert isinstance(ended, torch.cuda.Event)
        return float(begun.elapsed_time(ended)) / 1000
    assert not isinstance(ended, torch.cuda.Event)
    return ended - begun
