"""A small real data set without a download: patches of the photographs that come inside the scikit-image wheel.

The label is the photograph. Each photograph is cut into blocks, and a block is either for training or for testing:
every patch lies within one block, so no pixel of a test patch is ever seen in training.
"""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from stec.catalogue import nearest
from stec.errors import UsageError
from stec.rng import permutation
from stec_vision.packers import Sample, lossless
from stec_vision.reading import EXTENSIONS, Picture

PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "chelsea",
    "coffee",
    "coins",
    "gravel",
    "hubble_deep_field",
    "ihc",
    "motorcycle_left",
    "rocket",
)


class Patches:
    """source: a folder of photographs, or "" for those of scikit-image. photographs: file names without extension.

    A patch is a square of `window` pixels of the photograph, stored as `size` pixels (lossless). Blocks have a side of
    `block` pixels; every fourth one (a lattice, so that test blocks lie among the training blocks) is for testing.
    num_train and num_test patches are taken of each photograph, at places on a grid of `stride` pixels chosen by
    `seed`. grey: without colour, which would often be enough to tell photographs apart. The defaults are the
    quickstart's.
    """

    splits = ("train", "test")

    def __init__(
        self,
        source: str,
        *,
        photographs: list[str] | None = None,
        window: int = 80,
        size: int = 32,
        block: int = 112,
        stride: int = 3,
        num_train: int = 400,
        num_test: int = 100,
        grey: bool = False,
        seed: int = 0,
    ):
        for name, value in {"size": size, "stride": stride, "num_train": num_train, "num_test": num_test}.items():
            if value < 1:
                raise UsageError(f"packer.{name}={value} must be at least 1.")
        if not 1 <= window <= block:
            raise UsageError(
                f"packer.window={window} must be between 1 and block={block}: a patch lies within one block."
            )
        self.window, self.size, self.block, self.stride, self.grey, self.seed = window, size, block, stride, grey, seed
        self._num = {"train": num_train, "test": num_test}
        files = _photographs(source)
        self.classes = list(PHOTOGRAPHS if photographs is None else photographs)
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise UsageError(f"packer.photographs={self.classes} must be different names, at least one.")
        for name in self.classes:
            if name not in files:
                raise UsageError(f"packer.photographs: no {name!r} here: {nearest(name, files)}")
        self._files = [files[name] for name in self.classes]

    def places(self, height: int, width: int, split: str) -> np.ndarray:
        """Upper left corners int64 [N, 2] (row, column) of all patches of a split in a photograph of this size."""
        inside = np.arange(0, self.block - self.window + 1, self.stride)
        offsets = np.stack(np.meshgrid(inside, inside, indexing="ij"), axis=-1).reshape(-1, 2)
        corners = [
            np.array([row, column]) * self.block
            for row in range(height // self.block)
            for column in range(width // self.block)
            if ((row + 2 * column) % 4 == 0) == (split == "test")
        ]
        return np.concatenate([corner + offsets for corner in corners]) if corners else np.empty((0, 2), np.int64)

    def samples(self, split: str) -> Iterator[Sample]:
        """Patches of all photographs in turn, so that shards mix the labels; "json" says where a patch was cut."""
        pixels = [np.asarray(self._open(file)) for file in self._files]
        chosen = [self._choose(picture.shape, split, label) for label, picture in enumerate(pixels)]
        for index in range(self._num[split]):
            for label, name in enumerate(self.classes):
                row, column = chosen[label][index].tolist()
                patch = Image.fromarray(pixels[label][row : row + self.window, column : column + self.window])
                if self.size != self.window:
                    patch = patch.resize((self.size, self.size), Image.Resampling.BILINEAR)
                yield {
                    "__key__": f"{split}-{index * len(self.classes) + label:08d}",
                    "webp": lossless(np.asarray(patch)),
                    "cls": str(label).encode(),
                    "json": json.dumps(
                        {"photograph": name, "row": row, "column": column, "window": self.window}
                    ).encode(),
                }

    def meta(self, split: str) -> dict[str, list[str]]:  # noqa: ARG002
        return {"classes": self.classes}

    def _open(self, file: Path) -> Image.Image:
        image = Picture(file.read_bytes(), max_pixels=64_000_000).rgb()
        return image.convert("L").convert("RGB") if self.grey else image

    def _choose(self, shape: tuple[int, ...], split: str, label: int) -> np.ndarray:
        places = self.places(shape[0], shape[1], split)
        num = self._num[split]
        if num > len(places):
            raise UsageError(
                f"packer.num_{split}={num}: {self.classes[label]!r} ({shape[0]}x{shape[1]} pixels) has only"
                f" {len(places)} such patches: take fewer, or a smaller block, window or stride."
            )
        return places[permutation(len(places), self.seed, label, f"patches/{split}")[:num]]


def _photographs(source: str) -> dict[str, Path]:
    """The pictures of a folder by name without extension; those inside scikit-image if source is empty."""
    if source:
        folder = Path(source)
    else:
        spec = find_spec("skimage")
        if spec is None or spec.origin is None:
            raise UsageError(
                "the photographs come with scikit-image, which is not installed: pip install scikit-image."
            )
        folder = Path(spec.origin).parent / "data"
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of photographs.")
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix[1:].lower() in EXTENSIONS}
