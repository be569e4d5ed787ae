"""CIFAR and STL-10 as torchvision downloads them, unpacked or not. Nothing but plain arrays is ever unpickled."""

import io
import pickle
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stec.errors import DataError, UsageError

Sample = dict[str, Any]

_REBUILD: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]

# What a CIFAR batch may call while it is unpickled: numpy's own array rebuilding, and nothing else. The type is built
# by a function of ours because the flags in these files of 2009 are integers, which numpy no longer takes for
# booleans.
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): lambda spec, align=False, copy=False: np.dtype(spec, align=bool(align), copy=bool(copy)),
    ("_codecs", "encode"): lambda text, encoding: str(text).encode(encoding),
    ("numpy.core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): _REBUILD,
}


class _Plain(pickle.Unpickler):
    """Rebuilds dictionaries, lists, text, numbers and arrays; refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(f"a CIFAR batch asks for {module}.{name}: it holds more than arrays and is not read.")
        return _ALLOWED[module, name]


def unpickle_plain(data: bytes, where: str) -> dict[str, Any]:
    """The dictionary in a CIFAR batch file; DataError if it is damaged or would run anything."""
    try:
        found = _Plain(io.BytesIO(data), encoding="latin1").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises whatever its broken instructions lead to
        raise DataError(f"{where}: not a CIFAR batch: {type(error).__name__}: {error}.") from error
    if not isinstance(found, dict):
        raise DataError(f"{where}: not a CIFAR batch but a {type(found).__name__}.")
    return found


def lossless(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] -> WebP that decodes to exactly these pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=50, method=2, exact=True)
    return buffer.getvalue()


class Cifar:
    """CIFAR-10 or CIFAR-100, python version: the .tar.gz, the unpacked folder, or the folder that holds either."""

    splits = ("train", "test")

    def __init__(self, source: str):
        for folder, many in (("cifar-100-python", True), ("cifar-10-batches-py", False)):
            try:
                self._read = _opener(
                    Path(source), folder, f"{folder.removesuffix('-batches-py').removesuffix('-python')}-python.tar.gz"
                )
            except FileNotFoundError:
                continue
            self._names = {
                "train": ["train"] if many else [f"data_batch_{n}" for n in range(1, 6)],
                "test": ["test" if many else "test_batch"],
            }
            self._label, meta, key = (
                ("fine_labels", "meta", "fine_label_names") if many else ("labels", "batches.meta", "label_names")
            )
            self.classes = [str(name) for name in unpickle_plain(self._read(meta), meta)[key]]
            return
        raise UsageError(f"{source}: neither cifar-10-batches-py, cifar-100-python nor one of their archives is here.")

    def samples(self, split: str) -> Iterator[Sample]:
        count = 0
        for name in self._names[split]:
            batch = unpickle_plain(self._read(name), name)
            pixels = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            for picture, label in zip(pixels, batch[self._label], strict=True):
                yield {"__key__": f"{split}-{count:08d}", "webp": lossless(picture), "cls": str(int(label)).encode()}
                count += 1

    def meta(self, split: str) -> dict[str, Any]:  # noqa: ARG002
        return {"classes": self.classes}


class Stl10:
    """STL-10, binary version: stl10_binary.tar.gz, the unpacked folder, or the folder that holds either.

    Splits: train and test have labels; `unlabelled` (100,000 pictures, where pre-training happens in the paper) has
    none.
    """

    def __init__(self, source: str):
        try:
            self._read = _opener(Path(source), "stl10_binary", "stl10_binary.tar.gz")
        except FileNotFoundError:
            raise UsageError(f"{source}: neither stl10_binary nor stl10_binary.tar.gz is here.") from None
        self.classes = self._read("class_names.txt").decode().split()
        self.splits = ("train", "test", "unlabelled")

    def samples(self, split: str) -> Iterator[Sample]:
        name = {"unlabelled": "unlabeled"}.get(split, split)
        data = self._read(f"{name}_X.bin")
        labels = None if split == "unlabelled" else np.frombuffer(self._read(f"{name}_y.bin"), np.uint8)
        if len(data) % (3 * 96 * 96) or (labels is not None and len(labels) != len(data) // (3 * 96 * 96)):
            raise DataError(f"{name}_X.bin: {len(data)} bytes are not 96x96 pictures with one label each.")
        # Stored column by column, one colour after the other.
        pixels = np.frombuffer(data, np.uint8).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
        for count, picture in enumerate(pixels):
            sample: Sample = {"__key__": f"{split}-{count:08d}", "webp": lossless(np.ascontiguousarray(picture))}
            if labels is not None:
                sample["cls"] = str(int(labels[count]) - 1).encode()
            yield sample

    def meta(self, split: str) -> dict[str, Any]:
        return {"classes": [] if split == "unlabelled" else self.classes}


def _opener(source: Path, folder: str, archive: str) -> Callable[[str], bytes]:
    """How to read a member of `folder`, unpacked or in its archive; FileNotFoundError if it is nowhere."""
    for place in (source, source / folder):
        if place.is_dir() and (place.name == folder or (place / "batches.meta").is_file()):
            return lambda name: _bytes(place / name)
    for place in (source, source / archive):
        if place.is_file() and place.name == archive:
            return lambda name: _member(place, f"{folder}/{name}")
    raise FileNotFoundError(folder)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path.name} is missing or unreadable: {error.strerror}.") from error


def _member(archive: Path, name: str) -> bytes:
    try:
        with tarfile.open(archive) as tar:
            file = tar.extractfile(name)
            return file.read() if file else b""
    except (KeyError, OSError, tarfile.TarError, EOFError) as error:
        raise DataError(f"{archive.name}: {name} is missing or unreadable: {error}") from error
