"""Samples of a split by their number: any of them at once, by one read at its offset."""

import logging
import os
import stat
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from stec.errors import DataError
from stec.shards.index import NAME, Index, Table, read_index
from stec.shards.table import is_intact, mapped
from stec.shards.tar import Shard

log = logging.getLogger("stec")

MAX_OPEN = 32
"""Tars that one process keeps open."""
NAMED = 5
"""Files that an error names one by one."""


class Shards:
    """The samples of one split, numbered through in the order of its tars.

    num_samples; shard_sizes: samples of each tar; fields: extensions, sorted; meta: what the packer said of the split;
    fingerprint: names exactly this data; shard_hashes: {tar: the beginning of its sha256}. Can be pickled (whoever
    unpickles opens its own files), and reads from several threads.
    """

    def __init__(self, folder: Path, index: Index):
        self.folder: Path | str = folder
        self.num_samples = index.num_samples
        self.shard_names = tuple(shard.name for shard in index.shards)
        self.shard_sizes = tuple(shard.num_samples for shard in index.shards)
        self.shard_hashes = {shard.name: shard.sha256[:16] for shard in index.shards}
        self.num_bytes = sum(shard.num_bytes for shard in index.shards)
        self.fields = index.fields
        self.meta: dict[str, Any] = index.meta
        self.fingerprint = index.fingerprint
        self._table = folder / index.table.name
        self._ends = np.cumsum(self.shard_sizes)
        self._open()

    def read(self, sample: int) -> dict[str, bytes]:
        """{field: bytes} of a sample, without its key; DataError names shard and key if anything of it is damaged."""
        row = self._row(sample)
        if not is_intact(row):
            raise DataError(  # by its number, since the key stands in that row
                f"{self.shard_names[self._shard(sample)]}: sample {sample}: its row in {self._table.name} is damaged:"
                " `stec-shards index` again."
            )
        members = [
            m for m in zip(self.fields, *(row[n].tolist() for n in ("offset", "size", "crc32")), strict=True) if m[1]
        ]
        start = min((offset for _, offset, _, _ in members), default=0)
        end = max((offset + size for _, offset, size, _ in members), default=0)
        try:
            file = self._file(self._shard(sample))
            # One read for all: the members of a sample stand together.
            data = file.read(start, end - start)
        except OSError as error:
            raise DataError(f"{self.where(sample)} cannot be read: {error.strerror or error}.") from error
        found = {}
        for field, offset, size, crc32 in members:
            member = data[offset - start : offset - start + size]
            if len(member) != size or zlib.crc32(member) != crc32:
                raise DataError(f"{self.where(sample)}.{field} is damaged: its bytes are not those that were indexed.")
            found[field] = member
        return found

    def key(self, sample: int) -> str:
        """The key of a sample, for logs (bytes that are not UTF-8 are shown as such)."""
        return bytes(self._row(sample)["key"]).decode("utf-8", "backslashreplace")

    def where(self, sample: int) -> str:
        """Tar and key of a sample, as in `train-000002.tar: train-00002017`."""
        return f"{self.shard_names[self._shard(sample)]}: {self.key(sample)}"

    def beyond(self, shard: int, num_bytes: int) -> int:
        """How many samples of a tar do not lie whole within its first num_bytes bytes."""
        end = int(self._ends[shard])
        rows = self._rows[end - self.shard_sizes[shard] : end]
        return int(((rows["offset"] + rows["size"]).max(axis=1, initial=0) > num_bytes).sum())

    def _shard(self, sample: int) -> int:
        return int(np.searchsorted(self._ends, sample, side="right"))

    def _row(self, sample: int) -> np.void:
        if not 0 <= sample < self.num_samples:
            raise IndexError(f"sample {sample} of {self.num_samples}.")
        return self._rows[sample]

    def _open(self) -> None:
        self._rows = mapped(self._table, self.num_samples, len(self.fields))
        names, folder = self.shard_names, self._table.parent
        self._file = lru_cache(maxsize=MAX_OPEN)(lambda shard: File(folder / names[shard]))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_rows", "_file")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def open_shards(folder: str | Path, max_bad: float = 0.0) -> Shards:
    """The split in a folder. UsageError if it has no index; DataError if the tars are not those that were indexed (the
    sizes tell) or the table is not the one that belongs to the index.

    max_bad: share of the samples that may be lost. Above 0, tars of another size are named in the log instead, and
    only more lost samples than that are a DataError: all of a missing tar, those beyond the end of a short one.
    Whatever else is damaged is found when it is read.
    """
    folder = Path(folder)
    index = read_index(folder)
    files: list[Table | Shard] = [index.table, *index.shards]
    sizes = {file.name: _num_bytes(folder / file.name) for file in files}
    told = [said for file in files if (said := _differs(file, sizes[file.name]))]
    if told and (not max_bad or _differs(index.table, sizes[index.table.name])):
        raise DataError(f"{folder}: {_some(told)}.")
    shards = Shards(folder, index)
    lost = 0
    for number, shard in enumerate(index.shards):
        found = sizes[shard.name]
        if said := _differs(shard, found):
            gone = shard.num_samples if isinstance(found, str) else shards.beyond(number, found)
            log.warning("damaged shard: %s: %d of its %d samples are lost", said, gone, shard.num_samples)
            lost += gone
    if lost > max(1, max_bad * index.num_samples):
        raise DataError(
            f"{folder}: {lost} of {index.num_samples} samples are lost, more than dataset.max_bad={max_bad} allows:"
            f" {_some(told)}."
        )
    return shards


def find_split(root: str | Path, split: str, max_bad: float = 0.0) -> Shards | None:
    """The split of a packed data set, or of a single indexed folder, which counts as `train`; None if it has none.
    max_bad, errors: as open_shards."""
    root = Path(root)
    if (root / split / NAME).is_file():
        return open_shards(root / split, max_bad)
    return open_shards(root, max_bad) if split == "train" and (root / NAME).is_file() else None


def _num_bytes(path: Path) -> int | str:
    """The size of a file, or why there is none."""
    try:
        facts = path.stat()
    except OSError as error:
        return error.strerror or str(error)
    return facts.st_size if stat.S_ISREG(facts.st_mode) else "not a file"


def _differs(file: Table | Shard, found: int | str) -> str:
    """How a file of this size is not the one that was indexed, in words; empty if it may be."""
    if isinstance(found, str):
        return f"{file.name} is not readable ({found})"
    return "" if found == file.num_bytes else f"{file.name} has {found} bytes, the index says {file.num_bytes}"


def _some(told: list[str]) -> str:
    more = f", and {len(told) - NAMED} more such files" if len(told) > NAMED else ""
    return ", ".join(told[:NAMED]) + more


class File:
    """A file that is open as long as somebody holds it, whoever dropped it from the cache meanwhile."""

    def __init__(self, path: Path):
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # or a pipe is waited for
        self._size = os.fstat(self._descriptor).st_size

    def read(self, start: int, size: int) -> bytes:
        """size bytes from `start`, fewer if the file ends before; the system may hand them over in parts."""
        start = max(0, start)  # a row may lie, and memory is taken for what it says
        size = max(0, min(size, self._size - start))
        data = os.pread(self._descriptor, size, start)
        while len(data) < size and (more := os.pread(self._descriptor, size - len(data), start + len(data))):
            data += more
        return data

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
