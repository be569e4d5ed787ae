"""Runs that are killed, and started again by the same command: do they end as the one that was left alone, to the bit?

    python tools/trust/kills.py [--kills 20] [--seed 0] [--only vision-1] [--torchrun]

Each run is killed once, all its processes by SIGKILL: two in three after a random time, one in three in the middle of a
write, when half of the bytes are there. Then the same command is given again. Compared are all of
the last checkpoint and metrics.jsonl to the bit, the names of the checkpoints, and whether a temporary file is left.

    vision-1 vision-2 sound-1 sound-2    recipes my_images and my_audio in miniature; 1 process, or 2 (gloo)
    packing                              the shards that are packed, byte by byte
    workers                              hardware.num_workers 0, then 2, then 1
    ranks                                2 ranks, then 1, then 2: the same samples in each step; losses up to rounding

The processes are forked from one that has imported everything. --torchrun: the ranks by torchrun, and not, with the
variables that it sets, by us. Exits with 1 if anything was lost.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "faults")]

import commands  # noqa: E402
from commands import Commands, Started  # noqa: E402
from dying import dies_packing, dies_writing, difference, notes_keys, order  # noqa: E402
from several import a_rank, both, two  # noqa: E402
from tiny_run import SOUND, TINY, draw, sing  # noqa: E402

commands.IMPORTED += [f"stec_audio.{name}" for name in ("decode", "encoders", "actions", "packers", "pictures")]

# Nothing is measured at the end: it is the training that is to be gone on with.
BARE = ["evaluation.action=null", "evaluation.raw_input=false"]
OPTIONS = {
    "vision": [*TINY, *BARE, "evaluation.knn=null", "evaluation.linear=null", "data=pictures-shards"],
    "sound": [*SOUND, *BARE, "data=sounds-shards"],
}
WRITES = ("checkpoint", "metrics.jsonl", "config.yaml", "last", "table.json", "report.html", "finished")
# Losses without batch statistics, over other numbers of ranks: float32 sums in another order, over 12 steps.
ROUNDING = 1e-5


def begin(place: Path, words: list[str], ranks: int, hook: Any = None, torchrun: bool = False) -> list[Started]:
    """The processes of a run: its ranks, or the one that starts them."""
    start = Commands(place).start
    if ranks == 1:
        return [start("stec-train", *words, before=hook)]
    if torchrun:
        return [start("stec-train", *words, before=two(hook))]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    hooks = a_rank if hook is None else partial(both, hook, a_rank)
    each = [{**shared, "RANK": str(n), "LOCAL_RANK": str(n)} for n in range(ranks)]
    return [start("stec-train", *words, env=env, before=hooks) for env in each]


def wait(run: list[Started]) -> None:
    for process in run:
        ended = process.wait(900)
        assert ended.code == 0, ended.err or ended.out


def children(pid: int) -> Iterator[int]:
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            yield from (child, *children(child))


def kill(run: list[Started]) -> bool:
    """All processes of a run; was any still at it?"""
    alive = any(process.process.is_alive() for process in run)
    for pid in [pid for process in run for pid in (*children(process.pid), process.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for process in run:
        process.process.join()
    return alive or any(process.process.exitcode == -signal.SIGKILL for process in run)


class Counted:
    """A line of the table."""

    def __init__(self, name: str):
        self.name, self.tried, self.torn, self.late = name, 0, 0, 0
        self.lost: list[str] = []

    def told(self) -> str:
        why = "; ".join(self.lost[:3])
        kept = self.tried - len(self.lost)
        return f"{self.name:10} {self.tried:6} {self.torn:9} {self.late:9} {kept:9} {len(self.lost):5}  {why}"


def killed(place: Path, name: str, kills: int, seed: int, torchrun: bool) -> Counted:
    kind, ranks = name.split("-")[0], int(name[-1])
    words, counted = OPTIONS[kind], Counted(name)
    begun = begin(place, [*words, f"run_dir={name}"], ranks, None, torchrun)
    begun[0].wait_for((place / name / ".lock").exists)
    since = time.monotonic()
    wait(begun)
    lasts = time.monotonic() - since
    for number in range(kills):
        numbers = random.Random(f"{seed}/{name}/{number}")
        directory = f"{name}-{number}"
        here = [*words, f"run_dir={directory}"]
        what = WRITES[number // 3 % len(WRITES)] if number % 3 == 0 else None
        nth = numbers.randint(1, 4) if what in ("checkpoint", "metrics.jsonl", "last") else 1
        hook = None if what is None else partial(dies_writing, what, nth)
        run = begin(place, here, ranks, hook, torchrun)
        if what is None:
            run[0].wait_for((place / directory / ".lock").exists)
            until = time.monotonic() + numbers.uniform(0, lasts)
            while time.monotonic() < until and run[0].process.is_alive():
                time.sleep(0.01)
        else:
            run[0].process.join(900)
            assert (ranks > 1 and torchrun) or run[0].process.exitcode == -signal.SIGKILL, run[0].said
        counted.late += not kill(run)
        counted.torn += what is not None
        counted.tried += 1
        try:
            wait(begin(place, here, ranks, None, torchrun))
            found = difference(place / name, place / directory)
        except AssertionError as error:
            found = f"not gone on with: {str(error).splitlines()[-1]}"
        if found:
            counted.lost.append(f"{number} ({what or 'at random'}): {found}")
        print(f"  {directory}: {what or 'at random'}: {found or 'equal'}", flush=True)
    return counted


def packing(place: Path, kills: int, seed: int) -> Counted:
    counted = Counted("packing")
    words = ["pack", "pictures", "--packer", "image_folder", "--samples-per-shard", "7", "--out"]
    since = time.monotonic()
    assert Commands(place)("stec-shards", *words, "pack/whole").code == 0
    lasts = time.monotonic() - since
    for number in range(kills):
        out, what = place / "pack" / str(number), ("tar", "index.json", "sizes.json", None)[number % 4]
        run = Commands(place).start("stec-shards", *words, str(out), before=what and partial(dies_packing, what))
        if what is None:
            time.sleep(random.Random(f"{seed}/packing/{number}").uniform(0, lasts))
        else:
            run.process.join()
            assert run.process.exitcode == -signal.SIGKILL, run.said
        counted.late += not kill([run])
        counted.torn += what is not None
        counted.tried += 1
        again = out.exists()  # it had come to its end
        ended = None if again else Commands(place)("stec-shards", *words, str(out))
        same = hashes(place / "pack" / "whole") == hashes(out) and not list(out.parent.glob(f".{number}.*"))
        if (ended is not None and ended.code) or not same:
            counted.lost.append(f"{number} ({what or 'at random'})")
    return counted


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def in_parts(place: Path, name: str, words: list[str], parts: list[tuple[int, list[str]]]) -> Path:
    """A run in three parts, each with its number of ranks and options."""
    ends = [["training.stop_after=4"], ["training.stop_after=9"], []]
    for (ranks, more), end in zip(parts, ends, strict=True):
        wait(begin(place, [*words, f"run_dir={name}", *more, *end], ranks, notes_keys))
    return place / name


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["train/loss"] for row in rows if "train/loss" in row]


def workers(place: Path, _kills: int, _seed: int) -> Counted:
    counted = Counted("workers")
    for kind, words in OPTIONS.items():
        one = in_parts(place, f"{kind}-workers", words, [(1, [f"hardware.num_workers={n}"]) for n in (0, 2, 1)])
        whole = in_parts(place, f"{kind}-alone", words, [(1, [])] * 3)
        counted.tried += 1
        if difference(whole, one) or order(one) != order(whole):
            counted.lost.append(kind)
    return counted


def over_ranks(place: Path, _kills: int, _seed: int) -> Counted:
    counted = Counted("ranks")
    plain = ["encoder.norm=none", "identity.time_insensitive=null"]
    for kind, words in {"sound": [*OPTIONS["sound"], *plain], "vision": OPTIONS["vision"]}.items():
        one, other = (
            in_parts(place, f"{kind}-ranks-{name}", words, [(ranks, []) for ranks in numbers])
            for name, numbers in {"212": (2, 1, 2), "111": (1, 1, 1)}.items()
        )
        apart = max(abs(a - b) / abs(b) for a, b in zip(losses(one), losses(other), strict=True))
        free = kind == "sound"  # of batch statistics, which on a CPU each rank takes of its own part
        print(f"  {kind}: 2, 1, 2 ranks against 1: losses differ by {apart:.1e} at most", flush=True)
        counted.tried += 1
        if order(one) != order(other) or (free and apart > ROUNDING):
            counted.lost.append(kind)
    return counted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--torchrun", action="store_true")
    arguments = parser.parse_args()
    cases: dict[str, Callable[[Path, int, int], Counted]] = {
        f"{kind}-{n}": partial(killed_as, f"{kind}-{n}", arguments.torchrun) for n in (1, 2) for kind in OPTIONS
    }
    cases |= {"packing": packing, "workers": workers, "ranks": over_ranks}
    lines: list[Counted] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, packer, make in (("pictures", "image_folder", draw), ("sounds", "audio_folder", sing)):
            make(place / name)
            ended = Commands(place)("stec-shards", "pack", name, "--packer", packer, "--out", f"{name}-shards")
            assert ended.code == 0, ended.err
        for name, case in cases.items():
            if not arguments.only or name in arguments.only:
                lines.append(case(place, arguments.kills, arguments.seed))
                print(lines[-1].told(), flush=True)
    print(f"\n{'':10} {'tried':>6} {'in writes':>9} {'too late':>9} {'survived':>9} {'lost':>5}")
    print("\n".join(line.told() for line in lines))
    return int(any(line.lost for line in lines))


def killed_as(name: str, torchrun: bool, place: Path, kills: int, seed: int) -> Counted:
    return killed(place, name, kills, seed, torchrun)


if __name__ == "__main__":
    sys.exit(main())
