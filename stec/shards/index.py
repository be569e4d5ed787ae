"""The index of a split: a folder of tars, `index.json` and `sizes.json` beside them, and the table of its samples.

    index.json          {"format": 1, "num_samples", "fields": [...], "meta": {...}, "num_skipped",
                         "table": {"name", "num_bytes", "sha256"},
                         "shards": [{"name", "num_samples", "num_bytes", "sha256"}, ...],
                         "check": sha256 of all of this, where it was written}
    sizes.json          {tar: number of samples}, as OpenCLIP reads it
    table-HASH.npy      one row a sample (`table.py`), named by its content

The table is named by its content and index.json is replaced last, in one step: at every moment the index leads to the
table that was made with it, and a stale table is not found rather than believed.
"""

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from stec.errors import DataError, UsageError
from stec.shards.table import merged
from stec.shards.tar import Scan, Shard, scan
from stec.stored import from_json
from stec.whole import sweep, write_whole

log = logging.getLogger("stec")

FORMAT = 1
NAME = "index.json"
KEYS = {"format", "num_samples", "fields", "meta", "num_skipped", "table", "shards", "check"}


class Table(NamedTuple):
    """The file of the table."""

    name: str
    num_bytes: int
    sha256: str


File = TypeVar("File", Table, Shard)


class Index(NamedTuple):
    """index.json. num_skipped: entries of the tars that belong to no sample; meta: what the packer said."""

    shards: tuple[Shard, ...]
    fields: tuple[str, ...]
    table: Table
    num_skipped: int
    meta: dict[str, Any]

    @property
    def num_samples(self) -> int:
        return sum(shard.num_samples for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that name exactly these samples in this order."""
        lines = [f"{shard.name} {shard.num_samples} {shard.sha256}\n" for shard in self.shards]
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def read_index(folder: Path) -> Index:
    """The index of a folder; UsageError if there is none or it is newer, DataError if it is damaged."""
    path = folder / NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{folder}: no {NAME} here: `stec-shards index {folder}` makes one for the tars in it."
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}: run `stec-shards index` again.") from error
    return parsed(data, str(path))


def parsed(data: bytes, path: str) -> Index:
    """The index in a file's bytes; path: where they come from, for the errors, which are those of read_index."""
    try:
        found = from_json(data)
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}: run `stec-shards index` again.") from error
    try:
        if found["format"] != FORMAT:
            raise UsageError(f"{path} has format {found['format']!r}, this version of stec reads format {FORMAT}.")
        shards = tuple(_made(Shard, shard) for shard in found["shards"])
        table = _made(Table, found["table"])
        index = Index(shards, _texts(found["fields"]), table, found["num_skipped"], _described(found["meta"]))
        whole = index.num_samples == found["num_samples"]
        if unknown := sorted(found.keys() - KEYS):  # perhaps `check`, with a wrong letter
            raise KeyError(unknown[0])
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is not an index of shards: {error!r}: run `stec-shards index` again.") from error
    if not whole:
        raise DataError(f"{path} contradicts itself about the number of samples: run `stec-shards index` again.")
    for name in (table.name, *(shard.name for shard in shards)):
        if not _is_a_name(name):
            raise DataError(f"{path} names {name!r}, which is not a file of its folder.")
    if found.get("check") not in (None, _check(found)):
        raise DataError(f"{path} is damaged: its checksum does not fit its text: run `stec-shards index` again.")
    return index


def _made(kind: type[File], node: Any) -> File:
    """What a group of JSON describes; TypeError unless it has just these keys, with text or whole numbers from 0 on."""
    made = kind(**node)
    for key, wanted in kind.__annotations__.items():
        if type(value := getattr(made, key)) is not wanted or (wanted is int and not 0 <= value < 2**63):
            raise TypeError(f"{key} is {str(value)[:40]!r}")
    return made


def _texts(node: Any) -> tuple[str, ...]:
    """A list of text; TypeError for anything else."""
    if not isinstance(node, list) or not all(isinstance(one, str) for one in node):
        raise TypeError(f"{str(node)[:40]!r} is no list of text")
    return tuple(node)


def _described(node: Any) -> dict[str, Any]:
    """What a packer said; TypeError if it is no group of keys, or its classes have no names (numbers will do)."""
    if not isinstance(node, dict):
        raise TypeError("meta is no group of keys")
    if (classes := node.get("classes")) is None:
        return node
    if isinstance(classes, list):
        classes = [str(one) if type(one) is int else one for one in classes]
    return {**node, "classes": list(_texts(classes))}


def _is_a_name(name: str) -> bool:
    """Of a file in the same folder: no way leads out of it."""
    try:
        return Path(name).name == name not in ("", "..") and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def index_folder(folder: str | Path, progress: Callable[[int, int, str], None] | None = None) -> Index:
    """Read all tars of a folder (one split, sorted by name) and write its index, in place.

    What a packer said of the data in an earlier index is kept. progress(tars read, tars, name) is called after each.
    DataError names the tar that is damaged, compressed or has keys that come back; UsageError if there is no tar.
    """
    folder = Path(folder)
    scans = []
    tars = _tars(folder)
    for path in tars:
        scans.append(scan(path))
        if progress is not None:
            progress(len(scans), len(tars), path.name)
    return write_index(folder, scans, _earlier_meta(folder))


def write_index(folder: Path, scans: list[Scan], meta: dict[str, Any]) -> Index:
    """Write the index of scanned tars; DataError if they hold no sample."""
    fields, rows = merged([(part.fields, part.rows) for part in scans])
    if not len(rows):
        raise DataError(f"{folder}: {len(scans)} tars without a single sample.")
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    data = buffer.getbuffer()
    sha256 = hashlib.sha256(data).hexdigest()
    table = Table(f"table-{sha256[:16]}.npy", len(data), sha256)
    index = Index(tuple(part.shard for part in scans), fields, table, sum(part.num_skipped for part in scans), meta)
    text = {
        "format": FORMAT,
        "num_samples": index.num_samples,
        "fields": fields,
        "meta": meta,
        "num_skipped": index.num_skipped,
        "table": table._asdict(),
        "shards": [shard._asdict() for shard in index.shards],
    }
    text["check"] = _check(text)
    sizes = {shard.name: shard.num_samples for shard in index.shards}
    try:
        write_whole(folder / table.name, data)
        write_whole(folder / "sizes.json", json.dumps(sizes, indent=1).encode())
        write_whole(folder / NAME, json.dumps(text, indent=1).encode())
        sweep(folder)
        for path in folder.glob("table-*.npy"):
            if path.name != table.name:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: the index cannot be written here: {error.strerror}.") from error
    return index


def _tars(folder: Path) -> list[Path]:
    """The tars of a folder, sorted; UsageError if there are none, or compressed ones that would be left out."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of shards.")
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    packed = [path.name for path in files if path.name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"))]
    if packed:
        raise UsageError(f"{folder}: {packed[0]} is compressed: unpack it first, samples are read by their offset.")
    tars = [path for path in files if path.name.endswith(".tar") and path.is_file()]
    if not tars:
        below = [path.name for path in files if path.is_dir() and any(path.glob("*.tar"))]
        hint = f" (but in {', '.join(below)}: index each of them)" if below else ""
        raise UsageError(f"{folder}: no *.tar in this folder{hint}.")
    return tars


def _check(text: dict[str, Any]) -> str:
    """The checksum of an index: without it, a wrong letter in the name of a field or of a class would tell nobody."""
    return hashlib.sha256(json.dumps({key: text[key] for key in text if key != "check"}).encode()).hexdigest()


def _earlier_meta(folder: Path) -> dict[str, Any]:
    if not (folder / NAME).exists():
        return {}
    try:
        return read_index(folder).meta
    except DataError as error:
        log.warning("what the earlier index said of the data, such as names of classes, is lost: %s", error)
        return {}
