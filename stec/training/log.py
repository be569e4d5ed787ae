"""What a run shows: lines or a bar of progress, messages, and the clock behind them."""

import io
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

Item = TypeVar("Item")

# Without a terminal, progress lines come no closer together than this (s).
_PATIENCE = 5.0


class Timing(NamedTuple):
    """samples/s over all ranks; data_wait: share of the time in which the loop stood waiting for a batch; eta in s."""

    rate: float
    data_wait: float
    eta: float

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.eta), 60)
        left = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        return f"{self.rate:,.0f} samples/s, data wait {self.data_wait:.0%}, ETA {left}"


class Clock:
    """Times the loop between two readings. Monotonic: a changed wall clock does not disturb it."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.begun, self.waited, self.steps = time.perf_counter(), 0.0, 0

    def waits(self, batches: Iterable[Item]) -> Iterator[Item]:
        """The same batches; the time until each arrives is counted as waiting."""
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self.waited += time.perf_counter() - asked
            self.steps += 1
            yield batch

    def read(self, batch_size: int, steps_left: int) -> Timing | None:
        """Since the last reading; None if no step was made."""
        passed, steps, waited = time.perf_counter() - self.begun, self.steps, self.waited
        self.restart()
        if not steps:
            return None
        return Timing(batch_size * steps / max(passed, 1e-9), waited / max(passed, 1e-9), steps_left * passed / steps)


class Display:
    """The progress bar on a terminal, plain lines elsewhere; messages of the logger "stec" are printed around it."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(soft_wrap=True, highlight=False, markup=False)
        self.bar: Progress | None = None
        self.shown = -math.inf

    def start(self, step: int, total: int) -> None:
        if self.console.is_terminal:
            # The last column may be broken into lines: a narrow terminal shows all of it, too.
            text = TextColumn("{task.description}", table_column=Column(overflow="fold"))
            columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=16), text)
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.task = self.bar.add_task("", total=total, completed=step)
            self.bar.start()

    def advance(self, step: int) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=step)

    def line(self, text: str, last: bool) -> bool:
        """Show a line of progress; False if it was held back, to keep plain lines some seconds apart."""
        if self.bar is not None:
            self.bar.update(self.task, description=text.partition("  ")[2])  # the step is there already
        now = time.monotonic()
        if not last and now - self.shown < _PATIENCE:
            return False
        self.shown = now
        if self.bar is None:
            self.say(text)
        return True

    def say(self, text: str) -> None:
        """Print around the bar. If what stdout leads to is full, nothing more is shown: train.log has it as well."""
        try:
            self.console.print(text)
        except BrokenPipeError:
            raise
        except OSError:
            self.console.file = io.StringIO()  # the console would try again, with all that came together since
            self.console.quiet = True

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class ToDisplay(logging.Handler):
    """Messages of the logger, printed without disturbing the progress bar."""

    def __init__(self, display: Display):
        super().__init__(logging.INFO)
        self.display = display

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        self.display.say(level + record.getMessage())


def sentence(step: int, total: int, epoch: float, values: Mapping[str, float], timing: Timing | None) -> str:
    """One line of progress: where we are, the losses and the timing."""
    shown = {"loss": "train/loss", "id": "train/loss_id", "manip": "train/loss_manip", "top1": "probe/online/top1"}
    numbers = [f"{short} {values[name]:.3f}" for short, name in shown.items() if name in values]
    where = f"step {step}/{total}  epoch {epoch:.2f}"
    return "  ".join([where, *numbers, *([] if timing is None else [f"| {timing}"])])
