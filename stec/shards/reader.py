"""Samples of a split by their number: any of them at once, by one read at its offset."""

import os
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from stec.errors import DataError
from stec.shards.index import NAME, Index, Table, read_index
from stec.shards.table import is_intact, mapped
from stec.shards.tar import Shard

MAX_OPEN = 32
"""Tars that one process keeps open."""


class Shards:
    """The samples of one split, numbered through in the order of its tars.

    num_samples; shard_sizes: samples of each tar; fields: extensions, sorted; meta: what the packer said of the split;
    fingerprint: names exactly this data. Can be pickled (whoever unpickles opens its own files), and reads from
    several threads.
    """

    def __init__(self, folder: Path, index: Index):
        self.folder = folder
        self.num_samples = index.num_samples
        self.shard_names = tuple(shard.name for shard in index.shards)
        self.shard_sizes = tuple(shard.num_samples for shard in index.shards)
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
            raise DataError(
                f"{self.where(sample)}: its row in {self._table.name} is damaged: `stec-shards index` again."
            )
        members = [
            m for m in zip(self.fields, *(row[n].tolist() for n in ("offset", "size", "crc32")), strict=True) if m[1]
        ]
        start = min(offset for _, offset, _, _ in members)
        end = max(offset + size for _, offset, size, _ in members)
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

    def _shard(self, sample: int) -> int:
        return int(np.searchsorted(self._ends, sample, side="right"))

    def _row(self, sample: int) -> np.void:
        if not 0 <= sample < self.num_samples:
            raise IndexError(f"sample {sample} of {self.num_samples}.")
        return self._rows[sample]

    def _open(self) -> None:
        self._rows = mapped(self._table, self.num_samples, len(self.fields))
        names, folder = self.shard_names, self.folder
        self._file = lru_cache(maxsize=MAX_OPEN)(lambda shard: _File(folder / names[shard]))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_rows", "_file")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def open_shards(folder: str | Path) -> Shards:
    """The split in a folder. UsageError if it has no index; DataError if the tars are not those that were indexed (the
    sizes tell) or the table is not the one that belongs to the index."""
    folder = Path(folder)
    index = read_index(folder)
    problems = []
    files: list[Table | Shard] = [index.table, *index.shards]
    for file in files:
        try:
            num_bytes = (folder / file.name).stat().st_size
        except OSError as error:
            problems.append(f"{file.name} is not readable ({error.strerror})")
            continue
        if num_bytes != file.num_bytes:
            problems.append(f"{file.name} has {num_bytes} bytes, the index says {file.num_bytes}")
    if problems:
        more = f", and {len(problems) - 5} more such files" if len(problems) > 5 else ""
        raise DataError(f"{folder}: {', '.join(problems[:5])}{more}.")
    return Shards(folder, index)


def find_split(root: str | Path, split: str) -> Shards | None:
    """The split of a packed data set, or of a single indexed folder, which counts as `train`; None if it has none."""
    root = Path(root)
    if (root / split / NAME).is_file():
        return open_shards(root / split)
    return open_shards(root) if split == "train" and (root / NAME).is_file() else None


class _File:
    """A file that is open as long as somebody holds it, whoever dropped it from the cache meanwhile."""

    def __init__(self, path: Path):
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, start: int, size: int) -> bytes:
        """size bytes from `start`, fewer if the file ends before; the system may hand them over in parts."""
        data = os.pread(self._descriptor, size, start)
        while len(data) < size and (more := os.pread(self._descriptor, size - len(data), start + len(data))):
            data += more
        return data

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
