"""`stec-report run table=1 scale=small --budget 4h`: run what a table lacks, the most telling pairs of runs first.

Order: evidence per hour (stec/comparison/plan.py). A pair of runs with one seed is worth the drop of the variance of
its contrast, in units of the difference looked for, squared; contrasts without any pair come first. Hours of a run: the
mean of the ledger's on this machine, or the table's guess, in step with what other rows took here. No run is begun that
would not fit into what is left of the budget. Runs are stec-train's, in runs/tables/TABLE/SCALE/ROW/seed-N: stopped,
they go on with the same command. Several such commands may fill one table: no run is tried by two of them at once.
"""

import argparse
import os
import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stec.catalogue import nearest
from stec.cli import rows
from stec.cli.child import train
from stec.cli.rows import Asked
from stec.comparison import ledger, standing, tries
from stec.comparison.ledger import Line
from stec.comparison.plan import Planned, estimated, order
from stec.comparison.tables import Row
from stec.errors import UsageError
from stec.nodes import checked
from stec.shards.reader import find_split
from stec.training.options import Hardware

_UNITS = {"h": 1.0, "m": 1 / 60, "s": 1 / 3600}

KEYS = """words:
  table=NAME scale=NAME    as for stec-report
  data.NAME=PATH           where the data set NAME is (cifar100_npz, stl10, ...); rows without their data are skipped
  dataset.packer.KEY=FILE  a file that the packer is to read, such as one of labels"""


def run(words: list[str]) -> int:
    """0; 1 if a run failed, or none could be made; 130 if it was stopped."""
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
    asked = rows.asked(arguments.words, ("table", "scale"), ("data.", "dataset.packer."))
    paths = {key: os.path.expanduser(path) for key, path in asked.rest.items()}
    for key, path in paths.items():
        if "://" not in path and not os.path.exists(path):
            raise UsageError(f"{key}={path}: there is no such file or folder.")
    gpus = asked.table.scales[asked.scale].gpus
    if gpus > 1 and torch.cuda.device_count() < gpus:
        raise UsageError(
            f"scale={asked.scale} of table={asked.table.name} needs {gpus} GPUs, there are {torch.cuda.device_count()}:"
            " make its runs elsewhere and add them with `stec-report enter`."
        )
    return Filling(asked, paths, arguments.ledger, arguments.seeds, arguments.retry).run(arguments.budget)


class Filling:
    """A table that is being filled: what is there, what is barred (no data, or failed before), what comes next."""

    def __init__(self, asked: Asked, paths: dict[str, str], folder: Path, seeds: int, retry: bool):
        self.table, self.scale, self.seeds, self.retry = asked.table, asked.scale, seeds, retry
        self.path = ledger.path_of(folder, asked.table.name)
        self.rows = asked.table.at(asked.scale)
        self.configs = {name: rows.composed(row.words[asked.scale]) for name, row in self.rows.items()}
        self.hashes = {name: ledger.fingerprint(config) for name, config in self.configs.items()}
        self.wants = {name: rows.data_of(config) for name, config in self.configs.items()}
        self.given = {name: self._given(config, paths) for name, config in self.configs.items()}
        self._refuse_unused(paths)
        self.barred: set[tuple[str, int]] = set()
        self.failures, self.skipped = 0, [name for name, given in self.given.items() if given is None]
        for name, row in self.rows.items():
            if name in self.skipped:
                print(f"{name}: skipped, data.{self.wants[name]}=PATH is needed.")
                self.barred |= {(name, seed) for seed in range(seeds)}
                continue
            for seed in range(seeds):
                if not retry and (told := tries.failed(self._place(row, seed), self.hashes[name])):
                    print(f"{name} seed {seed}: skipped, it failed before ({told}); --retry runs it again.")
                    self.barred.add((name, seed))

    def _given(self, config: Mapping[str, Any], paths: Mapping[str, str]) -> list[str] | None:
        """The words of a row that say where things are; None if it is not said where its data are. UsageError if the
        table's metric could not be measured on them."""
        wanted, packer = rows.data_of(config), config["dataset"]["packer"]
        if wanted is not None and f"data.{wanted}" not in paths:
            return None
        data = None if wanted is None else paths[f"data.{wanted}"]
        files = {key: path for key, path in paths.items() if key.removeprefix("dataset.packer.") in packer}
        split, max_bad = config["dataset"]["train_split"], config["dataset"].get("max_bad", 0.0)
        packed = data is not None and os.path.isdir(data) and find_split(Path(data), split, max_bad)
        for key in self.table.needs if not packed else ():
            if key not in files and packer.get(key.removeprefix("dataset.packer.")) is None:
                raise UsageError(f"without {key}=FILE there is no {self.table.metric}, which this table is about.")
        return [*([f"data={data}"] if data else []), *(f"{key}={os.path.abspath(path)}" for key, path in files.items())]

    def _refuse_unused(self, paths: Mapping[str, str]) -> None:
        known = {f"data.{name}" for name in self.wants.values() if name is not None}
        known |= {f"dataset.packer.{key}" for config in self.configs.values() for key in config["dataset"]["packer"]}
        for key in sorted(paths.keys() - known):
            raise UsageError(f"{key}: no row at scale={self.scale} wants it. {nearest(key, known)}")

    def _place(self, row: Row, seed: int) -> Path:
        return rows.place(self.table, self.scale, row, seed)

    def plan(self) -> list[Planned]:
        """What is missing, the best first, by what the ledger says now."""
        lines, table, scale = ledger.read_all(self.path.parent), self.table.name, self.scale
        found = {name: ledger.counted(lines, table, scale, name, self.hashes[name])[0] for name in self.rows}
        measured = {name: standing.values(each, self.table.metric) for name, each in found.items()}
        here = {name: _machine(config) for name, config in self.configs.items()}
        seconds = {
            name: [line.seconds for line in each.values() if ledger.machine(line.hardware) == here[name]]
            for name, each in found.items()
        }
        done = {(name, seed) for name, each in measured.items() for seed in each}
        spent = {
            (name, seed): tries.seconds(self._place(row, seed), self.hashes[name]) / 3600
            for name, row in self.rows.items()
            for seed in range(self.seeds)
            if (name, seed) not in done
        }
        spread = standing.spread(self.table, self.scale, measured)
        hours = estimated(self.table, self.scale, seconds)
        return order(self.table, self.scale, done, self.barred, self.seeds, hours, spread, spent)

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
            print("nothing could be run." if len(self.skipped) == len(self.rows) else "nothing is left to run.")
        return 1 if self.failures or len(self.skipped) == len(self.rows) else 0

    def _one(self, row: Row, seed: int) -> None:
        folder = self._place(row, seed)
        with tries.alone(folder) as alone:
            if not alone:
                print(f"{row.id} seed {seed}: somebody else is running it. Going on without it.", flush=True)
                self.barred.add((row.id, seed))
                return
            self._make_way(folder, row)
            words = rows.words_of(self.table, self.scale, row, seed, self.given[row.id] or [])
            print(shlex.join([*rows.program(self.table, self.scale), *words]), flush=True)
            spent: dict[str, Any] = {"hash": self.hashes[row.id], "code": 130}
            begun = time.monotonic()
            try:
                spent["code"] = train(words, self.table.scales[self.scale].gpus)
            finally:
                tries.note(folder, {"seconds": time.monotonic() - begun, **spent})
            if spent["code"] in tries.STOPPED:
                raise KeyboardInterrupt  # by somebody who stopped the run itself
            if why := tries.failed(folder, self.hashes[row.id]) or self._entered(folder, row):
                print(f"{row.id} seed {seed}: failed ({why}); see {folder / 'train.log'}. Going on without it.")
                self.barred.add((row.id, seed))
                self.failures += 1

    def _entered(self, folder: Path, row: Row) -> str:
        """Enter a run; why that cannot be, or "" (so also noted, or it would be run again and again)."""
        if not ledger.finished(folder):
            why = "it left no table.json"
        else:
            seconds = tries.seconds(folder, self.hashes[row.id])
            line: Line = ledger.entry(folder, self.table.name, row.id, self.scale, list(row.words[self.scale]), seconds)
            if line.hash != self.hashes[row.id]:
                keys = ledger.differing(ledger.config_of(folder), self.configs[row.id])
                raise UsageError(f"{folder}: its configuration is not the row's ({', '.join(keys)}).")
            why = ledger.lacking(line, self.table.metric, ledger.read_all(self.path.parent))
        if why:
            tries.note(folder, {"seconds": 0.0, "code": 0, "hash": self.hashes[row.id], "why": why})
        else:
            ledger.append(self.path, line)
        return why

    def _make_way(self, folder: Path, row: Row) -> None:
        """What an older recipe left where a run is to be is put aside, and a whole run that does not count."""
        if not (folder / "config.yaml").exists():
            return
        old = ledger.fingerprint(ledger.config_of(folder))
        useless = ledger.finished(folder) and tries.failed(folder, old)
        if old == self.hashes[row.id] and not useless:
            return
        aside, number = folder.with_name(f"{folder.name}.{old[:8]}"), 1
        while aside.exists():
            aside, number = folder.with_name(f"{folder.name}.{old[:8]}-{number}"), number + 1
        folder.rename(aside)
        print(
            f"{folder} was a run {'that does not count' if useless else 'of another recipe'}: it is {aside.name} now."
        )


def _machine(config: Mapping[str, Any]) -> str:
    """The machine that a run would be made on here; "" if it could not be."""
    try:
        return ledger.machine(Hardware(**checked(Hardware, config["hardware"], "hardware")).describe())
    except UsageError:
        return ""


def _hours(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hms])", text)
    if found is None:
        raise UsageError(f"--budget {text}: a time such as 4h, 30m or 90s was expected.")
    return float(found[1]) * _UNITS[found[2]]
