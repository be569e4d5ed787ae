"""A run and its directory: one process at a time, one configuration, checkpoints to go on from, an orderly end.

    config.yaml  metrics.jsonl  train.log  tensorboard/  checkpoints/{step-00001234.ckpt, last}

With several ranks, the first one owns the directory; the others only learn where the checkpoint lies.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml

from stec.distributed import barrier, rank, world_size
from stec.errors import StecError, UsageError
from stec.stored import configuration
from stec.training import checkpoint
from stec.training.lock import Lock
from stec.training.log import Display, Timing, ToDisplay, sentence
from stec.training.records import LogFile, Metrics, TensorBoard
from stec.training.signals import Ears
from stec.whole import sweep, write_whole

# What may differ when a run goes on: it changes where, when and how fast, not what is meant to be learnt. (`hardware`
# changes rounding, and micro_batch the statistics of an encoder's batch norm as well. `data` is a path: that the data
# themselves are the same is told by their fingerprint.)
_QUIET = ("log_every", "checkpoint_every", "eval_every", "keep", "stop_after")
HARMLESS = ("run_dir", "resume", "data", "name", "profile", "hardware", *(f"training.{key}" for key in _QUIET))


class Run:
    """Open a run directory for writing (a context manager). Nothing is built before this has succeeded.

    resume: "auto" continues from the newest readable checkpoint of the directory, if there is one; "never" wants a
    directory without a run; else a checkpoint, or a run directory, to continue from (in a directory without
    checkpoints of its own, or the one it lies in). `finished`: the run came to its end before; `verdict`: the last
    warning of the watch for collapse; `config`: what was given; `seconds`: since the directory was opened.
    UsageError if the directory is in use, cannot be written, or holds another run.
    """

    def __init__(self, directory: str | Path, config: Mapping[str, Any] | None = None, *, resume: str = "auto"):
        self.directory, self.resume = Path(directory), resume
        self.config: dict[str, Any] = dict(config or {})
        self._begun = time.monotonic()
        self.checkpoints = self.directory / "checkpoints"
        self.main = rank() == 0
        self.finished = False
        self.verdict = ""
        self.step = 0
        self.log = logging.getLogger("stec")
        self._display = Display()
        self._board: TensorBoard | None = None
        self._metrics = Metrics(self.directory / "metrics.jsonl")
        self._lock: Lock | None = None
        self._ears: Ears | None = None
        self._undo: list[Callable[[], object]] = []
        self._source: Path | None = None
        try:
            self._source, self.finished = self._agreed() if world_size() > 1 else self._open()
        except BaseException:
            self.close()
            raise

    # -- the directory ---------------------------------------------------------------------------------------------

    def _agreed(self) -> tuple[Path | None, bool]:
        """What _open() says on the first rank, for all of them: its refusal too."""
        told: list[Any] = [None, False, None]
        if self.main:
            try:
                told[:2] = self._open()
            except StecError as error:
                told[2], error.shared = error, True
        dist.broadcast_object_list(told)
        source, finished, refusal = told
        if refusal is not None:
            barrier()  # nobody goes before all have heard it
            raise refusal
        if not self.main:  # damaged samples, say, that this rank alone has met
            self._attach(LogFile(self.directory / "train.log", logging.WARNING))
        return source, finished

    def _open(self) -> tuple[Path | None, bool]:
        """Where to go on from, and whether the run is finished."""
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.directory)
        except OSError as error:
            raise UsageError(f"run_dir={self.directory} cannot be written: {error.strerror or error}.") from error
        self._attach(LogFile(self.directory / "train.log"))
        self._attach(ToDisplay(self._display))
        sweep(self.directory, self.checkpoints)
        if self.resume == "never" and (self.directory / "config.yaml").exists():
            raise UsageError(f"run_dir={self.directory} holds a run already: choose another run_dir or resume=auto.")
        source = self._find_source()
        if source is not None:
            self._compare(source.parent.parent / "config.yaml", self.config)
        finished = source is not None and (source.parent.parent / "finished").exists() and self.resume == "auto"
        if not finished:
            (self.directory / "finished").unlink(missing_ok=True)
            self.write("config.yaml", yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))
        return source, finished

    def _find_source(self) -> Path | None:
        if self.resume == "never":
            return None
        if self.resume == "auto":
            return checkpoint.latest(self.checkpoints)
        path = Path(self.resume)
        folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        source = checkpoint.latest(folder) if folder.is_dir() else folder
        if source is None:
            raise UsageError(f"resume={self.resume} holds no checkpoint.")
        inside = source.parent.resolve() == self.checkpoints.resolve()
        if not inside and checkpoint.stored(self.checkpoints):
            raise UsageError(f"run_dir={self.directory} holds a run already: choose another run_dir or resume=auto.")
        return source

    def _compare(self, stored: Path, config: dict[str, Any]) -> None:
        if not stored.exists():
            return
        before, now = flat(configuration(stored)), flat(config)
        changes = {
            key: f"{key}: {before.get(key, 'absent')} -> {now.get(key, 'absent')}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key, "absent") != now.get(key, "absent")
        }
        if structural := [text for key, text in changes.items() if not harmless(key)]:
            raise UsageError(
                f"run_dir={self.directory} holds a run with another configuration ({'; '.join(structural)}): "
                f"choose another run_dir, or go back to that configuration."
            )
        for text in changes.values():
            self.log.info("changed on resume: %s", text)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    @property
    def resumed(self) -> bool:
        """Did it go on from a checkpoint?"""
        return self._source is not None

    # -- the story of a run ----------------------------------------------------------------------------------------

    def restore(self, keep: int = 2) -> checkpoint.State | None:
        """The state to continue from, None to begin. What was written after its step is taken back, `keep` are kept."""
        state = None if self._source is None else checkpoint.load(self._source)
        self.step = 0 if state is None else int(state["step"])
        if self.main:
            own = state if self._inside() else None
            self._metrics.cut_back(-1 if own is None else self.step, (own or {}).get("unwritten", ()))
            for path in [p for p in checkpoint.stored(self.checkpoints) if checkpoint.step_of(p) > self.step]:
                path.unlink()
            checkpoint.prune(self.checkpoints, keep)
            self._board = TensorBoard(self.directory / "tensorboard", self.step)
        return state

    def _inside(self) -> bool:
        return self._source is not None and self._source.parent.resolve() == self.checkpoints.resolve()

    def is_at(self, path: str) -> bool:
        """Is this path the run directory itself?"""
        return Path(path).expanduser().resolve() == self.directory.resolve()

    def say(self, text: str) -> None:
        """A line for the terminal and the train.log (of the first rank)."""
        if self.main:
            self.log.info("%s", text)

    def warn(self, verdict: str) -> None:
        """What is wrong with the representation: for the log, and for whoever reports on the run."""
        self.verdict = verdict
        if self.main:
            self.log.warning("%s", verdict)

    def start(self, total: int) -> None:
        """The loop begins: from here to stop(), signals wait for the end of a step."""
        self._ears = Ears()
        if self.main:
            self._display.start(self.step, total)

    def stop(self) -> None:
        """The loop is left: the bar goes, and signals mean what they meant before."""
        self._display.close()
        if self._ears is not None:
            self._ears.close()
            self._ears = None

    def advance(self, step: int) -> None:
        self.step = step
        self._display.advance(step)

    def record(
        self, epoch: float, values: Mapping[str, float], total: int | None = None, timing: Timing | None = None
    ) -> None:
        """Metrics of the present step by name; with `total`, also a line of progress."""
        if not self.main:
            return
        if odd := [name for name, value in values.items() if not math.isfinite(value)]:
            self.log.warning("step %d: not a finite number, so not recorded: %s", self.step, ", ".join(odd))
            values = {name: value for name, value in values.items() if name not in odd}
        if values:
            self._metrics.write(self.step, epoch, values)
        times = {} if timing is None else {"time/samples_per_s": timing.rate, "time/data_wait": timing.data_wait}
        if self._board is not None:
            self._board.write(self.step, {**values, **times})
        if total is not None:
            text = sentence(self.step, total, epoch, values, timing)
            if self._display.line(text, last=self.step == total):
                self._to_file(text)

    def _to_file(self, text: str) -> None:
        for handler in self.log.handlers:
            if isinstance(handler, LogFile):
                handler.line(text)

    def save(self, state: Mapping[str, Any], keep: int, must: bool = True) -> None:
        """Write the checkpoint of the present step. If there is no room for it: UsageError if it `must` be, else a
        warning, for there is another one to come; the older ones are left alone."""
        if not self.main:
            return
        self._metrics.sync()
        state = {**state, "unwritten": self._metrics.unwritten} if self._metrics.unwritten else state
        try:
            checkpoint.save(self.checkpoints / checkpoint.name(self.step), state)
            checkpoint.prune(self.checkpoints, keep)
        except (UsageError, OSError) as error:
            if must:
                raise
            self.log.warning("%s Training goes on.", error)

    def write(self, name: str, text: str) -> None:
        """A file of the directory, whole or not at all; UsageError if the disk refuses."""
        try:
            write_whole(self.directory / name, text.encode())
        except OSError as error:
            raise UsageError(f"{self.directory / name} cannot be written: {error.strerror or error}.") from error

    def last_checkpoint(self) -> str:
        """For messages: where the newest checkpoint lies."""
        paths = checkpoint.stored(self.checkpoints)
        return f"last good checkpoint {paths[-1]}" if paths else "there is no checkpoint yet"

    def finish(self, epoch: float, measured: Mapping[str, float]) -> None:
        """The run came to its end, and measured this: started again, it will only say so."""
        self.finished = True
        if self.main:
            self._metrics.forget(self.step, measured)  # or it stood there twice if a run was killed just here
            self.record(epoch, measured)
            if self._metrics.unwritten:
                raise UsageError(f"{self._metrics.path} is not written: the same command goes on once there is room.")
            self.write("finished", f"step {self.step}\n")

    def asked_to_stop(self, device: torch.device) -> int:
        """The number of the signal that any rank has received, else 0."""
        return 0 if self._ears is None else self._ears.agree(self.step, device)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _attach(self, handler: logging.Handler) -> None:
        before = self.log.level
        self.log.setLevel(logging.INFO)
        self.log.addHandler(handler)
        self._undo += [lambda: self.log.setLevel(before), handler.close, lambda: self.log.removeHandler(handler)]

    def close(self) -> None:
        self._display.close()
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        self.stop()
        if self._lock is not None:
            self._lock.drop()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and self.main:
            self._to_file(f"ended by {type(error).__name__}: {error}")
        self.close()


def harmless(key: str) -> bool:
    """May this dotted key differ when a run goes on?"""
    return any(key == name or key.startswith(f"{name}.") for name in HARMLESS)


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """{"a.b": value} of nested mappings."""
    if not isinstance(node, Mapping):
        return {prefix: node}
    return {k: v for key, value in node.items() for k, v in flat(value, f"{prefix}.{key}".lstrip(".")).items()}
