"""Shards of pictures that can be damaged in a known place."""

import io
import resource
from collections.abc import Callable, Iterable
from multiprocessing.util import Finalize
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stec.shards.reader import open_shards
from stec.shards.writer import write_split

# An epoch of six batches of nine, after which a run leaves without measuring anything.
EPOCH = ("batch_size=9", "training.epochs=2", "training.stop_after=6")
# To the end, but nothing is measured that would take time.
WHOLE = ("training.epochs=1", "evaluation.raw_input=false", "evaluation.linear=null", "evaluation.action=null")


def picture(number: int) -> bytes:
    """A smooth picture of 40 x 44, as PNG."""
    small = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((44, 40), Image.Resampling.BILINEAR).save(buffer, "PNG")
    return buffer.getvalue()


def sample(number: int, **members: bytes) -> dict[str, object]:
    """{"__key__", "png", "cls"}; members given are added, or stand in for these."""
    return {"__key__": f"p{number:04d}", "png": picture(number), "cls": b"%d" % (number % 3), **members}


def write_shards(place: Path, samples: Iterable[dict[str, object]], samples_per_shard: int = 1000) -> Path:
    """place/train of these samples, each of three classes."""
    meta = {"classes": ["one", "two", "three"]}
    write_split(samples, place / "train", name="train", meta=meta, samples_per_shard=samples_per_shard)
    return place / "train"


def change(path: Path, by: Callable[[bytes], bytes]) -> None:
    path.write_bytes(by(path.read_bytes()))


def flip_in(folder: Path, number: int) -> None:
    """One bit of a sample's first member, in the tar that holds it."""
    shards = open_shards(folder)
    row = shards._row(number)
    path = folder / shards.where(number).partition(": ")[0]
    place = int(row["offset"].max()) + 5
    change(path, lambda data: data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])


def log_of(run: Path) -> str:
    return (run / "train.log").read_text(encoding="utf-8")


def tell_peak(path: Path) -> None:
    """At the end of the command, write down the most memory that it ever held, in bytes; for `before=`."""

    def tell() -> None:
        status = Path("/proc/self/status").read_text()
        path.write_text(str(int(status.partition("VmHWM:")[2].split()[0]) * 1024))

    Finalize(None, tell, exitpriority=1)


def limit_memory(num_bytes: int) -> None:
    """No more than so much beyond what is mapped now; for `before=`."""
    torch.set_num_threads(1)  # each of them would map as much again, on machines with many
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + num_bytes, mapped + num_bytes))
