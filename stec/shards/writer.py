"""Samples into tars that any WebDataset tool reads; a data set appears under its name whole, or not at all."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from webdataset.writer import TarWriter

from stec.errors import DataError, UsageError
from stec.shards.fresh import fresh_folder
from stec.shards.index import write_index
from stec.shards.tar import Scan, scan, split_name
from stec.whole import sync

SAMPLES_PER_SHARD = 1000
MAX_BYTES = 256 << 20

Sample = Mapping[str, Any]
"""{"__key__": str, extension: bytes, ...}"""


class Packer(Protocol):
    """What reads a data set in its own format."""

    splits: tuple[str, ...]

    def samples(self, split: str) -> Iterator[dict[str, Any]]:
        """{"__key__": str, extension: bytes, ...} of a split."""

    def meta(self, split: str) -> dict[str, Any]:
        """What JSON can hold of a split, such as {"classes": [...]}."""


def pack(
    packer: Packer,
    out: str | Path,
    *,
    samples_per_shard: int = SAMPLES_PER_SHARD,
    max_bytes: int = MAX_BYTES,
    progress: Callable[[int, str], None] | None = None,
) -> None:
    """Write out/{split}/ for every split of a packer. `out` must not exist, and does not until all of it is on disk.

    progress(samples written, split) is called after each sample. UsageError if `out` exists or cannot be written.
    """
    with fresh_folder(Path(out)) as folder:
        for split in packer.splits:
            samples = packer.samples(split)
            counted = samples if progress is None else _counted(samples, split, progress)
            write_split(
                counted,
                folder / split,
                name=split,
                meta=packer.meta(split),
                samples_per_shard=samples_per_shard,
                max_bytes=max_bytes,
            )


def write_split(
    samples: Iterable[Sample],
    folder: str | Path,
    *,
    name: str,
    meta: Mapping[str, Any],
    samples_per_shard: int = SAMPLES_PER_SHARD,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Write name-000000.tar, name-000001.tar, ... and their index into a new folder; everything is on disk at the end.

    A tar ends after samples_per_shard samples, or before one that would make it longer than max_bytes. UsageError for
    samples that a reader would read differently: keys with dots, repeated keys, members that are not bytes.
    """
    if samples_per_shard < 1 or max_bytes < 1:
        raise UsageError(f"samples_per_shard={samples_per_shard} and max_bytes={max_bytes} must be at least 1.")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UsageError(f"split {name!r}: a name of letters, digits, - and _ was expected.")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(f"{folder} exists: choose another name, or delete it first.") from None
    json.dumps(meta)  # refused now rather than after hours of packing
    scans: list[Scan] = []
    for number, part in enumerate(_parts(_checked(samples), samples_per_shard, max_bytes)):
        path = folder / f"{name}-{number:06d}.tar"
        _write_tar(path, part)
        scans.append(scan(path))  # now, while its bytes are still in the page cache
    if not scans:
        raise DataError(f"split {name!r} has no samples.")
    write_index(folder, scans, dict(meta))
    sync(folder)


def _checked(samples: Iterable[Sample]) -> Iterator[dict[str, Any]]:
    """Samples as they will be read again: fields in lower case; UsageError names the first that cannot be."""
    seen = set()
    for sample in samples:
        key = sample.get("__key__")
        if not isinstance(key, str) or key in seen:
            raise UsageError(f"sample key {key!r}: a text was expected that no other sample of the split has.")
        seen.add(key)
        members = {field.lower(): data for field, data in sample.items() if field != "__key__"}
        if not members or len(members) != len(sample) - 1:
            raise UsageError(f"sample {key!r}: members with different extensions were expected, not {list(sample)}.")
        for field, data in members.items():
            if split_name(f"{key}.{field}") != (key, field) or field.startswith("_") or "\0" in key:
                raise UsageError(
                    f"{key!r} with extension {field!r}: a key without dots and a plain extension were expected."
                )
            if not isinstance(data, bytes):
                raise UsageError(f"sample {key!r}: {field} is {type(data).__name__}, bytes were expected.")
        yield {"__key__": key, **members}


def _parts(samples: Iterator[dict[str, Any]], samples_per_shard: int, max_bytes: int) -> Iterator[list[dict[str, Any]]]:
    """Samples by the tar they go into; one tar's samples are held in memory."""
    part: list[dict[str, Any]] = []
    num_bytes = 0
    for sample in samples:
        # A member takes a header of 512 bytes, and its bytes up to the next multiple of 512.
        size = sum(512 + -(-len(data) // 512) * 512 for field, data in sample.items() if field != "__key__")
        if part and (len(part) == samples_per_shard or num_bytes + size > max_bytes):
            yield part
            part, num_bytes = [], 0
        part.append(sample)
        num_bytes += size
    if part:
        yield part


def _write_tar(path: Path, samples: list[dict[str, Any]]) -> None:
    """One tar, the same bytes for the same samples, on disk when this returns."""
    with path.open("wb") as file:
        # PAX: names may be long and not ASCII. A file of ours, so that no address is ever opened by webdataset.
        with TarWriter(file, encoder=False, mtime=0, format="PAX_FORMAT", compress=False) as tar:
            for sample in samples:
                tar.write(sample)
        file.flush()
        os.fsync(file.fileno())


def _counted(samples: Iterator[Sample], split: str, progress: Callable[[int, str], None]) -> Iterator[Sample]:
    for done, sample in enumerate(samples, 1):
        yield sample
        progress(done, split)
