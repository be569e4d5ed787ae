"""Packer of any folder of recordings."""

from collections.abc import Iterator
from typing import Any

from stec.shards.folders import Folder
from stec_audio.reading import EXTENSIONS
from stec_audio.recordings import recorded


class AudioFolder:
    """Any folder of recordings; splits and labels by sub-folders or by hash, as `stec.shards.folders.Folder` tells.

    pcm: transcode to WAV (16 kHz, one channel, 16 bits): larger, and windows of it are read several times as fast.
    """

    def __init__(self, source: str, *, holdout: float = 0.1, pcm: bool = False):
        self._folder, self._pcm = Folder(source, extensions=EXTENSIONS, things="recordings", holdout=holdout), pcm
        self.splits, self.classes = self._folder.splits, self._folder.classes

    def samples(self, split: str) -> Iterator[dict[str, Any]]:
        """Samples of a split, bytes as they are on disk unless pcm; DataError names a file that is damaged."""
        each = recorded((file.path for file in self._folder.files(split)), split, pcm=self._pcm)
        for file, one in zip(self._folder.files(split), each, strict=True):
            yield {**file.sample, one.extension: one.data}

    def meta(self, split: str) -> dict[str, Any]:
        return self._folder.meta(split)
