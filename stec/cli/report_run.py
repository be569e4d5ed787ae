"""`stec-report run table=1 scale=small --budget 4h`: run what a table lacks, the most telling pairs of runs first.

Order: evidence per hour (stec/report/plan.py). A pair of runs with one seed is worth the drop of the variance of its
contrast, in units of the difference looked for, squared; contrasts without any pair come first. Hours of a run: the
mean of the ledger's at this scale, or the table's guess. No run is begun that would not fit into what is left of the
budget. Runs are stec-train's, in runs/tables/TABLE/SCALE/ROW/seed-N: stopped, they go on with the same command.
"""

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from stec.cli import rows
from stec.cli.rows import Asked
from stec.errors import UsageError
from stec.report import ledger, standing
from stec.report.ledger import Line
from stec.report.plan import Planned, estimated, order
from stec.report.tables import Row

_UNITS = {"h": 1.0, "m": 1 / 60, "s": 1 / 3600}
# How a run ends that was asked to: by Ctrl-C or SIGTERM, with a checkpoint, or before it heard signals at all.
_STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)

KEYS = """words:
  table=NAME scale=NAME    as for stec-report
  data.NAME=PATH           where the data set NAME is (cifar100_npz, stl10, ...); rows without their data are skipped"""


def run(words: list[str]) -> int:
    """0; 1 if a run failed; 130 if it was stopped."""
    parser = argparse.ArgumentParser(
        prog="stec-report run", description=__doc__, epilog=KEYS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", metavar="key=value")
    parser.add_argument("--budget", required=True, type=_hours, metavar="TIME", help="such as 4h, 30m or 90s")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each row; default: %(default)s")
    parser.add_argument("--retry", action="store_true", help="also run again what failed before")
    parser.add_argument("--ledger", type=Path, default=rows.LEDGER, metavar="FOLDER", help="default: %(default)s")
    arguments = parser.parse_intermixed_args(words)
    if arguments.seeds < 1:
        raise UsageError(f"--seeds {arguments.seeds} must be at least 1.")
    asked = rows.asked(arguments.words, ("table", "scale"), "data.")
    data = {key.removeprefix("data."): os.path.expanduser(path) for key, path in asked.rest.items()}
    for name, path in data.items():
        if "://" not in path and not os.path.exists(path):
            raise UsageError(f"data.{name}={path}: there is no such file or folder.")
    return Filling(asked, data, arguments.ledger, arguments.seeds, arguments.retry).run(arguments.budget)


class Filling:
    """A table that is being filled: what is there, what is barred (no data, or failed before), what comes next."""

    def __init__(self, asked: Asked, data: dict[str, str], folder: Path, seeds: int, retry: bool):
        self.table, self.scale, self.seeds, self.data = asked.table, asked.scale, seeds, data
        self.path = ledger.path_of(folder, asked.table.name)
        self.rows = asked.table.at(asked.scale)
        self.configs = {name: rows.composed(row.words[asked.scale]) for name, row in self.rows.items()}
        self.hashes = {name: ledger.fingerprint(config) for name, config in self.configs.items()}
        self.wants = {name: rows.data_of(config) for name, config in self.configs.items()}
        self.barred: set[tuple[str, int]] = set()
        self.failures = 0
        for name, row in self.rows.items():
            if (wanted := self.wants[name]) is not None and wanted not in data:
                print(f"{name}: skipped, data.{wanted}=PATH is needed.")
                self.barred |= {(name, seed) for seed in range(seeds)}
                continue
            for seed in range(seeds):
                if not retry and (told := self._failed(row, seed)):
                    print(f"{name} seed {seed}: skipped, it failed before ({told}); --retry runs it again.")
                    self.barred.add((name, seed))

    def plan(self) -> list[Planned]:
        """What is missing, the best first, by what the ledger says now."""
        lines, table, scale = ledger.read_all(self.path.parent), self.table.name, self.scale
        found = {name: ledger.counted(lines, table, scale, name, self.hashes[name])[0] for name in self.rows}
        measured = {name: standing.values(each, self.table.metric) for name, each in found.items()}
        seconds = {name: [line.seconds for line in each.values()] for name, each in found.items()}
        done = {(name, seed) for name, each in found.items() for seed in each}
        spread = standing.spread(self.table, self.scale, measured)
        hours = estimated(self.table, self.scale, seconds)
        return order(self.table, self.scale, done, self.barred, self.seeds, hours, spread)

    def run(self, budget: float) -> int:
        """Run until nothing is missing, or the next run would not fit into `budget` hours from now."""
        begun = time.monotonic()
        while plan := self.plan():
            first, left = plan[0], budget - (time.monotonic() - begun) / 3600
            whole = sum(each.hours for each in plan)
            if first.hours > left:
                print(
                    f"{len(plan)} runs are left ({whole:.1f} h); the next takes {first.hours:.2f} h, "
                    f"more than the {max(left, 0):.2f} h that are left."
                )
                break
            told = f"{first.worth:.3g} an hour" if first.worth else "no contrast asks for it"
            print(
                f"{first.row} seed {first.seed}: about {first.hours:.2f} h, worth {told}; "
                f"{len(plan)} runs to go, {whole:.1f} h",
                flush=True,
            )
            self._one(self.rows[first.row], first.seed)
        else:
            print("nothing is left to run.")
        return 1 if self.failures else 0

    def _one(self, row: Row, seed: int) -> None:
        wanted = self.wants[row.id]
        data = None if wanted is None else self.data[wanted]
        words = rows.words_of(self.table, self.scale, row, seed, data)
        folder = rows.place(self.table, self.scale, row, seed)
        self._make_way(folder, row)
        print(shlex.join(["stec-train", *words]), flush=True)
        begun = time.monotonic()
        code = 130
        try:
            code = _train(words)
        finally:
            spent = {"seconds": time.monotonic() - begun, "code": code, "hash": self.hashes[row.id]}
            _note(_attempts(folder), spent)
        if code in _STOPPED:
            raise KeyboardInterrupt  # by somebody who stopped the run itself
        if code or not ledger.finished(folder):
            why = f"exit code {code}" if code else "it left no table.json"
            print(f"{row.id} seed {seed}: failed ({why}); see {folder / 'train.log'}. Going on without it.")
            self.barred.add((row.id, seed))
            self.failures += 1
            return
        self._enter(folder, row)

    def _enter(self, folder: Path, row: Row) -> None:
        seconds = sum(each["seconds"] for each in _tries(folder) if each["hash"] == self.hashes[row.id])
        line: Line = ledger.entry(folder, self.table.name, row.id, self.scale, list(row.words[self.scale]), seconds)
        if line.hash != self.hashes[row.id]:
            keys = ledger.differing(ledger.config_of(folder), self.configs[row.id])
            raise UsageError(f"{folder}: its configuration is not the row's ({', '.join(keys)}).")
        ledger.append(self.path, line)

    def _make_way(self, folder: Path, row: Row) -> None:
        """What an older recipe left where a run is to be is put aside."""
        if not (folder / "config.yaml").exists():
            return
        old = ledger.fingerprint(ledger.config_of(folder))
        if old == self.hashes[row.id]:
            return
        aside, number = folder.with_name(f"{folder.name}.{old[:8]}"), 1
        while aside.exists():
            aside, number = folder.with_name(f"{folder.name}.{old[:8]}-{number}"), number + 1
        folder.rename(aside)
        print(f"{folder} was a run of another recipe: it is {aside.name} now.")

    def _failed(self, row: Row, seed: int) -> str:
        """How the last try of this run failed; "" if it did not, or its recipe was another."""
        tries = _tries(rows.place(self.table, self.scale, row, seed))
        if not tries or tries[-1]["hash"] != self.hashes[row.id] or tries[-1]["code"] in (0, *_STOPPED):
            return ""
        return f"exit code {tries[-1]['code']}"


def _train(words: list[str]) -> int:
    """stec-train in a process of its own: its exit code. Asked to stop, it is asked in turn, once, and waited for."""
    command = [sys.executable, "-m", "stec.cli.train", *words]
    heard: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) == 1:
            print("stopping: the run finishes its step and saves", file=sys.stderr, flush=True)
            for child in children:
                child.send_signal(signal.SIGINT)

    with _hearing(pass_on):
        # Not of our process group: a terminal would tell it too, and told twice it leaves without a checkpoint.
        children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0))
        if heard:
            children[0].send_signal(signal.SIGINT)
        code = children[0].wait()
    if heard:
        raise KeyboardInterrupt
    return code


@contextmanager
def _hearing(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _attempts(folder: Path) -> Path:
    """Beside the run directory, which is stec-train's: a line for each time that the run was tried."""
    return folder.with_name(f"{folder.name}.tries.jsonl")


def _note(path: Path, told: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(told) + "\n")


def _tries(folder: Path) -> list[dict[str, Any]]:
    path = _attempts(folder)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _hours(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hms])", text)
    if found is None:
        raise UsageError(f"--budget {text}: a time such as 4h, 30m or 90s was expected.")
    return float(found[1]) * _UNITS[found[2]]
