"""The table of a split: one row a sample, saying where its members lie. Memory-mapped, so that opening costs nothing.

A row holds the key, and for each field of the split the offset of the bytes within the tar (0: this sample has no such
member), their number and their CRC-32; and last the CRC-32 of the row itself, since a wrong row would be a silent loss.
"""

import warnings
import zlib
from pathlib import Path

import numpy as np

from stec.errors import DataError


def row_type(key_bytes: int, num_fields: int) -> np.dtype:
    """The type of a row whose key has at most key_bytes bytes (UTF-8), in a split of num_fields fields."""
    shape = (num_fields,)
    return np.dtype(
        [
            ("key", f"S{max(key_bytes, 1)}"),
            ("offset", "<i8", shape),
            ("size", "<i8", shape),
            ("crc32", "<u4", shape),
            ("check", "<u4"),
        ]
    )


def merged(parts: list[tuple[tuple[str, ...], np.ndarray]]) -> tuple[tuple[str, ...], np.ndarray]:
    """(fields, rows) of a split from the (fields, rows) of its shards, in their order; the rows are sealed."""
    fields = tuple(sorted({field for names, _ in parts for field in names}))
    key_bytes = max((rows.dtype["key"].itemsize for _, rows in parts), default=1)
    whole = np.zeros(sum(len(rows) for _, rows in parts), row_type(key_bytes, len(fields)))
    start = 0
    for names, rows in parts:
        part = whole[start : start + len(rows)]
        part["key"] = rows["key"]
        columns = [fields.index(name) for name in names]
        for what in ("offset", "size", "crc32"):
            part[what][:, columns] = rows[what]
        start += len(rows)
    width = whole.dtype.itemsize
    data = memoryview(whole.tobytes())
    whole["check"] = [zlib.crc32(data[i * width : (i + 1) * width - 4]) for i in range(len(whole))]
    return fields, whole


def is_intact(row: np.void) -> bool:
    """Whether a row is what was sealed."""
    data = row.tobytes()
    return zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little")


def mapped(path: Path, num_samples: int, num_fields: int) -> np.ndarray:
    """The rows in a file, memory-mapped; DataError if the file is not a table of this shape."""
    try:
        with warnings.catch_warnings(action="ignore"):  # what numpy says of an odd header is in the error as well
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        names = rows.dtype.names or ()
    except Exception as error:  # numpy reads a header by Python's own parser, and a damaged one raises what it likes
        raise DataError(f"{path}: not a readable table of samples: {' '.join(str(error).split())[:200]}.") from error
    if "key" not in names or rows.dtype != row_type(rows.dtype["key"].itemsize, num_fields):
        raise DataError(f"{path}: not a table of samples with {num_fields} fields: run `stec-shards index` again.")
    if rows.shape != (num_samples,):
        raise DataError(f"{path}: {rows.size} rows, index.json says {num_samples}: run `stec-shards index` again.")
    return rows
