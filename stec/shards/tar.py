"""What is in one tar: its samples by WebDataset's rule, where their bytes lie, and whether it is whole.

The key of a member is its path up to the first dot of the file name, its field is what follows, in lower case. The
members of a sample stand together. Python's tarfile stops without a word at a header it cannot read, so that a damaged
tar looks like a short one; here nothing but zeros may follow the last member.
"""

import hashlib
import os
import re
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from stec.errors import DataError
from stec.shards.table import row_type

MAX_FIELDS = 64
"""A tar with more different fields than this has keys that contain dots."""
MAX_KEY = 4096
"""Bytes of a key: no path is longer, and all rows of the table are as long as its longest key."""
MAX_HEADER = 1 << 16
"""Bytes that a header may take: it holds a name and a few facts, but is free to claim gigabytes."""
MAX_DIGITS = 100
"""Digits in a row in a long header: older versions of tarfile look at each of them once for each of those after it."""

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}


class Shard(NamedTuple):
    """A tar as the index knows it."""

    name: str
    num_samples: int
    num_bytes: int
    sha256: str


class Scan(NamedTuple):
    """A tar read from end to end: its rows (not sealed), their fields, and how many entries were no sample's member."""

    shard: Shard
    fields: tuple[str, ...]
    rows: np.ndarray
    num_skipped: int


class _Headers:
    """What tarfile sees of a file: reads of the length that headers have, and only one that finds nothing: some damaged
    headers it would read on and on at the end of a file."""

    def __init__(self, file: BinaryIO):
        self.seek, self.tell = file.seek, file.tell
        self._read, self._ended = file.read, False

    def read(self, size: int) -> bytes:
        data = self._read(size) if size <= MAX_HEADER else b""
        if not data and (self._ended or size > MAX_HEADER):
            raise tarfile.ReadError(f"a header of {size} bytes is too long, or beyond the end")
        if max(map(len, re.findall(rb"\d+", data)), default=0) > MAX_DIGITS:
            raise tarfile.ReadError(f"a header holds a number of more than {MAX_DIGITS} digits")
        self._ended = not data
        return data


class _Member(NamedTuple):
    key: str
    field: str
    offset: int
    size: int
    crc32: int


def split_name(path: str) -> tuple[str, str] | None:
    """(key, field) of a member's path; None if it belongs to no sample: hidden, without an extension, or metadata."""
    folder, slash, name = path.rpartition("/")
    stem, _, field = name.partition(".")
    if not stem or not field or re.match(r"__[^/]*__(/|$)", path):
        return None
    return folder + slash + stem, field.lower()


def scan(path: Path) -> Scan:
    """Read all of a tar; DataError names the tar and what is wrong with it."""
    try:
        with path.open("rb") as file:
            members, num_skipped = _members(file, path.name)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            num_bytes = file.tell()
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror or error}.") from error
    fields, rows = _rows(_grouped(members, path.name), path.name)
    return Scan(Shard(path.name, len(rows), num_bytes, sha256), fields, rows, num_skipped)


def _members(file: BinaryIO, name: str) -> tuple[list[_Member], int]:
    """The members of samples in stored order, and how many other entries there are (links, hidden files, ...)."""
    start = file.read(512)
    for magic, method in _COMPRESSED.items():
        if start.startswith(magic):
            raise DataError(f"{name} is compressed with {method}: unpack it first, samples are read by their offset.")
    file.seek(0)
    try:
        with tarfile.open(fileobj=_Headers(file), mode="r:") as tar:  # type: ignore[call-overload]
            entries = []
            for entry in tar:
                longer = entry.isreg() and not entry.issparse() and entry.offset_data + entry.size > tar.offset
                if entry.size < 0 or tar.offset <= entry.offset or longer:
                    raise tarfile.ReadError(f"the member at byte {entry.offset} claims another length than it has")
                entries.append(entry)
            end = tar.offset
    except OSError:
        raise
    except Exception as error:  # a damaged header can end in almost any error of tarfile
        raise DataError(f"{name} is not a whole tar: {str(error) or type(error).__name__}.") from error
    _check_end(file, end, name)
    members = []
    for entry in entries:
        found = split_name(entry.name)
        if found is None or not entry.isreg():
            continue
        if entry.issparse():
            raise DataError(f"{name}: {entry.name!r} is a sparse file, which has no bytes to be read by their offset.")
        if len(os.fsencode(found[0])) > MAX_KEY:
            raise DataError(f"{name}: a member at byte {entry.offset} has a name of more than {MAX_KEY} bytes.")
        file.seek(entry.offset_data)
        members.append(_Member(*found, entry.offset_data, entry.size, zlib.crc32(file.read(entry.size))))
    return members, len([entry for entry in entries if not entry.isdir()]) - len(members)


def _check_end(file: BinaryIO, end: int, name: str) -> None:
    """After the last member: a block of zeros at least, and nothing but zeros."""
    file.seek(end)
    length = 0
    while block := file.read(1 << 20):
        length += len(block)
        if block.count(0) != len(block):
            raise DataError(f"{name} is damaged at byte {end}: neither a member nor the end of a tar stands there.")
    if length < 512:
        raise DataError(f"{name} is cut off at byte {end + length}: the end mark of a tar is missing.")


def _grouped(members: list[_Member], name: str) -> dict[str, dict[str, _Member]]:
    """{key: {field: member}} in stored order."""
    samples: dict[str, dict[str, _Member]] = {}
    last = None
    for member in members:
        if member.key != last and member.key in samples:
            raise DataError(
                f"{name}: key {member.key!r} comes back after another one: a sample's members must stand together."
            )
        sample = samples.setdefault(member.key, {})
        if member.field in sample:
            raise DataError(f"{name}: sample {member.key!r} has two members {member.field!r}.")
        sample[member.field] = member
        last = member.key
    return samples


def _rows(samples: dict[str, dict[str, _Member]], name: str) -> tuple[tuple[str, ...], np.ndarray]:
    """(fields, rows) of the samples of a tar."""
    fields = tuple(sorted({field for sample in samples.values() for field in sample}))
    if len(fields) > MAX_FIELDS:
        raise DataError(
            f"{name}: {len(fields)} different extensions such as {fields[0]!r} and {fields[-1]!r}: a key ends at the"
            " first dot of a file name, so keys must not contain dots."
        )
    keys = [key.encode("utf-8", "surrogateescape") for key in samples]
    rows = np.zeros(len(keys), row_type(max(map(len, keys), default=1), len(fields)))
    rows["key"] = keys
    for number, sample in enumerate(samples.values()):
        for member in sample.values():
            column = fields.index(member.field)
            rows["offset"][number, column] = member.offset
            rows["size"][number, column] = member.size
            rows["crc32"][number, column] = member.crc32
    return fields, rows
