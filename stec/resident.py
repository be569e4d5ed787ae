"""Batches of data that fits into memory: decoded once, then only indexed, on the device if wanted."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stec.actions import ActionSpace, sample_views
from stec.cores import cores
from stec.decoder import Decoder
from stec.errors import DataError, UsageError
from stec.rng import make_keys
from stec.samples import TRIES, Source, Tally, differing, read_whole, substitute
from stec.steps import Steps
from stec.views import Batch

CHUNK = 256
"""Samples that a thread decodes in one go."""


class Resident:
    """A source of batches equal to those of a `Stream` bit for bit, for decoders that leave all actions to the device.

    x: the sources, uint8 [N, ...] on `device`; labels and groups int64 [N]. steps_per_epoch, replaced: as in Stream,
    but damaged samples are found, logged and held against max_bad (a share of all samples) at the start.
    """

    def __init__(
        self,
        source: Source,
        decoder: Decoder,
        space: ActionSpace,
        *,
        batch_size: int,
        num_views: int = 2,
        seed: int = 0,
        window: int = 8,
        max_bad: float = 0.0,
        shuffle: bool = True,
        device: torch.device | str = "cpu",
    ):
        if decoder.performs:
            raise UsageError(
                "dataset.resident=true keeps sources, not views: choose a decoder that leaves all actions to the"
                " device, or set dataset.resident=false."
            )
        self._steps = Steps(source, batch_size=batch_size, seed=seed, window=window, shuffle=shuffle)
        self._space, self._num_views, self._seed = space, num_views, seed
        self._where = source.where
        self.x, self._extents, self.labels, self.groups, self._intact = _decoded(
            source, decoder, Tally(max_bad, source.num_samples), device
        )
        self.replaced = 0

    @property
    def steps_per_epoch(self) -> int:
        return self._steps.per_epoch

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """This rank's part of the steps first, first + 1, ... of an epoch; x lies on the device, the rest in memory."""
        return (self._batch(epoch, part) for part in self._steps.parts(epoch, first))

    def examples(self, *, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        """The evaluation views uint8 [B, ...] and labels int64 [B] of all intact samples in stored order."""
        for numbers in torch.from_numpy(np.flatnonzero(self._intact)).split(batch_size):
            yield self.x[numbers.to(self.x.device)], self.labels[numbers]

    def _batch(self, epoch: int, part: np.ndarray) -> Batch:
        numbers = torch.tensor([self._standing_in(epoch, int(number)) for number in part])
        keys = make_keys(self._seed, epoch, numbers)
        actions = sample_views(self._space, keys, self._extents[numbers], self._num_views)
        x = self.x[numbers.to(self.x.device, non_blocking=True)]
        return Batch((x,), actions, keys, self.groups[numbers], self.labels[numbers])

    def _standing_in(self, epoch: int, sample: int) -> int:
        """The sample itself, or the one that a Stream would find in its place if it is damaged."""
        number = sample
        for attempt in range(1, TRIES + 1):
            if self._intact[number]:
                break
            self.replaced += 1
            number = substitute(len(self._intact), self._seed, epoch, sample, attempt)
        if not self._intact[number]:
            raise DataError(
                f"{self._where(sample)} is damaged, and the {TRIES} samples drawn in its place are damaged as well."
            )
        return number


class _Decoded(NamedTuple):
    """Of all N samples: x [N, ...], extents int64 [N, d], labels and groups int64 [N]; which are intact, bool [N]."""

    x: Tensor
    extents: Tensor
    labels: Tensor
    groups: Tensor
    intact: np.ndarray


def _decoded(source: Source, decoder: Decoder, tally: Tally, device: torch.device | str) -> _Decoded:
    start, num = time.perf_counter(), source.num_samples
    table: _Decoded | None = None
    chunks = [range(first, min(first + CHUNK, num)) for first in range(0, num, CHUNK)]
    with ThreadPoolExecutor(cores()) as pool:
        for whole in pool.map(partial(read_whole, source, decoder), chunks):
            tally.count(whole.damaged)
            if not whole.numbers:
                continue
            if table is None:
                known = whole.numbers[0]
                table = _Decoded(
                    torch.empty((num, *whole.x.shape[1:]), dtype=whole.x.dtype),
                    torch.zeros((num, whole.extents.shape[1]), dtype=torch.int64),
                    torch.full((num,), -1),
                    torch.full((num,), -1),
                    np.zeros(num, dtype=bool),
                )
            if whole.x.shape[1:] != table.x.shape[1:]:
                raise differing(source, (known, table.x.shape[1:]), (whole.numbers[0], whole.x.shape[1:]))
            for name in ("x", "extents", "labels", "groups"):
                getattr(table, name)[whole.numbers] = getattr(whole, name)
            table.intact[whole.numbers] = True
    if table is None:
        raise DataError(f"all {num} samples are damaged.")
    logging.getLogger("stec").info(
        "decoded %d samples into memory, %.0f MB, in %.1f s",
        num,
        table.x.numel() * table.x.element_size() / 1e6,
        time.perf_counter() - start,
    )
    try:
        return table._replace(x=table.x.to(device))
    except torch.OutOfMemoryError as error:
        size = table.x.numel() * table.x.element_size() / 2**30
        raise UsageError(
            f"dataset.resident=true wants {size:.1f} GiB of {device}, which is too full: set dataset.resident=false."
        ) from error
