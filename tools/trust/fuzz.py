"""Thousands of hostile inputs, each through the door of the product that would read it, in a process of its own kind.

    python tools/trust/fuzz.py [KIND ...] [--share 1.0] [--seed 0] [--only NUMBER]

KIND: the beginning of a kind's name; all of them without any. --share: of the number that is tried of each kind. Every
input is named by (seed, kind, number): --only tries that one here, with its traceback.

accepted: it was read; where a checksum promises so, as what was once written. refused: one of the errors that a command
tells in a sentence. crashed: any other exception, or a signal. hung: no answer after 10 seconds of work. silent:
accepted, but not what was written. memory: the most that one input took, MiB; beyond 2 GiB the system refuses it, and
that is a crash. Exits with 1 unless there is nothing but accepted and refused.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import kinds
from seeds import Seeds, planted

from stec.errors import DataError, UsageError

PATIENCE, MEMORY = 10.0, 2 << 30
ENDS = ("tried", "accepted", "refused", "crashed", "hung", "silent")


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STEC_CACHE"] = f"{folder}/cache"
        (Path(folder) / "seeds").mkdir()
        seeds = planted(Path(folder) / "seeds")
        # What is drawn may only write below the current folder, and where its door says.
        os.makedirs(f"{folder}/here")
        os.chdir(f"{folder}/here")
        chosen = [kind for kind in kinds.kinds(seeds) if not given.kinds or kind.name.startswith(tuple(given.kinds))]
        if given.only is not None:
            found = kinds.enter(chosen[0], given.seed, given.only, emptied(Path(folder) / "place"))
            print("accepted" if chosen[0].whole in (None, found) else "SILENT")
            return 0
        return _all(seeds, chosen, given.share, given.seed)


def _all(seeds: Seeds, chosen: list[kinds.Kind], share: float, seed: int) -> int:
    print(f"{'kind':28} " + " ".join(f"{name:>{len(name) + 1}}" for name in (*ENDS, "memory", "slowest")))
    whole: Counter[str] = Counter()
    for kind in chosen:
        count, memory, slowest, bad = _tried(seeds, kind, max(1, round(kind.num * share)), seed)
        whole.update(count)
        cells = " ".join(f"{count[name]:{len(name) + 1}}" for name in ENDS)
        print(f"{kind.name:28} {cells} {memory >> 20:7} {slowest:8.2f}", flush=True)
        for number, what in bad[:12]:
            print(f"    {number}: {what}", flush=True)
        whole["memory"] = max(whole["memory"], memory)
    print(
        ", ".join(f"{name} {count:,}" for name, count in whole.items() if name != "memory"),
        f"; at most {whole['memory'] >> 20} MiB for one",
    )
    left = [str(path) for path in Path.cwd().rglob("*")]
    print(f"left behind: {', '.join(left) or 'nothing'}")
    return int(bool(whole["crashed"] or whole["hung"] or whole["silent"] or left))


def _tried(
    seeds: Seeds, kind: kinds.Kind, num: int, seed: int
) -> tuple[Counter[str], int, float, list[tuple[int, str]]]:
    count: Counter[str] = Counter(tried=num)
    memory, slowest, number, bad = 0, 0.0, 0, []
    context = multiprocessing.get_context("fork")
    while number < num:
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(kind, seeds.folder.parent / "place", seed, number, num, theirs))
        child.start()
        theirs.close()
        outcome = ""
        while number < num and outcome != "hung" and child.exitcode in (None, 0):
            try:
                outcome, what, taken, seconds = (
                    ours.recv() if _answers(ours, child.pid or 0) else ("hung", "", 0, PATIENCE)
                )
            except EOFError:
                child.join()
                outcome, what, taken, seconds = "crashed", f"exit code {child.exitcode}", 0, 0.0
            count[outcome] += 1
            memory, slowest = max(memory, taken), max(slowest, seconds)
            if outcome not in ("accepted", "refused"):
                bad.append((number, f"{outcome} {what}"))
            number += 1
        child.kill()
        child.join()
        ours.close()
    return count, memory, slowest, bad


def _answers(ours: Connection, pid: int) -> bool:
    """Does the child answer before it has worked for PATIENCE seconds, or waited for twenty times as long?"""
    begun, until = _worked(pid), time.monotonic() + 20 * PATIENCE
    while not ours.poll(0.2):
        if _worked(pid) - begun > PATIENCE or time.monotonic() > until:
            return False
    return True


def _worked(pid: int) -> float:
    """Seconds on a core; of a machine that is busy with other things, a clock would tell nothing."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _child(kind: kinds.Kind, place: Path, seed: int, first: int, num: int, said: Connection) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)  # decoders in C complain there
    limit = _status("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(first, num):
        emptied(place)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here on
        before, begun = _status("VmRSS"), time.process_time()
        try:
            found = kinds.enter(kind, seed, number, place)
            outcome = ("accepted", "") if kind.whole is None or found == kind.whole else ("silent", "")
        except (DataError, UsageError):
            outcome = "refused", ""
        except (Exception, RecursionError) as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            outcome = "crashed", f"{type(error).__name__}: {str(error)[:150]} ({Path(at.filename).name}:{at.lineno})"
        except BaseException as error:
            outcome = "crashed", f"{type(error).__name__}"
        said.send((*outcome, max(0, _status("VmHWM") - before), time.process_time() - begun))
    said.close()
    os._exit(0)


def emptied(place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


def _status(name: str) -> int:
    """Bytes, of what the system says of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
