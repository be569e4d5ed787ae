"""Shards in a bucket of an S3-compatible server (moto) that is stopped, and whose objects change: as `remote.py`.

    pip install 'moto[s3,server]' s3fs
    python tools/trust/remote_s3.py [--tries 10]

    plain      nothing happens
    stops      the server refuses connections for 0.5 s, from a random moment on
    reader     the reader is killed (SIGKILL) at a random moment, and another one goes on with its cache
    changed    an object is replaced by another of the same length: must be refused
    missing    an object, or the bucket, is not there: must be refused

survived, refused, lost: as in remote.py. Exits with 1 if any was lost, or the wrong one of survived and refused.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from moto.server import ThreadedMotoServer
from remote import FORK, TAR, Again, Trial, samples

from stec.shards import fetching
from stec.shards.writer import write_split

BUCKET = "s3://shards/data"


class Bucket:
    """Holds what a trial has in data/; the server stays what it is while nobody listens."""

    def __init__(self, trial: Trial, port: int):
        self.port = port
        self.start()
        self.system = fetching._system("s3")
        self.system.mkdir("shards")
        self.system.put(str(trial.place / "data") + "/", BUCKET + "/", recursive=True)

    def start(self) -> None:
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self.server.start()

    def stop(self) -> None:
        self.server.stop()


def plain(trial: Trial, _: Bucket) -> str:
    return trial.read(BUCKET)


def stops(trial: Trial, bucket: Bucket) -> str:
    def stop() -> None:
        bucket.stop()
        time.sleep(0.5)
        bucket.start()

    stopper = trial.soon(stop, most=4.0)
    said = trial.read(BUCKET)
    stopper.join()
    return said


def reader(trial: Trial, _: Bucket) -> str:
    process = FORK.Process(target=trial.read, args=(BUCKET,))
    process.start()
    time.sleep(trial.rng.uniform(0.1, 1.0))
    process.kill()
    process.join()
    return trial.read(BUCKET) if trial.whole() else "lost: a copy that is not whole"


def changed(trial: Trial, bucket: Bucket) -> str:
    data = bytearray(trial.tar.read_bytes())
    data[trial.rng.randrange(len(data))] ^= 1
    bucket.system.pipe_file(f"{BUCKET}/train/{TAR}", bytes(data))
    return trial.read(BUCKET)


def missing(trial: Trial, bucket: Bucket) -> str:
    if trial.rng.random() < 0.5:
        bucket.system.rm_file(f"{BUCKET}/train/{TAR}")
        return trial.read(BUCKET)
    bucket.system.rm(BUCKET.removesuffix("/data"), recursive=True)
    said = trial.read(BUCKET)
    return "refused: no split" if said == "lost: no split" else said


TRIALS: dict[str, tuple[Callable[[Trial, Bucket], str], str]] = {
    "plain": (plain, "survived"),
    "stops": (stops, "survived"),
    "reader": (reader, "survived"),
    "changed": (changed, "refused"),
    "missing": (missing, "refused"),
}


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--port", type=int, default=5555)
    given = parser.parse_args(words)
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{given.port}",
        AWS_ACCESS_KEY_ID="somebody",
        AWS_SECRET_ACCESS_KEY="secret",
        AWS_DEFAULT_REGION="us-east-1",
    )
    fetching.WAIT, good, again = 0.2, True, Again.heard()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_split(samples(), root / "train", name="train", meta={}, samples_per_shard=20)
        for name, (act, wanted) in TRIALS.items():
            seen: Counter[str] = Counter()
            again.count = 0
            for number in range(given.tries):
                place = root / f"{name}-{number}"
                place.mkdir()
                trial = Trial(root, place, random.Random(f"{name} {number}"))
                bucket = Bucket(trial, given.port)
                try:
                    said = act(trial, bucket)
                finally:
                    if bucket.system.exists("s3://shards"):
                        bucket.system.rm("s3://shards", recursive=True)
                    bucket.stop()
                seen[said.partition(":")[0]] += 1
                if not said.startswith(wanted):
                    print(f"  {name} {number}: {said}")
            good &= set(seen) == {wanted}
            counts = ", ".join(f"{what} {seen[what]}" for what in ("survived", "refused", "lost"))
            print(f"{name:10} tried {sum(seen.values())}, {counts}, again {again.count}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
