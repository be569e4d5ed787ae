"""What damage does to a shard of ten samples (jpg and cls): as training reads it, `verify`, and webdataset.

    python tools/trust/damage.py [--every 64] [--flips 300] [--bytes 7]

The tar is cut after every 64 bytes, and one random bit of it is flipped, 300 times; what lies beside it (index.json,
the table, sizes.json) is cut after every 7 bytes and flipped as often. Each time it is read again, from the beginning:

    error      the loader with dataset.max_bad=0, through the decoder of a recipe
    skip       the same with max_bad=0.9: a sample must be the very one, or replaced, and then named in the log
    open       a run that had the tar open before it was damaged
    verify     all problems it tells; any changed bit of a tar must be one
    webdataset WebDataset(tar).decode("pilrgb"), its own defaults

harmless: all samples bit for bit; detected: an error, or all that is missing was replaced and named; silent: neither.
Exits with 1 if there was silent damage to what is ours.
"""

import argparse
import io
import json
import logging
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from PIL import Image

from stec.actions import Compose
from stec.errors import StecError
from stec.loading import Stream
from stec.shards.reader import Shards, open_shards
from stec.shards.verify import verify
from stec.shards.writer import write_split
from stec.views import Batch
from stec_vision.actions import AffineCrop
from stec_vision.decode import ImageCrop

NUM = 10
HARMLESS, DETECTED, SILENT = "harmless", "detected", "SILENT"
SPACE = Compose({"affine_crop": AffineCrop(size=16)})


def write_shard(folder: Path) -> Path:
    """Ten smooth pictures and their classes in one tar, with its index; the tar."""
    samples = []
    for number in range(NUM):
        small = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(small).resize((40, 40), Image.Resampling.BILINEAR).save(buffer, "JPEG")
        samples.append({"__key__": f"s{number:05d}", "jpg": buffer.getvalue(), "cls": b"%d" % (number % 3)})
    write_split(samples, folder, name="train", meta={"classes": ["ant", "bee", "cat"]})
    return folder / "train-000000.tar"


def cuts(data: bytes, every: int) -> Iterator[bytes]:
    return (data[:end] for end in range(0, len(data), every))


def flips(data: bytes, num: int, seed: int = 0) -> Iterator[bytes]:
    for bit in random.Random(seed).sample(range(8 * len(data)), min(num, 8 * len(data))):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


class Log(logging.Handler):
    """Remembers what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


def loaded(shards: Shards, max_bad: float) -> Batch:
    """All samples in stored order, as a step of training gets them."""
    return next(Stream(shards, ImageCrop(SPACE), SPACE, batch_size=NUM, max_bad=max_bad, shuffle=False).batches(0))


class Ours:
    """Reads a folder in our ways, and holds what it gets against what was there before any damage."""

    def __init__(self, folder: Path, log: Log):
        self.folder, self.log = folder, log
        shards = open_shards(folder)
        self._whole, self._about = loaded(shards, 0.0), self._facts(shards)

    def error(self) -> str:
        return self._judged(lambda: open_shards(self.folder), 0.0)

    def skip(self) -> str:
        return self._judged(lambda: open_shards(self.folder, 0.9), 0.9)

    def under_way(self, shards: Shards) -> str:
        return self._judged(lambda: shards, 0.9)

    def verify(self, same: bool) -> str:
        """same: whether what is there means the same as before."""
        try:
            told = verify(self.folder)
        except StecError:
            return DETECTED
        return DETECTED if told else HARMLESS if same else SILENT

    def _judged(self, opened: Callable[[], Shards], max_bad: float) -> str:
        self.log.told.clear()
        try:
            shards = opened()
            batch, about = loaded(shards, max_bad), self._facts(shards)
        except StecError:
            return DETECTED
        if about != self._about:
            return SILENT
        replaced = 0
        for slot in range(NUM):
            if int(batch.keys[slot, 2]) == slot:
                same = all(torch.equal(a[slot], b[slot]) for a, b in zip(batch.x, self._whole.x, strict=True))
                if not same or batch.labels[slot] != self._whole.labels[slot]:
                    return SILENT
            elif any(f": s{slot:05d}" in line or f": sample {slot}:" in line for line in self.log.told):
                replaced += 1
            else:
                return SILENT
        return DETECTED if replaced else HARMLESS

    @staticmethod
    def _facts(shards: Shards) -> Any:
        return shards.meta, shards.fields, shards.shard_sizes, shards.fingerprint


def by_webdataset(tar: Path) -> dict[str, Any]:
    """{key: (pixels, class)} as webdataset reads them; what a sample lacks is None."""
    found = {}
    for sample in webdataset.WebDataset(str(tar), shardshuffle=False).decode("pilrgb"):
        picture = sample.get("jpg")
        found[sample["__key__"]] = (picture and picture.tobytes(), sample.get("cls"))
    return found


def judged_webdataset(tar: Path, whole: dict[str, Any]) -> str:
    try:
        return HARMLESS if by_webdataset(tar) == whole else SILENT
    except Exception:
        return DETECTED


def of_the_tar(folder: Path, tar: Path, log: Log, kinds: dict[str, list[bytes]], counts: Counter[Any]) -> None:
    ours, data, whole = Ours(folder, log), tar.read_bytes(), by_webdataset(tar)
    for kind, contents in kinds.items():
        for content in contents:
            tar.write_bytes(data)
            before = open_shards(folder)
            before.read(0)
            tar.write_bytes(content)  # in place, as a disk loses it: what is open is the same file
            counts[f"tar, {kind}", "error", ours.error()] += 1
            counts[f"tar, {kind}", "skip", ours.skip()] += 1
            counts[f"tar, {kind}", "open", ours.under_way(before)] += 1
            counts[f"tar, {kind}", "verify", ours.verify(same=False)] += 1
            counts[f"tar, {kind}", "webdataset", judged_webdataset(tar, whole)] += 1
    tar.write_bytes(data)


def of_a_file(folder: Path, path: Path, log: Log, kinds: dict[str, list[bytes]], counts: Counter[Any]) -> None:
    """index.json, the table or sizes.json: JSON with other white space means the same."""
    ours, data, name = Ours(folder, log), path.read_bytes(), path.name.split("-")[0]
    for kind, contents in kinds.items():
        for content in contents:
            path.write_bytes(content)
            counts[f"{name}, {kind}", "error", ours.error()] += 1
            counts[f"{name}, {kind}", "skip", ours.skip()] += 1
            same = name.endswith(".json") and _means(content) == _means(data)
            counts[f"{name}, {kind}", "verify", ours.verify(same)] += 1
    path.write_bytes(data)


def _means(content: bytes) -> Any:
    try:
        found = json.loads(content)
    except ValueError:
        return content
    return {key: value for key, value in found.items() if key != "check"} if isinstance(found, dict) else found


def run(every: int, num_flips: int, bytes_apart: int) -> Counter[Any]:
    """{(what was damaged, how it was read, what came of it): times}."""
    counts: Counter[Any] = Counter()
    log = Log()
    logger = logging.getLogger("stec")
    logger.addHandler(log)
    propagates, logger.propagate = logger.propagate, False
    place = Path(tempfile.mkdtemp())
    try:
        folder = place / "train"
        tar = write_shard(folder)
        data = tar.read_bytes()
        of_the_tar(folder, tar, log, {"cut": [*cuts(data, every)], "bit": [*flips(data, num_flips)]}, counts)
        for path in (folder / "index.json", next(folder.glob("table-*.npy")), folder / "sizes.json"):
            data = path.read_bytes()
            kinds = {"cut": [*cuts(data, bytes_apart)], "bit": [*flips(data, num_flips)]}
            of_a_file(folder, path, log, kinds, counts)
    finally:
        logger.removeHandler(log)
        logger.propagate = propagates
        shutil.rmtree(place)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=64, help="bytes between cuts of the tar")
    parser.add_argument("--bytes", type=int, default=7, help="bytes between cuts of the other files")
    parser.add_argument("--flips", type=int, default=300)
    arguments = parser.parse_args()
    counts = run(arguments.every, arguments.flips, arguments.bytes)
    print("| damaged | read by | tried | harmless | detected | silent |\n|---|---|---|---|---|---|")
    for what, way in dict.fromkeys((what, way) for what, way, _ in counts):
        numbers = [counts[what, way, outcome] for outcome in (HARMLESS, DETECTED, SILENT)]
        print(f"| {what} | {way} | {sum(numbers)} | {' | '.join(map(str, numbers))} |")
    return int(any(outcome == SILENT and way != "webdataset" for _, way, outcome in counts))


if __name__ == "__main__":
    sys.exit(main())
