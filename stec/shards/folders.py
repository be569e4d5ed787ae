"""Any folder of files as a data set: which files, which split, which label. What packers of such folders share."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stec.errors import DataError, UsageError

_TEST_NAMES = ("val", "test", "valid", "validation")


class File(NamedTuple):
    """A file of a split: what goes into its sample beside its content ({"__key__", "json", "cls"}), and where it is."""

    sample: dict[str, Any]
    path: Path

    @property
    def extension(self) -> str:
        """In small letters, without the dot."""
        return self.path.name.rpartition(".")[2].lower()


class Folder:
    """Files below a folder. Sub-folders of the first level are the labels if there are at least two and no file lies
    beside them; none are needed.

    train/ beside val/ or test/ gives the splits. Else the fraction `holdout` is held out for testing by a hash of each
    path: a file never changes sides when others are added. Files come in hashed order, so that every shard, and any
    prefix, is a mixture of the classes. What is hidden is left out. things: what the files are, for the errors.
    """

    def __init__(self, source: str, *, extensions: Sequence[str], things: str, holdout: float):
        check_holdout(holdout)
        root = Path(source)
        if not source or not root.is_dir():
            raise UsageError(f"{source or 'no source is given'}: no such folder of {things}.")
        test = next((name for name in _TEST_NAMES if (root / name).is_dir()), None)
        apart = test is not None and (root / "train").is_dir()
        if apart:
            self._roots = {"train": root / "train", "test": root / str(test)}
            self._files = {split: files_below(folder, extensions) for split, folder in self._roots.items()}
        else:
            self._files = hold_out(files_below(root, extensions), holdout)
            self._roots = dict.fromkeys(self._files, root)
        for split, files in self._files.items():
            if not files:
                raise UsageError(
                    f"{self._roots[split]}: no {things} ({', '.join(extensions)}) in this folder or below it"
                    + (", but tars: `stec-shards index` makes shards of them." if _holds_tars(root) else ".")
                )
        self.splits = tuple(self._files)
        self.classes = _classes([file for files in self._files.values() for file in files])
        if apart and not self.classes and _classes(self._files["train"]):
            raise UsageError(
                f"{self._roots['test']}: these {things} do not lie in folders, one for each class, as those of"
                f" {self._roots['train']} do: sort them likewise, or move them away."
            )

    def files(self, split: str) -> Iterator[File]:
        """The files of a split, numbered through; "json" keeps the path within the folder."""
        number = {name: index for index, name in enumerate(self.classes)}
        for count, file in enumerate(self._files[split]):
            sample = {"__key__": f"{split}-{count:08d}", "json": json.dumps({"path": file}).encode()}
            if self.classes:
                sample["cls"] = str(number[file.partition("/")[0]]).encode()
            yield File(sample, self._roots[split] / file)

    def meta(self, split: str) -> dict[str, Any]:
        return {"classes": self.classes, "num_samples": len(self._files[split])}


def position(name: str) -> float:
    """A number in [0, 1) that depends on the name alone: orders and splits samples the same on every machine."""
    # surrogateescape: a file name need not be text.
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:6], "big") / 2**48


def hashed(names: Sequence[str]) -> list[str]:
    """The names in an order that depends on each of them alone."""
    return sorted(names, key=lambda name: (position(name), name))


def files_below(root: Path, extensions: Sequence[str]) -> list[str]:
    """Relative paths (forward slashes) of all files with these extensions, in hashed order; what is hidden is left out.

    Links to folders are followed, unless one leads back.
    """
    found, seen = [], set()
    for folder, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(folder).relative_to(root)
        for name in files:
            if name.rpartition(".")[2].lower() in extensions and not name.startswith("."):
                found.append((inside / name).as_posix())  # noqa: PERF401
    return hashed(found)


def check_holdout(fraction: float) -> None:
    """UsageError unless it is a fraction that leaves something to learn from."""
    if not 0 <= fraction < 1:
        raise UsageError(f"packer.holdout={fraction} must be in [0, 1): the fraction held out for testing.")


def hold_out(names: list[str], fraction: float) -> dict[str, list[str]]:
    """Train and test by hash; at least one of each, if three or more can be shared out."""
    if fraction == 0 or len(names) < 3:  # to learn takes two
        return {"train": names}
    # Another hash than the one that orders them, or what is held out would be a prefix.
    ranked = sorted(names, key=lambda name: position("holdout/" + name))
    test = {name for name in ranked if position("holdout/" + name) < fraction} or {ranked[0]}
    if len(test) == len(names):
        test.remove(ranked[-1])
    return {"train": [n for n in names if n not in test], "test": [n for n in names if n in test]}


def read_bytes(path: Path) -> bytes:
    """All of a file; DataError if that cannot be had."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: unreadable: {error.strerror}.") from error


def _classes(files: list[str]) -> list[str]:
    """Names of the first-level folders, sorted; none if a file lies beside them or there is only one."""
    tops = {file.partition("/")[0] if "/" in file else "" for file in files}
    return [] if "" in tops or len(tops) < 2 else sorted(tops)


def _holds_tars(root: Path) -> bool:
    return any(next(root.glob(pattern), None) is not None for pattern in ("*.tar", "*/*.tar"))
