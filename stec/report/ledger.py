"""The ledger of a table: one line of JSON for each finished run, only ever appended to, and kept in git.

{"table", "row", "scale", "seed", "recipe", "hash", "version", "device", "hardware", "date", "seconds", "metrics"}
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from stec import __version__
from stec.errors import DataError, UsageError

# What says nothing about what is meant to be learnt, or how it is measured: where, when and how fast; the seed, which
# has a place of its own; and the rows that a run's table is compared with.
_QUIET = ("log_every", "checkpoint_every", "eval_every", "keep", "stop_after")
LEFT_OUT = (
    *("seed", "name", "data", "run_dir", "resume", "hardware", "evaluation.baselines", "evaluation.raw_input"),
    *(f"training.{key}" for key in _QUIET),
)
_STAMP = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A finished run. seconds: wall-clock time of all its attempts; metrics: the "trained" row of its table."""

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


def essence(config: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": value} of all that makes two runs of different seeds runs of one recipe.

    A null is left out: it means the same as a key that was not there yet. So is a file that a packer is told to read,
    since a path is a matter of the machine.
    """
    return {
        key: value
        for key, value in _flat(config).items()
        if value is not None
        and not any(key == name or key.startswith(f"{name}.") for name in LEFT_OUT)
        and not (key.startswith("dataset.packer.") and isinstance(value, str) and os.sep in value)
    }


def fingerprint(config: Mapping[str, Any]) -> str:
    """sha256 of a composed configuration's essence, in hexadecimal."""
    plain = {key: _number(value) for key, value in essence(config).items()}
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def differing(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys in which two configurations differ, but for what may differ."""
    one, two = essence(config), essence(other)
    return sorted(key for key in one.keys() | two.keys() if one.get(key, "absent") != two.get(key, "absent"))


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
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = Line(**json.loads(text))
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


def config_of(run: Path) -> dict[str, Any]:
    """The configuration that a run directory keeps; UsageError if there is none."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{run}: not a run directory, or its config.yaml cannot be read.") from error
    if not isinstance(config, dict) or not isinstance(config.get("seed"), int):
        raise UsageError(f"{run}: its config.yaml is not that of a run.")
    return config


def finished(run: Path) -> bool:
    """Did this run come to its end, table and all?"""
    return (run / "finished").exists() and (run / "table.json").exists()


def entry(run: Path, table: str, row: str, scale: str, words: list[str], seconds: float | None = None) -> Line:
    """The line of a finished run, from what its directory holds. seconds: None for the time from the first to the last
    line of its log. UsageError if it is not finished."""
    config = config_of(run)
    if not finished(run):
        raise UsageError(f"{run}: this run is not finished (it has no table.json, or no file `finished`).")
    try:
        metrics = json.loads((run / "table.json").read_text(encoding="utf-8"))["rows"]["trained"]
        log = (run / "train.log").read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{run}: its table.json or train.log cannot be read ({error}).") from error
    stamps = [datetime.strptime(found, _STAMP) for found in re.findall(r"^(\d{4}-\d\d-\d\dT[\d:]{8}Z) ", log, re.M)]
    if not stamps:
        raise DataError(f"{run}: its train.log tells no time.")
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
        device=hardware.partition(" ")[0],
        hardware=hardware,
        date=f"{stamps[-1]:{_STAMP}}",
        seconds=round((stamps[-1] - stamps[0]).total_seconds() if seconds is None else seconds, 1),
        metrics={str(key): float(value) for key, value in metrics.items()},
    )


def _number(value: Any) -> Any:
    """1 and 1.0 are one number, though two texts."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping):
        return {prefix: node}
    return {k: v for key, value in node.items() for k, v in _flat(value, f"{prefix}.{key}".lstrip(".")).items()}
