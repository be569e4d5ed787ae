"""Packer of any folder of recordings."""

from collections.abc import Iterator
from typing import Any

from stec.errors import UsageError
from stec.shards.folders import Folder
from stec_audio.reading import EXTENSIONS
from stec_audio.recordings import recorded


class AudioFolder:
    """Any folder of recordings; splits and labels by sub-folders or by hash, as `stec.shards.folders.Folder` tells.

    pcm: transcode to WAV (16 kHz, one channel, 16 bits): larger, and windows of it are read several times as fast.
    max_bad: the share of the files of a split that may be damaged (one always may; 0: none): each is logged by name and
    left out.
    """

    def __init__(self, source: str, *, holdout: float = 0.1, pcm: bool = False, max_bad: float = 0.1):
        if not 0 <= max_bad < 1:
            raise UsageError(f"packer.max_bad={max_bad} must be in [0, 1): the share of damaged files allowed.")
        self._folder, self._pcm = Folder(source, extensions=EXTENSIONS, things="recordings", holdout=holdout), pcm
        self._max_bad = max_bad
        self.splits, self.classes = self._folder.splits, self._folder.classes

    def samples(self, split: str) -> Iterator[dict[str, Any]]:
        """Samples of a split, bytes as they are on disk unless pcm; DataError if too many files are damaged."""
        files = ((file, file.path) for file in self._folder.files(split))
        for file, one in recorded(files, split, pcm=self._pcm, max_bad=self._max_bad):
            yield {**file.sample, one.extension: one.data}

    def meta(self, split: str) -> dict[str, Any]:  # noqa: ARG002
        return {"classes": self.classes}  # how many samples there are is not known before the damaged ones are
