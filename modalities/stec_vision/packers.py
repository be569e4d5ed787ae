"""Packers of pictures that are files or WebP already: their bytes go into the shards as they are, or smaller if asked.
And what the packers of pictures share.

A packer names its `splits`, yields the samples of one ({"__key__", extension: bytes, "cls"}), and describes it in
`meta`.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stec.errors import DataError, UsageError
from stec.shards.folders import Folder, position
from stec_vision.reading import EXTENSIONS
from stec_vision.shrink import QUALITY, as_they_are, shrunk

Sample = dict[str, Any]
SMALL = 1 << 26
"""Bytes that an array of an npz may have, however small the file is."""


class ImageFolder:
    """Any folder of pictures; splits and labels by sub-folders or by hash, as `stec.shards.folders.Folder` tells.

    shorter: larger pictures are resized until their shorter side has so many pixels, and stored as JPEG: smaller and
    faster to read, but not without loss (`stec_vision.shrink`). None: all files as they are.
    """

    def __init__(self, source: str, *, holdout: float = 0.1, shorter: int | None = None):
        if shorter is not None and shorter < 1:
            raise UsageError(f"packer.shorter={shorter} must be at least 1 pixel, or null for files as they are.")
        self._folder, self._shorter = Folder(source, extensions=EXTENSIONS, things="pictures", holdout=holdout), shorter
        self.splits, self.classes = self._folder.splits, self._folder.classes

    def samples(self, split: str) -> Iterator[Sample]:
        """Samples of a split, bytes as they are on disk unless they are resized; "json" keeps the path within the
        folder."""
        files = self._folder.files(split)
        return as_they_are(files) if self._shorter is None else shrunk(files, split, self._shorter)

    def meta(self, split: str) -> dict[str, Any]:
        """Of a split; "resized", where pictures were, says to what, and at which JPEG quality."""
        found = self._folder.meta(split)
        return found if self._shorter is None else {**found, "resized": {"shorter": self._shorter, "quality": QUALITY}}


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
            unfolded = arrays.zip.getinfo(f"{name}.npy").file_size
            if unfolded > max(SMALL, 4 * path.stat().st_size):
                raise ValueError(f"it unfolds to {unfolded:,} bytes, many times as many as the file has")
            found = np.atleast_1d(arrays[name])
            if found.dtype.kind == "U":
                found.tolist()  # numpy does not look whether they are letters, but Python does
            return found
    except Exception as error:  # of a damaged header come errors of zipfile, zlib, numpy, and of Python's own parser
        raise DataError(f"{path.name}: no readable array {name!r}: {error}.") from error


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
