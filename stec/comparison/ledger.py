"""The ledger of a table: one line of JSON for each finished run, only ever appended to, and kept in git.

{"table", "row", "scale", "seed", "recipe", "hash", "version", "commit", "device", "precision", "hardware", "date",
"seconds", "data", "num_train", "metrics"}
"""

import fcntl
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from stec import __version__
from stec.comparison.essence import differing as differing
from stec.comparison.essence import fingerprint as fingerprint
from stec.errors import DataError, UsageError
from stec.stored import from_json, from_yaml

_STAMP = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A finished run. seconds: wall-clock time of all its attempts; data, num_train: fingerprint and number of the
    samples learnt from; metrics: the "trained" row of its table. commit: of the sources; "" as precision, commit or
    data: not known."""

    table: str
    row: str
    scale: str
    seed: int
    recipe: list[str]
    hash: str
    version: str
    device: str
    hardware: str
    date: str
    seconds: float
    metrics: dict[str, float]
    precision: str = ""
    commit: str = ""
    data: str = ""
    num_train: int = 0


def path_of(folder: Path, table: str) -> Path:
    return folder / f"{table}.jsonl"


def append(path: Path, line: Line) -> None:
    """Add a line, whole or not at all, also if others add to the same file; UsageError if it cannot be written."""
    text = json.dumps(asdict(line), ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            if end:  # an editor may have left the last line without its end
                file.seek(end - 1)
                text = text if file.read(1) == b"\n" else "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error


def read(path: Path) -> list[Line]:
    """All lines, oldest first; none if there is no file. DataError names a line that is damaged."""
    if not path.exists():
        return []
    found = []
    for number, raw in enumerate(path.read_bytes().split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            line = Line(**from_json(raw.decode("utf-8")))
            if not isinstance(line.seed, int) or not isinstance(line.metrics, dict):
                raise TypeError("seed or metrics have the wrong type")
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}, line {number}: not a line of a ledger ({error}).") from error
        found.append(line)
    return found


def read_all(folder: Path) -> list[Line]:
    """The lines of all tables' ledgers in a folder."""
    return [line for path in sorted(folder.glob("*.jsonl")) for line in read(path)]


def counted(lines: list[Line], table: str, scale: str, row: str, today: str) -> tuple[dict[int, Line], int]:
    """{seed: its newest line} of all runs whose hash is today's of this row, whichever table or row they were made for
    (many tables begin with SimCLR); and how many lines of the row itself are stale."""
    own = [line for line in lines if (line.table, line.scale, line.row) == (table, scale, row)]
    return {line.seed: line for line in lines if line.hash == today}, sum(line.hash != today for line in own)


def lacking(line: Line, metric: str, lines: Iterable[Line]) -> str:
    """Why a run cannot be entered: it has not what its table is about, or learnt from more or fewer samples than others
    of its recipe; "" if it can. What is not known of the data is not held against it."""
    if metric not in line.metrics:
        return f"its table has no {metric}"
    for other in lines:
        if other.hash == line.hash and 0 not in (line.num_train, other.num_train) and other.num_train != line.num_train:
            return (
                f"it learnt from {line.num_train:,} samples, {other.row} seed {other.seed} of the same recipe from"
                f" {other.num_train:,}"
            )
    return ""


def other_data(lines: Iterable[Line]) -> bool:
    """Did these runs learn from data of different fingerprints, as far as it is known? (Samples packed anew, or with
    labels, have another.)"""
    return len({line.data for line in lines if line.data}) > 1


def config_of(run: Path) -> dict[str, Any]:
    """The configuration that a run directory keeps; UsageError if there is none."""
    try:
        config = from_yaml((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{run}: not a run directory, or its config.yaml cannot be read.") from error
    if not isinstance(config, dict) or not isinstance(config.get("seed"), int):
        raise UsageError(f"{run}: its config.yaml is not that of a run.")
    return config


def finished(run: Path) -> bool:
    """Did this run come to its end, table and all?"""
    return (run / "finished").exists() and (run / "table.json").exists()


def entry(run: Path, table: str, row: str, scale: str, words: list[str], seconds: float | None = None) -> Line:
    """The line of a finished run, from what its directory holds. seconds: None for what its log tells of all attempts.
    UsageError if it is not finished."""
    config = config_of(run)
    if not finished(run):
        raise UsageError(f"{run}: this run is not finished (it has no table.json, or no file `finished`).")
    try:
        told = from_json((run / "table.json").read_text(encoding="utf-8"))
        metrics = {str(key): float(value) for key, value in told["rows"]["trained"].items()}
        data = told.get("data", {})
        fingerprint_of_data, num_train = str(data.get("fingerprint", "")), int(data.get("num_train", 0))
        log = (run / "train.log").read_text(encoding="utf-8", errors="replace")
        last, spent = _times(log, run)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{run}: its table.json or train.log cannot be read ({error}).") from error
    machines = re.findall(r" machine: (.+)", log)
    hardware = machines[-1] if machines else "unknown"
    return Line(
        table=table,
        row=row,
        scale=scale,
        seed=config["seed"],
        recipe=words,
        hash=fingerprint(config),
        version=__version__,
        commit=str(told.get("commit", "")),
        precision=hardware.removeprefix(machine(hardware)).removeprefix(", ").partition(",")[0],
        data=fingerprint_of_data,
        num_train=num_train,
        device=hardware.partition(" ")[0],
        hardware=hardware,
        date=f"{last:{_STAMP}}",
        seconds=round(spent if seconds is None else seconds, 1),
        metrics=metrics,
    )


def machine(hardware: str) -> str:
    """The device and its name, such as "cpu (2 cores)", of what a run says of its machine."""
    return hardware.partition(")")[0] + ")" * (")" in hardware)


# The lines that an attempt begins with: what was before them, nobody waited for.
_FIRST = re.compile(r"changed on resume|packing |data: |.*this run is finished")


def _times(log: str, run: Path) -> tuple[datetime, float]:
    """When a log ends, and how many seconds all attempts took: from the first line of each to its last."""
    lines = re.findall(r"^(\d{4}-\d\d-\d\dT[\d:]{8}Z) \w+ (.*)", log, re.M)
    if not lines:
        raise DataError(f"{run}: its train.log tells no time.")
    spent, before, first = timedelta(), datetime.strptime(lines[0][0], _STAMP), True
    for stamp, text in lines:
        now, opens = datetime.strptime(stamp, _STAMP), _FIRST.match(text) is not None
        if first or not opens:
            spent += now - before
        before, first = now, opens
    return before, spent.total_seconds()
