"""Read everything again, and tell what is not as it was indexed."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from stec.errors import DataError
from stec.shards.index import Index, read_index
from stec.shards.reader import Shards
from stec.shards.tar import Shard, scan
from stec.stored import from_json

MAX_SAMPLES_NAMED = 5
"""Damaged samples of a tar that are named one by one."""


def verify(folder: str | Path, progress: Callable[[int, int, str], None] | None = None) -> list[str]:
    """All problems of a split, a sentence each; empty if every byte is as it was indexed.

    progress(tars read, tars, name) is called after each tar. UsageError if there is no index.
    """
    folder = Path(folder)
    try:
        index = read_index(folder)
    except DataError as error:
        return [str(error)]
    problems = list(_around(folder, index))
    shards = None
    try:
        shards = Shards(folder, index)
    except DataError as error:
        problems.append(str(error))
    first = 0
    for count, shard in enumerate(index.shards, 1):
        numbers = range(first, first + shard.num_samples)
        first += shard.num_samples
        problems += _of_tar(folder / shard.name, shard, shards, numbers)
        if progress is not None:
            progress(count, len(index.shards), shard.name)
    return problems


def _around(folder: Path, index: Index) -> Iterator[str]:
    """Problems of what lies beside the tars, and tars nobody indexed."""
    table = folder / index.table.name
    if table.is_file() and _sha256(table) != index.table.sha256:
        yield f"{index.table.name} is damaged: its bytes are not those that index.json knows."
    try:
        sizes = from_json((folder / "sizes.json").read_bytes())
    except (OSError, ValueError) as error:
        yield f"sizes.json cannot be read: {error}."
    else:
        if sizes != {shard.name: shard.num_samples for shard in index.shards}:
            yield "sizes.json and index.json disagree about the number of samples."
    known = {shard.name for shard in index.shards}
    for path in sorted(folder.glob("*.tar")):
        if path.name not in known and not path.name.startswith("."):
            yield f"{path.name} is not in the index: its samples are never read."


def _of_tar(path: Path, shard: Shard, shards: Shards | None, numbers: range) -> Iterator[str]:
    """Problems of one tar: the file, what a scan finds in it, and each of its samples read through the index."""
    if not path.is_file():
        yield f"{path.name} is missing."
        return
    try:
        num_bytes = path.stat().st_size
        if num_bytes != shard.num_bytes:
            yield f"{path.name} has {num_bytes} bytes, the index says {shard.num_bytes}."
        if _sha256(path) != shard.sha256:
            yield f"{path.name} has changed: its sha256 is not the one in the index."
            found = scan(path).shard.num_samples
            if found != shard.num_samples:
                yield f"{path.name} has {found} samples, the index says {shard.num_samples}."
    except OSError as error:
        yield f"{path.name} cannot be read: {error.strerror or error}."
        return
    except DataError as error:
        yield str(error)
    if shards is not None:
        yield from _of_samples(shards, numbers, path.name)


def _of_samples(shards: Shards, numbers: range, name: str) -> Iterator[str]:
    """The first damaged samples by their sentences, and how many there are."""
    damaged = []
    for number in numbers:
        try:
            shards.read(number)
        except DataError as error:
            damaged.append(str(error))
    yield from damaged[:MAX_SAMPLES_NAMED]
    if len(damaged) > MAX_SAMPLES_NAMED:
        yield f"{name}: {len(damaged)} of {len(numbers)} samples are damaged in all."


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
