"""CIFAR and STL-10 as torchvision downloads them, unpacked or not. Nothing but plain arrays is ever unpickled."""

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple, TypeGuard

import numpy as np

from stec.errors import DataError, UsageError
from stec_vision.packers import Sample, first_by_hash, lossless
from stec_vision.unpickling import unpickle_plain

LARGEST = 1 << 28
"""Bytes of a file that is read whole: CIFAR-100 has one of 155 million, and a small archive can hold any number."""


class Layout(NamedTuple):
    """How a data set lies on disk: the archive, the folder in it, and a file by which that folder is known."""

    archive: str
    folder: str
    marker: str


class Place:
    """The files of a layout, in `source`: the archive, the folder, or a folder that holds either (unpacked first)."""

    def __init__(self, source: str, layout: Layout):
        """FileNotFoundError if there is nothing of this layout."""
        root = Path(source)
        self.folder = next((p for p in (root, root / layout.folder) if (p / layout.marker).is_file()), None)
        archives = (p for p in (root, root / layout.archive) if p.name == layout.archive and p.is_file())
        self.archive, self.inside = next(archives, None), layout.folder
        if self.folder is None and self.archive is None:
            raise FileNotFoundError(f"{source}: neither {layout.folder} nor {layout.archive} is here")

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A file to be read once from beginning to end; DataError if that cannot be done."""
        try:
            if self.folder is not None:
                with (self.folder / name).open("rb") as plain:
                    yield plain
            elif self.archive is not None:
                with tarfile.open(self.archive) as tar:
                    # Member by member: getmember would decompress gigabytes to the end before it answers.
                    member = next((m for m in tar if m.name == f"{self.inside}/{name}" and m.isfile()), None)
                    if member is None:
                        raise FileNotFoundError("there is no such member")
                    yield tar.extractfile(member)  # type: ignore[misc]
        except (KeyError, OSError, tarfile.TarError, EOFError, zlib.error) as error:
            where = self.folder or self.archive
            raise DataError(f"{where}: {name} is missing or unreadable: {error}.") from error

    def read(self, name: str) -> bytes:
        """All of a file; DataError if it is larger than any of these data sets has."""
        with self.open(name) as file:
            found = file.read(LARGEST + 1)
        if len(found) > LARGEST:
            raise DataError(f"{self.folder or self.archive}: {name} unfolds to more than {LARGEST:,} bytes: not read.")
        return found


class Cifar:
    """CIFAR-10 or CIFAR-100, python version: the .tar.gz, the unpacked folder, or the folder that holds either.

    classes: 10 or 100, which of the two; None: the one that is there. subset: only this many training pictures, the
    first by hash of their names.
    """

    splits = ("train", "test")
    layouts: ClassVar = {
        10: Layout("cifar-10-python.tar.gz", "cifar-10-batches-py", "batches.meta"),
        100: Layout("cifar-100-python.tar.gz", "cifar-100-python", "meta"),
    }

    def __init__(self, source: str, *, classes: int | None = None, subset: int | None = None):
        if classes not in (None, *self.layouts):
            raise UsageError(f"packer.classes={classes} must be 10, 100, or null for the one that is there.")
        found = {}
        for number, layout in self.layouts.items():
            if classes in (None, number):
                try:
                    found[number] = Place(source, layout)
                except FileNotFoundError:
                    continue
        if not found:
            names = " or ".join(f"{n.folder} or {n.archive}" for k, n in self.layouts.items() if classes in (None, k))
            raise UsageError(f"{source}: there is no {names} here.")
        if len(found) > 1:
            raise UsageError(f"{source}: CIFAR-10 and CIFAR-100 are both here: packer.classes=10 or 100 says which.")
        ((number, self._place),) = found.items()
        if number == 100:
            self._names, self._label, names = {"train": ["train"], "test": ["test"]}, "fine_labels", "fine_label_names"
        else:
            self._names = {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}
            self._label, names = "labels", "label_names"
        meta = self._unpickle(self.layouts[number].marker)
        if not _texts(meta.get(names)):
            raise DataError(f"{self.layouts[number].marker}: there are no {names} in it.")
        self.classes = meta[names]
        self._kept = None if subset is None else first_by_hash(self._file_names(), subset)

    def samples(self, split: str) -> Iterator[Sample]:
        number, count = 0, 0
        for name in self._names[split]:
            for picture, label in zip(*self._batch(name), strict=True):
                if split == "test" or self._kept is None or number in self._kept:
                    yield {"__key__": f"{split}-{count:08d}", "webp": lossless(picture), "cls": str(label).encode()}
                    count += 1
                number += 1

    def meta(self, split: str) -> dict[str, Any]:  # noqa: ARG002
        return {"classes": self.classes}

    def _file_names(self) -> list[str]:
        """The names of all training pictures, in order."""
        names: list[str] = []
        for name in self._names["train"]:
            found = self._unpickle(name).get("filenames")
            if not _texts(found):
                raise DataError(f"{name}: there are no filenames in it, by which packer.subset would choose.")
            names += found
        return names

    def _unpickle(self, name: str) -> dict[str, Any]:
        return unpickle_plain(self._place.read(name), name)

    def _batch(self, name: str) -> tuple[np.ndarray, list[int]]:
        """Pictures uint8 [N, 32, 32, 3] (stored colour by colour) and labels [N]."""
        batch = self._unpickle(name)
        try:
            pixels = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            labels = [int(label) for label in batch[self._label]]
        except Exception as error:  # what stands where numbers should may do anything when it is made one
            raise DataError(f"{name}: not a CIFAR batch: {type(error).__name__}: {error}.") from error
        if len(labels) != len(pixels) or not all(0 <= label < len(self.classes) for label in labels):
            raise DataError(f"{name}: {len(labels)} labels of {len(self.classes)} classes for {len(pixels)} pictures.")
        return pixels, labels


def _texts(found: Any) -> TypeGuard[list[str]]:
    return isinstance(found, list) and all(isinstance(one, str) for one in found)


class Stl10:
    """STL-10, binary version: stl10_binary.tar.gz, the unpacked folder, or the folder that holds either.

    Splits: train and test have labels; `unlabelled` (100,000 pictures, where pre-training happens in the paper) has
    none.
    """

    splits = ("train", "test", "unlabelled")
    layout = Layout("stl10_binary.tar.gz", "stl10_binary", "class_names.txt")

    def __init__(self, source: str):
        try:
            self._place = Place(source, self.layout)
        except FileNotFoundError as error:
            raise UsageError(f"{error}.") from None
        self.classes = self._place.read(self.layout.marker).decode(errors="replace").split()

    def samples(self, split: str) -> Iterator[Sample]:
        name = {"unlabelled": "unlabeled"}.get(split, split)
        labels = None if split == "unlabelled" else self._place.read(f"{name}_y.bin")
        count = 0
        with self._place.open(f"{name}_X.bin") as file:  # 2.7 GB without labels: read picture by picture
            while block := file.read(3 * 96 * 96):
                if len(block) < 3 * 96 * 96 or (labels is not None and count >= len(labels)):
                    raise DataError(
                        f"{name}_X.bin is not 96x96 pictures with one label each: odd from number {count} on."
                    )
                # Stored column by column, one colour after the other.
                picture = np.frombuffer(block, np.uint8).reshape(3, 96, 96).transpose(2, 1, 0)
                sample: Sample = {"__key__": f"{split}-{count:08d}", "webp": lossless(np.ascontiguousarray(picture))}
                if labels is not None:
                    sample["cls"] = str(labels[count] - 1).encode()
                yield sample
                count += 1
        if labels is not None and count < len(labels):
            raise DataError(f"{name}_X.bin ends after {count} pictures, but {name}_y.bin has {len(labels)} labels.")

    def meta(self, split: str) -> dict[str, Any]:
        return {"classes": [] if split == "unlabelled" else self.classes}
