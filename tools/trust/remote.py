"""Shards behind real servers that are killed, slow, refuse, cut off and change their files: is any sample another one?

    python tools/trust/remote.py [--tries 20] [--seed 0] [--only kills]

A split of six tars (2 MB each) behind a local nginx, which must be installed, is read whole, each time into an empty
cache:

    plain      nothing happens
    slow       400 kB/s
    errors     nginx answers 3 of 10 requests with 500
    kills      all of nginx is killed (SIGKILL) at a random moment, and comes back 0.3 s later
    whole      the same, and it knows no range requests
    cut        a tar is cut off while it is sent, so that its body ends early, and put back 0.3 s later
    reader     the reader is killed (SIGKILL) at a random moment, and another one goes on with its cache
    many       four readers share a cache that holds a third of the data
    changed    a tar is replaced by another of the same length while it is sent: must be refused
    missing, forbidden, shorter    a tar is, from the beginning: must be refused

survived: all samples are bit for bit those of the local split; refused: Unavailable; lost: any other sample, or any
other error, or a copy that is not whole. again: requests that had to be repeated, as far as this process made them.
Exits with 1 if any was lost, or the wrong one of survived and refused. `remote_s3.py` is the same for S3.
"""

import argparse
import hashlib
import logging
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nginx import Nginx

from stec.errors import StecError, Unavailable
from stec.shards import fetching, remote
from stec.shards.copies import Copies
from stec.shards.reader import open_shards
from stec.shards.writer import write_split

MB = 1_000_000
TAR = "train-000003.tar"
FORK = multiprocessing.get_context("fork")


class Again(logging.Handler):
    """Counts the requests that are made again."""

    count = 0

    @classmethod
    def heard(cls) -> "Again":
        """Listens from now on."""
        again = cls()
        logging.getLogger("stec").addHandler(again)
        return again

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "tried again" in record.msg


class Trial:
    """A folder with data/train as it was packed, an empty cache, and one reading of it."""

    def __init__(self, root: Path, place: Path, rng: random.Random):
        self.place, self.rng = place, rng
        shutil.copytree(root / "train", place / "data" / "train")
        self.expected = _digest(open_shards(root / "train"))
        self.copies = Copies(place / "copies", 100 * MB)
        self.tar = place / "data" / "train" / TAR

    def read(self, address: str) -> str:
        try:
            shards = remote.find_split(address, "train", self.copies)
            if shards is None:
                return "lost: no split"
            found = _digest(shards)
        except Unavailable as error:
            return f"refused: {error}"
        except StecError as error:
            return f"lost: {type(error).__name__}: {error}"
        return (
            "survived"
            if found == self.expected and self.whole()
            else "lost: another sample, or a copy that is not whole"
        )

    def whole(self) -> bool:
        """Every copy is what its name says."""
        for path in self.copies.place.glob("*-*"):
            sha256, _, num_bytes = path.name.partition("-")
            if not path.name.endswith(".part"):
                data = path.read_bytes()
                if len(data) != int(num_bytes) or hashlib.sha256(data).hexdigest() != sha256:
                    return False
        return True

    def soon(self, act: Callable[[], None], most: float = 1.4) -> threading.Thread:
        """act() at a random moment."""
        thread = threading.Thread(target=lambda: (time.sleep(self.rng.uniform(0.0, most)), act()))
        thread.start()
        return thread


@contextmanager
def serving(trial: Trial, **options: str) -> Iterator[Nginx]:
    server = Nginx(trial.place, **options)
    try:
        yield server
    finally:
        server.stop()


def plain(trial: Trial, **options: str) -> str:
    with serving(trial, **options) as server:
        return trial.read(server.address)


def kills(trial: Trial, **options: str) -> str:
    with serving(trial, **options) as server:

        def kill() -> None:
            server.stop()
            time.sleep(0.3)
            server.start()

        killer = trial.soon(kill)
        said = trial.read(server.address)
        killer.join()
        return said


def cut(trial: Trial) -> str:
    data = trial.tar.read_bytes()
    with serving(trial, rate="4m") as server:
        part = trial.copies.place / f"{hashlib.sha256(data).hexdigest()}-{len(data)}.part"

        def shorten() -> None:
            while not (part.exists() and part.stat().st_size):
                time.sleep(0.005)
            os.truncate(trial.tar, trial.rng.randrange(len(data)))
            time.sleep(0.3)
            with trial.tar.open("r+b") as file:
                file.write(data)

        cutter = trial.soon(shorten, most=0.0)
        said = trial.read(server.address)
        cutter.join()
        # Told as another length if it is asked for just then: of this, a refusal is right.
        return "survived" if said.startswith("refused") and "bytes, the index says" in said else said


def reader(trial: Trial) -> str:
    with serving(trial) as server:
        process = FORK.Process(target=trial.read, args=(server.address,))
        process.start()
        time.sleep(trial.rng.uniform(0.1, 1.4))
        process.kill()
        process.join()
        return trial.read(server.address) if trial.whole() else "lost: a copy that is not whole"


def many(trial: Trial) -> str:
    table = max(path.stat().st_size for path in (trial.place / "data" / "train").glob("table-*"))
    trial.copies = Copies(trial.copies.place, round(6.5 * MB) + table)
    most = 0
    with serving(trial, rate="40m") as server:
        pool = FORK.Pool(4)
        answers = [pool.apply_async(_read_holding_one, (trial, server.address)) for _ in range(4)]
        while not all(answer.ready() for answer in answers):
            most = max(most, sum(_size(path) for path in trial.copies.place.glob("*-*")))
            time.sleep(0.01)
        said = [answer.get() for answer in answers]
        pool.terminate()
        pool.join()
    if most > trial.copies.limit:
        return f"lost: the copies took {most} bytes, {trial.copies.limit} were allowed"
    return next((one for one in said if one != "survived"), "survived")


def changed(trial: Trial) -> str:
    data = bytearray(trial.tar.read_bytes())
    data[trial.rng.randrange(len(data))] ^= 1 << trial.rng.randrange(8)
    with serving(trial, rate="4m") as server:

        def replace() -> None:
            new = trial.place / "new"
            new.write_bytes(data)
            new.replace(trial.tar)

        replacer = trial.soon(replace, most=0.5)
        said = trial.read(server.address)
        replacer.join()
        return said


def missing(trial: Trial) -> str:
    trial.tar.unlink()
    return plain(trial)


def shorter(trial: Trial) -> str:
    os.truncate(trial.tar, trial.tar.stat().st_size // 2)
    return plain(trial)


TRIALS: dict[str, tuple[Callable[..., str], dict[str, str], str]] = {
    "plain": (plain, {}, "survived"),
    "slow": (plain, {"rate": "400k"}, "survived"),
    "errors": (plain, {"fails": "30%"}, "survived"),
    "kills": (kills, {}, "survived"),
    "whole": (kills, {"more": "max_ranges 0;"}, "survived"),
    "cut": (cut, {}, "survived"),
    "reader": (reader, {}, "survived"),
    "many": (many, {}, "survived"),
    "changed": (changed, {}, "refused"),
    "missing": (missing, {}, "refused"),
    "forbidden": (plain, {"more": f"location = /train/{TAR} {{ deny all; }}"}, "refused"),
    "shorter": (shorter, {}, "refused"),
}
ONCE = ("plain", "slow", "missing", "forbidden", "shorter")


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=TRIALS)
    given = parser.parse_args(words)
    again = Again.heard()
    fetching.WAIT, fetching.TIMEOUT = 0.2, 10.0
    good = True
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_split(samples(), root / "train", name="train", meta={}, samples_per_shard=20)
        for name, (trial, options, wanted) in TRIALS.items():
            if given.only not in (None, name):
                continue
            seen: Counter[str] = Counter()
            again.count = 0
            for number in range(1 if name in ONCE else given.tries):
                place = root / f"{name}-{number}"
                place.mkdir()
                said = trial(Trial(root, place, random.Random(f"{given.seed} {name} {number}")), **options)
                seen[said.partition(":")[0]] += 1
                if not said.startswith(wanted):
                    print(f"  {name} {number}: {said}")
                shutil.rmtree(place)
            good &= set(seen) == {wanted}
            counts = ", ".join(f"{what} {seen[what]}" for what in ("survived", "refused", "lost"))
            print(f"{name:10} tried {sum(seen.values())}, {counts}, again {again.count}", flush=True)
    return 0 if good else 1


def samples() -> Iterator[dict[str, Any]]:
    numbers = random.Random(0)
    for number in range(120):
        yield {"__key__": f"{number:03d}", "bin": numbers.randbytes(100_000 - number)}


def _digest(shards: Any) -> list[str]:
    return [hashlib.sha256(shards.read(number)["bin"]).hexdigest() for number in range(shards.num_samples)]


def _read_holding_one(trial: Trial, address: str) -> str:
    remote.MAX_OPEN = 1
    return trial.read(address)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
