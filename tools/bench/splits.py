"""Splits on disk, as large as is asked for, that take the room of one tar."""

import os
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from pictures import jpegs

from stec.shards.index import write_index
from stec.shards.tar import scan
from stec.shards.writer import write_split


def samples(raws: Sequence[bytes], number: int) -> list[dict[str, Any]]:
    """So many samples, which are these files again and again."""
    return [{"__key__": f"{i:06d}", "jpg": raw, "cls": b"0"} for i, raw in enumerate(islice(cycle(raws), number))]


def photographs(number: int) -> list[dict[str, Any]]:
    """Samples that are synthesised JPEGs, of which 50 differ."""
    return samples(jpegs(min(number, 50)), number)


def shards(folder: Path, num_tars: int, samples: list[dict[str, Any]]) -> None:
    """A split of num_tars times these samples in folder/train: one tar, linked to under every name."""
    write_split(samples, folder / "train", name="train", meta={}, samples_per_shard=len(samples), max_bytes=2**40)
    first = folder / "train/train-000000.tar"
    known = scan(first)
    scans = []
    for number in range(num_tars):
        path = first.with_name(f"train-{number:06d}.tar")
        if number:
            os.link(first, path)
        scans.append(known._replace(shard=known.shard._replace(name=path.name)))
    write_index(folder / "train", scans, {})
