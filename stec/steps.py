"""Which samples make this rank's part of which step: a function of (seed, epoch, step), whoever reads them."""

import numpy as np

from stec.distributed import rank, world_size
from stec.errors import UsageError
from stec.samples import Source
from stec.shards.order import epoch_order, slots


class Steps:
    """The steps of an epoch. per_epoch: how many there are; what is left over (less than a batch) is dropped."""

    def __init__(self, source: Source, *, batch_size: int, seed: int, window: int, shuffle: bool):
        if batch_size < 1:
            raise UsageError(f"batch_size={batch_size} must be at least 1.")
        if window < 1:
            raise UsageError(f"dataset.window={window} must be at least 1 shard.")
        if batch_size % world_size():
            raise UsageError(
                f"batch_size={batch_size} (over all ranks) cannot be shared by {world_size()} ranks equally."
            )
        if batch_size > source.num_samples:
            raise UsageError(f"batch_size={batch_size} is more than the data set holds, {source.num_samples} samples.")
        self.per_epoch = source.num_samples // batch_size
        self._shard_sizes, self._num_samples = source.shard_sizes, source.num_samples
        self._batch_size, self._seed, self._window, self._shuffle = batch_size, seed, window, shuffle

    def parts(self, epoch: int, first: int) -> list[np.ndarray]:
        """Sample numbers int64 [batch_size / ranks] of each of the steps first, first + 1, ... of an epoch."""
        if not 0 <= first <= self.per_epoch:
            raise UsageError(f"step {first} of an epoch of {self.per_epoch} steps: there is no such step.")
        if self._shuffle:
            order = epoch_order(self._shard_sizes, seed=self._seed, epoch=epoch, window=self._window)
        else:
            order = np.arange(self._num_samples, dtype=np.int64)
        each = range(first, self.per_epoch)
        return [slots(order, step, self._batch_size, rank(), world_size()) for step in each]
