"""Files that are there whole, or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

Data = bytes | memoryview | Callable[[BinaryIO], object]


def write_whole(path: Path, data: Data) -> None:
    """Write to a neighbouring temporary file (.NAME.PID.tmp), force it to disk, rename it: whoever is killed, under the
    name there is all of it, or what was there before. data: bytes, or what writes them into a file. OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """The names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(*folders: Path) -> None:
    """Delete what killed writers left behind (only for who knows that nobody writes there)."""
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
