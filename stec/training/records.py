"""What a run writes down as it goes: metrics.jsonl, train.log and TensorBoard's files. A disk that does not take them
stops no training."""

import io
import json
import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stec.errors import UsageError
from stec.stored import from_json
from stec.whole import write_whole

_log = logging.getLogger("stec")


class Metrics:
    """metrics.jsonl: one JSON object a line, {"step", "epoch", name: value}; only what a repeated run would repeat.

    unwritten: lines that the disk did not take. They are tried again with every further one, and checkpoints hold them,
    so that a run which goes on from there knows them.
    """

    def __init__(self, path: Path):
        self.path = path
        self.unwritten: list[str] = []

    def cut_back(self, step: int, unwritten: Iterable[str] = ()) -> None:
        """Forget all lines after `step`, and a last line that a killed run left unfinished; write what was `unwritten`
        at that step, and still is."""
        there = self._keep(lambda line: line["step"] <= step)
        if lacking := [line for line in unwritten if line not in there]:
            self.add(lacking)

    def forget(self, step: int, names: Iterable[str]) -> None:
        """Forget the lines of this step that have one of these metrics."""
        self._keep(lambda line: line["step"] != step or line.keys().isdisjoint(names))

    def _keep(self, wanted: Callable[[dict[str, Any]], bool]) -> list[str]:
        """The lines that are left; UsageError if the file cannot be read or written."""
        try:
            data = self.path.read_bytes() if self.path.exists() else b""
            kept = [f"{line}\n" for line in data.decode(errors="replace").splitlines() if _is(wanted, line)]
            if "".join(kept).encode() != data or not self.path.exists():
                write_whole(self.path, "".join(kept).encode())
            return kept
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read or written: {error.strerror or error}.") from error

    def write(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        self.add([json.dumps({"step": step, "epoch": epoch, **values}, allow_nan=False) + "\n"])

    def add(self, lines: Iterable[str]) -> None:
        """Further lines, behind those that wait."""
        waiting = bool(self.unwritten)
        self.unwritten += lines
        try:
            append(self.path, "".join(self.unwritten).encode())
            self.unwritten = []
        except OSError as error:
            if not waiting:
                _log.warning("%s cannot be written (%s): its lines wait.", self.path, error.strerror or error)

    def sync(self) -> None:
        """To disk, if it lets us."""
        if self.unwritten:
            self.add([])
        try:
            with open(self.path, "ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            _log.warning("%s: not forced to disk: %s", self.path, error.strerror or error)


def _is(wanted: Callable[[dict[str, Any]], bool], line: str) -> bool:
    """Is this a whole line, and wanted?"""
    try:
        return wanted(from_json(line))
    except (ValueError, LookupError, TypeError, AttributeError):
        return False


class LogFile(logging.FileHandler):
    """train.log, for what matters as much as `level`. Lines that cannot be written are left out: said once."""

    def __init__(self, path: Path, level: int = logging.NOTSET):
        super().__init__(path, delay=True)
        self.setLevel(level)
        self._told = False
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def line(self, text: str) -> None:
        """A line for this file alone."""
        self.emit(logging.LogRecord("stec", logging.INFO, __file__, 0, text, None, None))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            append(Path(self.baseFilename), f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except OSError as error:
            if not self._told:
                self._told = True
                _log.warning("%s: lines are left out: %s", self.baseFilename, error.strerror or error)


class TensorBoard:
    """Scalars for TensorBoard; a file that cannot be written is given up: said once.

    Written at once. torch's own writer does it from a thread, whose errors nobody can catch.
    """

    def __init__(self, folder: Path, step: int):
        """step: after which what is there already, of a run that was killed, does not count."""
        self.path = folder / f"events.out.tfevents.{time.time_ns():019d}.{socket.gethostname()}.{os.getpid()}"
        self._given_up = False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its own dependencies
                from tensorboard.compat.proto import event_pb2, summary_pb2
                from tensorboard.summary.writer.record_writer import RecordWriter
            folder.mkdir(exist_ok=True)
        except (ImportError, OSError) as error:
            return self._give_up(error)
        self._event, self._summary, self._writer = event_pb2.Event, summary_pb2.Summary, RecordWriter
        begun = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(self._event(file_version="brain.Event:2"), self._event(step=step + 1, session_log=begun))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if not self._given_up:
            told = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            self._add(self._event(step=step, summary=self._summary(value=told)))

    def _add(self, *events: Any) -> None:
        records = io.BytesIO()
        for event in events:
            event.wall_time = time.time()
            self._writer(records).write(event.SerializeToString())
        try:
            append(self.path, records.getvalue())
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._given_up = True
        _log.warning("no TensorBoard files are written from here on: %s", getattr(error, "strerror", None) or error)


def append(path: Path, data: bytes) -> None:
    """Add to a file, all or nothing: what a full disk took of it is taken back. OSError."""
    with open(path, "ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            with suppress(OSError):
                file.truncate(end)
            raise
