"""Packers of pictures that are files or WebP already: their bytes go into the shards as they are. And what all packers
share.

A packer names its `splits`, yields the samples of one ({"__key__", extension: bytes, "cls"}), and describes it in
`meta`.
"""

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stec.errors import DataError, UsageError
from stec_vision.reading import EXTENSIONS

Sample = dict[str, Any]

_TEST_NAMES = ("val", "test", "valid", "validation")


def position(name: str) -> float:
    """A number in [0, 1) that depends on the name alone: orders and splits samples the same on every machine."""
    # surrogateescape: a file name need not be text.
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:6], "big") / 2**48


class ImageFolder:
    """Any folder of pictures. Sub-folders of the first level are the labels if there are at least two and no picture
    lies beside them; none are needed.

    ImageNet's layout (train/ beside val/ or test/) gives the splits. Else the fraction `holdout` is held out for
    testing by a hash of each path: a picture never changes sides when others are added. Samples come in hashed order,
    so that every shard, and any prefix, is a mixture of the classes.
    """

    def __init__(self, source: str, *, holdout: float = 0.1):
        if not 0 <= holdout < 1:
            raise UsageError(f"packer.holdout={holdout} must be in [0, 1): the fraction held out for testing.")
        root = Path(source)
        if not source or not root.is_dir():
            raise UsageError(f"{source or 'no source is given'}: no such folder of pictures.")
        test = next((name for name in _TEST_NAMES if (root / name).is_dir()), None)
        apart = test is not None and (root / "train").is_dir()
        if apart:
            self._roots = {"train": root / "train", "test": root / str(test)}
            self._files = {split: _pictures(folder) for split, folder in self._roots.items()}
        else:
            self._files = _hold_out(_pictures(root), holdout)
            self._roots = dict.fromkeys(self._files, root)
        for split, files in self._files.items():
            if not files:
                extensions = ", ".join(EXTENSIONS)
                raise UsageError(
                    f"{self._roots[split]}: no pictures ({extensions}) in this folder or below it"
                    + (", but tars: `stec-shards index` makes shards of them." if _holds_tars(root) else ".")
                )
        self.splits = tuple(self._files)
        self.classes = _classes([file for files in self._files.values() for file in files])
        if apart and not self.classes and _classes(self._files["train"]):
            raise UsageError(
                f"{self._roots['test']}: these pictures do not lie in folders, one for each class, as those of"
                f" {self._roots['train']} do: sort them likewise, or move them away."
            )

    def samples(self, split: str) -> Iterator[Sample]:
        """Samples of a split, bytes as they are on disk; "json" keeps the path within the folder."""
        number = {name: index for index, name in enumerate(self.classes)}
        for count, file in enumerate(self._files[split]):
            extension = file.rpartition(".")[2].lower()
            sample: Sample = {
                "__key__": f"{split}-{count:08d}",
                "jpg" if extension == "jpeg" else extension: _bytes(self._roots[split] / file),
                "json": json.dumps({"path": file}).encode(),
            }
            if self.classes:
                sample["cls"] = str(number[file.partition("/")[0]]).encode()
            yield sample

    def meta(self, split: str) -> dict[str, Any]:
        return {"classes": self.classes, "num_samples": len(self._files[split])}


class Npz:
    """train-*.npz and test.npz in a folder, each with `classes` (names), `webp` (WebP files end to end, uint8),
    `offset` (int64 [N + 1]), `y` (uint8 [N]) and `filename`. subset: only this many training pictures, the first by
    hash of their names."""

    def __init__(self, source: str, *, subset: int | None = None):
        if not source:
            raise UsageError("no source is given: a folder of npz files was expected.")
        root = Path(source)
        self._files = {"train": sorted(root.glob("train*.npz")), "test": sorted(root.glob("test*.npz"))}
        for split, files in self._files.items():
            if not files:
                raise UsageError(f"{source}: no {split}*.npz in this folder.")
        self.splits = tuple(self._files)
        self._kept = {"test": None, "train": _first(self._files["train"], subset)}

    def samples(self, split: str) -> Iterator[Sample]:
        number, count, kept = 0, 0, self._kept[split]
        for path in self._files[split]:
            names, offset = _array(path, "filename"), _array(path, "offset")
            labels, data = _array(path, "y"), _array(path, "webp").tobytes()
            if (
                not len(names) == len(labels) == len(offset) - 1
                or offset[-1] != len(data)
                or (np.diff(offset) < 0).any()
            ):
                raise DataError(f"{path.name}: filename, y, offset and webp do not belong together.")
            for index in range(len(names)):
                if kept is None or number + index in kept:
                    yield {
                        "__key__": f"{split}-{count:08d}",
                        "webp": data[offset[index] : offset[index + 1]],
                        "cls": str(int(labels[index])).encode(),
                    }
                    count += 1
            number += len(names)

    def meta(self, split: str) -> dict[str, Any]:
        return {"classes": [str(name) for name in _array(self._files[split][0], "classes")]}


def _array(path: Path, name: str) -> np.ndarray:
    """One array of an npz; nothing is ever unpickled."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])
    except (OSError, ValueError, LookupError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path.name}: no readable array {name!r}: {error}.") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: unreadable: {error.strerror}.") from error


def _first(files: list[Path], subset: int | None) -> frozenset[int] | None:
    """Numbers of the pictures (over all files) that belong to the subset; None for all."""
    if subset is None:
        return None
    return first_by_hash([str(name) for path in files for name in _array(path, "filename")], subset)


def lossless(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] -> WebP that decodes to exactly these pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=50, method=2, exact=True)
    return buffer.getvalue()


def first_by_hash(names: list[str], subset: int) -> frozenset[int]:
    """Numbers of the `subset` pictures that come first by the hash of their names."""
    if subset < 1:
        raise UsageError(f"packer.subset={subset} must be at least 1, or null for all.")
    if subset > len(names):
        raise UsageError(f"packer.subset={subset}: there are only {len(names)} training pictures.")
    return frozenset(np.argsort([position(name) for name in names], kind="stable")[:subset].tolist())


def _pictures(root: Path) -> list[str]:
    """Relative paths (forward slashes) of all pictures below root, in hashed order; what is hidden is left out."""
    found, seen = [], set()
    for folder, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(folder).relative_to(root)
        for name in files:
            if name.rpartition(".")[2].lower() in EXTENSIONS and not name.startswith("."):
                found.append((inside / name).as_posix())  # noqa: PERF401
    return sorted(found, key=lambda path: (position(path), path))


def _holds_tars(root: Path) -> bool:
    return any(next(root.glob(pattern), None) is not None for pattern in ("*.tar", "*/*.tar"))


def _hold_out(files: list[str], fraction: float) -> dict[str, list[str]]:
    """Train and test by hash; at least one of each, if three pictures or more can be shared out."""
    if fraction == 0 or len(files) < 3:  # to learn takes two
        return {"train": files}
    # Another hash than the one that orders them, or the test pictures would be a prefix.
    ranked = sorted(files, key=lambda path: position("holdout/" + path))
    test = {path for path in ranked if position("holdout/" + path) < fraction} or {ranked[0]}
    if len(test) == len(files):
        test.remove(ranked[-1])
    return {"train": [f for f in files if f not in test], "test": [f for f in files if f in test]}


def _classes(files: list[str]) -> list[str]:
    """Names of the first-level folders, sorted; none if a picture lies beside them or there is only one."""
    tops = {file.partition("/")[0] if "/" in file else "" for file in files}
    return [] if "" in tops or len(tops) < 2 else sorted(tops)
