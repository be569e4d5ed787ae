"""Beside the run directory of a table's run, which is stec-train's: a line of JSON for each time that it was tried.

{"seconds", "code": exit code, "hash": of the recipe, "why": it does not count though it came to its end (may lack)}
"""

import fcntl
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stec.errors import UsageError
from stec.stored import from_json
from stec.training.lock import Lock

# How a run ends that was asked to: by Ctrl-C or SIGTERM, with a checkpoint, or before it heard signals at all.
STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)


def path_of(run: Path) -> Path:
    return run.with_name(f"{run.name}.tries.jsonl")


@contextmanager
def alone(run: Path) -> Iterator[bool]:
    """For as long as the block lasts nobody else tries this run; False if somebody does already."""
    path = path_of(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield not _in_use(run)


def _in_use(run: Path) -> bool:
    """Does a stec-train that nobody here started hold this run directory?"""
    if not run.is_dir():
        return False
    try:
        Lock(run).drop()
    except UsageError:
        return True
    return False


def note(run: Path, told: dict[str, Any]) -> None:
    path = path_of(run)
    text = path.read_bytes() if path.exists() else b""
    with open(path, "ab") as file:
        start = b"" if not text or text.endswith(b"\n") else b"\n"  # who was killed while writing left no end
        file.write(start + json.dumps(told).encode() + b"\n")


def read(run: Path, recipe: str) -> list[dict[str, Any]]:
    """The tries of this run with a recipe of this hash, oldest first. A line that is torn is passed over."""
    found, path = [], path_of(run)
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            told = from_json(line)
            if told["hash"] == recipe:
                found.append({**told, "seconds": float(told["seconds"]), "code": int(told["code"])})
        except (ValueError, TypeError, LookupError, OverflowError):
            continue
    return found


def seconds(run: Path, recipe: str) -> float:
    """What all tries took."""
    return sum(each["seconds"] for each in read(run, recipe))


def failed(run: Path, recipe: str) -> str:
    """How the last try failed; "" if it did not, or was only stopped, or there is none."""
    tries = read(run, recipe)
    if not tries:
        return ""
    if "why" in tries[-1]:
        return str(tries[-1]["why"])
    code = tries[-1]["code"]
    return "" if code in (0, *STOPPED) else f"exit code {code}"
