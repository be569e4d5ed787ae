"""Batches as they are needed: worker processes read, draw the actions, decode and stack; the order is never theirs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from stec.actions import ActionSpace
from stec.decoder import Decoder
from stec.errors import DataError, UsageError, at_least
from stec.samples import Damaged, Source, Tally, example, make_batch, read_whole
from stec.shards.order import epoch_order
from stec.steps import Steps
from stec.views import Batch
from stec.workers import PATIENCE, worked

Item = TypeVar("Item")

MOST_PASSES = 10
"""Pairs of views of one sample that are measured on, at most: of a handful of samples, more would tell no more."""


class Stream:
    """A source of batches for data of any size: nothing is kept, `num_workers` processes work ahead (0: none), and new
    ones take the place of those that die.

    steps_per_epoch: what is left over, less than a batch, is dropped. replaced: damaged samples that were replaced so
    far. The batches of a step are a function of (seed, epoch, step): of no worker, and of no step before.
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
        num_workers: int = 0,
        max_bad: float = 0.0,
        shuffle: bool = True,
        patience: float = PATIENCE,
    ):
        """batch_size: over all ranks. window: shards over which samples are shuffled. max_bad: share of the samples
        that may be damaged (and are replaced within their slots) before a DataError says so. patience: seconds after
        which workers that deliver nothing are given up."""
        self._steps = Steps(source, batch_size=batch_size, seed=seed, window=window, shuffle=shuffle)
        self._tally = Tally(max_bad, source.num_samples)
        self._make = partial(make_batch, source, decoder, space, num_views, seed)
        at_least(0, "hardware", num_workers=num_workers)
        self._worked = partial(worked, num_workers=num_workers, name=partial(_name, source), patience=patience)

    @property
    def steps_per_epoch(self) -> int:
        return self._steps.per_epoch

    @property
    def replaced(self) -> int:
        return self._tally.damaged

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """This rank's part of the steps first, first + 1, ... of an epoch; what lies before `first` is not read.

        Dropping the iterator ends its workers. DataError: too many damaged samples; UsageError: sizes differ;
        StecError: the decoder failed otherwise, or workers hang, or die twice over one batch.
        """
        return self._deliver(epoch, self._steps.parts(epoch, first))

    def _deliver(self, epoch: int, parts: Sequence[np.ndarray]) -> Iterator[Batch]:
        for batch, damaged in self._worked(partial(self._make, epoch), parts):
            self._tally.count(damaged)
            yield batch


def examples(
    source: Source,
    decoder: Decoder,
    *,
    num: int | None = None,
    batch_size: int = 256,
    num_workers: int = 0,
    tally: Tally | None = None,
    patience: float = PATIENCE,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The evaluation views uint8 [B, ...] and labels int64 [B] (-1: unknown) of all samples in stored order, or of
    `num` of them, evenly spread; the last batch is smaller. Damaged samples, if the tally allows any, are left out."""
    numbers = _spread(source, num)
    parts = np.split(numbers, range(batch_size, len(numbers), batch_size))
    tally = tally or Tally(0.0, source.num_samples)
    make = partial(read_whole, source, decoder)
    for whole in worked(make, parts, num_workers=num_workers, name=partial(_name, source), patience=patience):
        tally.count(whole.damaged)
        if whole.numbers:
            yield whole.x, whole.labels


def each(
    source: Source,
    read: Callable[[Mapping[str, bytes], Mapping[str, Any]], Item | None],
    *,
    num: int | None = None,
    num_workers: int = 0,
    tally: Tally | None = None,
    patience: float = PATIENCE,
) -> Iterator[Item]:
    """read(members, meta) of all samples in stored order, or of `num` of them, evenly spread: one at a time. None, and
    damaged samples, if the tally allows any, are left out."""
    tally = tally or Tally(0.0, source.num_samples)
    numbers = _spread(source, num).tolist()
    make = partial(example, source, read=read)
    for found in worked(make, numbers, num_workers=num_workers, name=partial(_name, source), patience=patience):
        if isinstance(found, Damaged):
            tally.count([found])
        elif found is not None:
            yield found


def _spread(source: Source, num: int | None) -> np.ndarray:
    """The numbers of all samples, or of `num` of them, evenly spread."""
    many = source.num_samples if num is None else min(num, source.num_samples)
    return np.arange(many) * source.num_samples // many


def unshared(
    source: Source,
    decoder: Decoder,
    space: ActionSpace,
    *,
    seed: int,
    epoch: int = 0,
    num: int | None = None,
    batch_size: int = 256,
    num_workers: int = 0,
    tally: Tally | None = None,
    patience: float = PATIENCE,
) -> Iterator[Batch]:
    """Pairs of views of all samples, shuffled as in an epoch of training but not shared out: the same batches on every
    rank, the last one of an epoch smaller. For measuring.

    num: at least so many pairs, if MOST_PASSES give them: of fewer samples there are other views in the epochs epoch +
    2, epoch + 4, ... (every other one, so that two measures of the same samples can share no pair).
    """
    passes = 1 if num is None else min(-(-num // source.num_samples), MOST_PASSES)
    parts = []
    for number in range(epoch, epoch + 2 * passes, 2):
        order = epoch_order(source.shard_sizes, seed=seed, epoch=number, window=len(source.shard_sizes))
        parts += [(number, part) for part in np.split(order, range(batch_size, source.num_samples, batch_size))]
    tally = tally or Tally(0.0, source.num_samples)
    make = partial(_pairs, source, decoder, space, seed)
    for batch, damaged in worked(make, parts, num_workers=num_workers, name=partial(_name, source), patience=patience):
        tally.count(damaged)
        yield batch


def _pairs(
    source: Source, decoder: Decoder, space: ActionSpace, seed: int, part: tuple[int, np.ndarray]
) -> tuple[Batch, list[Damaged]]:
    epoch, numbers = part
    return make_batch(source, decoder, space, 2, seed, epoch, numbers.tolist())


def remake(
    source: Source, decoder: Decoder, space: ActionSpace, key: Sequence[int] | Tensor, num_views: int = 2
) -> Batch:
    """The batch of the one sample that a row (seed, epoch, sample) of `Batch.keys` names, as it was in training."""
    seed, epoch, sample = (int(number) for number in key)
    if not 0 <= sample < source.num_samples:
        raise UsageError(f"there is no sample {sample}: the data set has {source.num_samples}.")
    batch, damaged = make_batch(source, decoder, space, num_views, seed, epoch, [sample])
    if damaged:
        raise DataError(f"{damaged[0].reason}.")
    return batch


def _name(source: Source, part: Any) -> str:
    """Some of the samples that a part numbers: one, an array of them, or (epoch, array)."""
    numbers = np.atleast_1d(part[1] if isinstance(part, tuple) else part)
    first = ", ".join(source.where(int(number)) for number in numbers[:3])
    return first if len(numbers) <= 3 else f"a batch of {len(numbers)} samples ({first}, ...)"
