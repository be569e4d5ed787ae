"""Several processes of one run: unevenly fed, one killed, one stopped, all asked to end; and two runs in one directory.

    python tools/trust/ranks.py [--tries 10] [--seed 0] [--only killed]

    uneven    2 and 4 ranks, 1 shard and 3 of unequal size: equal batches, each sample once in an epoch
    killed    a rank is killed after a random step under torchrun --max-restarts 2: survived if the last checkpoint and
              the metrics are those of a run that was left alone
    stopped   a rank is stopped (SIGSTOP) after a random step: refused if all others end, naming it; lost if the same
              command does not go on to the same end
    sigterm   SIGTERM to torchrun at a random moment: survived if all end before torchrun kills them, leave no temporary
              file, and the same command goes on to the same end
    together  two runs in one directory, started at once: one survives, one is refused, anything else is lost

torchrun is its own agent with forked ranks (tests/faults/several.py). Exits with 1 if anything was lost.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from kills import OPTIONS, ROOT, begin, wait  # puts tests/ on the path

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "faults")]

from commands import Commands  # noqa: E402
from dying import difference, notes_keys, order  # noqa: E402
from several import after, send, slowly, torchrun  # noqa: E402
from tiny_run import draw  # noqa: E402

WORDS = [word for word in OPTIONS["vision"] if not word.startswith("data=")]
STEPS = 12
PATIENCE = 5
# Seconds that a step takes longer, so that it is in steps that a signal arrives.
PACE = 0.5
Case = Callable[[Path, int, random.Random], Counter[str]]


def words(run: str, *more: str, data: str = "shards") -> list[str]:
    return [*WORDS, f"data={data}", f"run_dir={run}", *more]


def launched(num: int, *more: str) -> list[str]:
    return ["--standalone", "--nproc-per-node", str(num), *more]


def goes_on(place: Path, run: str, num: int) -> str:
    """What is wrong with the run after the same command was given again; empty if nothing."""
    try:
        wait(begin(place, words(run), num))
    except AssertionError as error:
        return f"not gone on with: {(str(error).splitlines() or ['?'])[-1]}"
    return difference(place / f"whole-{num}", place / run) or ""


def whole(place: Path, num: int) -> None:
    if not (place / f"whole-{num}").exists():
        wait(begin(place, words(f"whole-{num}"), num))


def say(found: Counter[str], run: str, what: str, why: str = "") -> None:
    found[what] += 1
    print(f"  {run}: {what}{why and ': '}{why}", flush=True)


def uneven(place: Path, _tries: int, _numbers: random.Random) -> Counter[str]:
    found: Counter[str] = Counter()
    for num in (2, 4):
        for data in ("shards", "three"):
            run = f"uneven-{num}-{data}"
            try:
                wait(begin(place, words(run, "training.stop_after=6", data=data), num, notes_keys))
            except AssertionError as error:
                say(found, run, "lost", str(error))
                continue
            samples = [key for step in order(place / run).values() for key in step]
            once = len(samples) == len(set(map(str, samples))) == 48
            say(found, run, "survived" if once else "lost", f"{len(samples)} samples")
    return found


def killed(place: Path, tries: int, numbers: random.Random) -> Counter[str]:
    found: Counter[str] = Counter()
    for number in range(tries):
        num = 4 if number % 5 == 4 else 2
        whole(place, num)
        step, rank, run = numbers.randint(1, STEPS - 1), numbers.randrange(num), f"killed-{number}"
        hook = partial(after, step, send, signal.SIGKILL, rank=rank)
        agent = partial(torchrun, launched(num, "--max-restarts", "2"), hook)
        ended = Commands(place)("stec-train", *words(run), before=agent)
        wrong = f"exit code {ended.code}" if ended.code else difference(place / f"whole-{num}", place / run)
        happened = (place / run / "happened").exists()
        why = wrong or ("" if happened else "nothing happened")
        say(found, run, "lost" if why else "survived", why or f"rank {rank} of {num} at step {step}")
    return found


def stopped(place: Path, tries: int, numbers: random.Random) -> Counter[str]:
    found: Counter[str] = Counter()
    for number in range(max(2, tries // 2)):
        num = 4 if number % 3 == 2 else 2
        whole(place, num)
        step, rank, run = numbers.randint(1, STEPS - 1), numbers.randrange(num), f"stopped-{number}"
        hook = partial(after, step, send, signal.SIGSTOP, rank=rank)
        started = begin(place, words(run, f"hardware.patience={PATIENCE}"), num, hook)
        ended = {other: process.wait(120) for other, process in enumerate(started) if other != rank}
        started[rank].process.kill()
        started[rank].process.join()
        told = [one.refusal for one in ended.values() if one.code]
        # The first rank keeps the list of those that miss another: without it, nobody can say who is missed.
        whom = "another rank" if rank == 0 else f"rank {rank}"
        right = len(told) == num - 1 and all(f"misses {whom} at step {step}" in one for one in told)
        why = "" if right else f"told: {told}"
        why = why or goes_on(place, run, num)
        say(found, run, "lost" if why else "refused", why or told[0])
    return found


def sigterm(place: Path, tries: int, numbers: random.Random) -> Counter[str]:
    found: Counter[str] = Counter()
    whole(place, 2)
    pace = partial(slowly, PACE)
    for number in range(tries):
        run = f"sigterm-{number}"
        process = Commands(place).start("stec-train", *words(run), before=partial(torchrun, launched(2), pace))
        if number % 3:  # in the middle of the steps; else at any moment
            process.wait_for(partial(begun, place / run / "train.log"))
        time.sleep(numbers.uniform(0, STEPS * PACE if number % 3 else 20))
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        since = time.monotonic()
        ended = process.wait(90)
        took = time.monotonic() - since
        said = [line for line in (ended.out + ended.err).splitlines() if "left after step" in line]
        left = list((place / run / "checkpoints").glob("*.tmp*")) if (place / run).exists() else []
        why = f"it took {took:.0f} s" if took > 29 else f"temporary files: {left}" if left else ""
        why = why or goes_on(place, run, 2)
        say(found, run, "lost" if why else "survived", why or f"{said[:1] or 'not in a step'}, {took:.1f} s")
    return found


def begun(log: Path) -> bool:
    return log.exists() and "step 1/" in log.read_text()


def together(place: Path, tries: int, _numbers: random.Random) -> Counter[str]:
    found: Counter[str] = Counter()
    whole(place, 1)
    for number in range(tries):
        run, at = f"together-{number}", time.time() + 6
        started = [Commands(place).start("stec-train", *words(run), before=partial(at_once, at)) for _ in range(2)]
        ended = [process.wait(300) for process in started]
        codes = sorted(one.code for one in ended)
        refusals = [one.refusal for one in ended if one.code]
        right = codes == [0, 2] and f"run_dir={run} is in use by " in refusals[0]
        why = "" if right else f"exit codes {codes}: {refusals}"
        why = why or difference(place / "whole-1", place / run) or ""
        say(found, run, "lost" if why else "survived", why)
        if not why:
            say(found, run, "refused", refusals[0])
    return found


def at_once(moment: float) -> None:
    """Both directories are opened at this time of day, as near as two processes can."""
    import stec.training.run as opened

    lock = opened.Lock

    def locked(directory: Path) -> opened.Lock:
        time.sleep(max(0.0, moment - time.time()))
        return lock(directory)

    opened.Lock = locked  # type: ignore[assignment,misc]


CASES: dict[str, Case] = {case.__name__: case for case in (uneven, killed, stopped, sigterm, together)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], choices=list(CASES))
    arguments = parser.parse_args()
    table: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        draw(place / "pictures")
        for out, many in (("shards", 1000), ("three", 20)):
            given = ["--packer", "image_folder", "--samples-per-shard", str(many), "--out", out]
            assert Commands(place)("stec-shards", "pack", "pictures", *given).code == 0
        for name in arguments.only or CASES:
            print(name, flush=True)
            table[name] = CASES[name](place, arguments.tries, random.Random(f"{arguments.seed}/{name}"))
    print(f"{'':10} {'survived':>9} {'refused':>9} {'lost':>6}")
    for name, found in table.items():
        print(f"{name:10} {found['survived']:9} {found['refused']:9} {found['lost']:6}")
    return int(any(found["lost"] for found in table.values()))


if __name__ == "__main__":
    sys.exit(main())
