"""Batches as they are needed: worker processes read, draw the actions, decode and stack; the order is never theirs."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stec.actions import ActionSpace
from stec.decoder import Decoder
from stec.errors import DataError, StecError, UsageError
from stec.samples import Damaged, Source, Tally, example, make_batch, read_whole
from stec.shards.order import epoch_order
from stec.steps import Steps
from stec.views import Batch

Item = TypeVar("Item")

PATIENCE = 600
"""Seconds after which workers that deliver nothing are given up."""


MOST_PASSES = 10
"""Pairs of views of one sample that are measured on, at most: of a handful of samples, more would tell no more."""


class Stream:
    """A source of batches for data of any size: nothing is kept, `num_workers` processes work ahead (0: none).

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
    ):
        """batch_size: over all ranks. window: shards over which samples are shuffled. max_bad: share of the samples
        that may be damaged (and are replaced within their slots) before a DataError says so."""
        self._steps = Steps(source, batch_size=batch_size, seed=seed, window=window, shuffle=shuffle)
        self._tally = Tally(max_bad, source.num_samples)
        self._make = partial(make_batch, source, decoder, space, num_views, seed)
        self._num_workers = _checked(num_workers)

    @property
    def steps_per_epoch(self) -> int:
        return self._steps.per_epoch

    @property
    def replaced(self) -> int:
        return self._tally.damaged

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """This rank's part of the steps first, first + 1, ... of an epoch; what lies before `first` is not read.

        Dropping the iterator ends its workers. DataError: too many damaged samples; UsageError: sizes differ;
        StecError: the decoder failed otherwise, or a worker died.
        """
        return self._deliver(epoch, self._steps.parts(epoch, first))

    def _deliver(self, epoch: int, parts: Sequence[np.ndarray]) -> Iterator[Batch]:
        for batch, damaged in _worked(partial(self._make, epoch), parts, self._num_workers):
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
) -> Iterator[tuple[Tensor, Tensor]]:
    """The evaluation views uint8 [B, ...] and labels int64 [B] (-1: unknown) of all samples in stored order, or of
    `num` of them, evenly spread; the last batch is smaller. Damaged samples, if the tally allows any, are left out."""
    numbers = _spread(source, num)
    parts = np.split(numbers, range(batch_size, len(numbers), batch_size))
    tally = tally or Tally(0.0, source.num_samples)
    for whole in _worked(partial(read_whole, source, decoder), parts, _checked(num_workers)):
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
) -> Iterator[Item]:
    """read(members, meta) of all samples in stored order, or of `num` of them, evenly spread: one at a time. None, and
    damaged samples, if the tally allows any, are left out."""
    tally = tally or Tally(0.0, source.num_samples)
    numbers = _spread(source, num).tolist()
    for found in _worked(partial(example, source, read=read), numbers, _checked(num_workers)):
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
    for batch, damaged in _worked(partial(_pairs, source, decoder, space, seed), parts, _checked(num_workers)):
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


@contextmanager
def worker_deaths() -> Iterator[None]:
    """Within it, a worker that dies is one sentence (StecError). torch raises wherever the main process happens to be:
    hence a training loop runs within it as a whole, not only its wait for the next batch."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise _lost(error) from error


def _lost(error: Exception) -> StecError:
    said = (str(error) or type(error).__name__).splitlines()[0].strip().rstrip(".")
    return StecError(
        f"a process that reads data for this one is lost ({said}): was it killed for want of memory, is /dev/shm full,"
        " or does the disk hang? Fewer hardware.num_workers need less memory, and 0 works without such processes."
    )


def _checked(num_workers: int) -> int:
    if num_workers < 0:
        raise UsageError(f"hardware.num_workers={num_workers} must be at least 0.")
    return num_workers


def _worked(make: Callable[[Any], Item], parts: Sequence[Any], num_workers: int) -> Iterator[Item]:
    """make(part) of each part, in order, made ahead by worker processes; what goes wrong there is raised here."""
    loader: DataLoader[Any] = DataLoader(
        _Made(make),
        batch_size=None,  # an item is a batch already
        sampler=parts,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        timeout=PATIENCE if num_workers else 0,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # torch draws a seed for workers, which have no use for it: not from the trainer's
    )
    try:
        for item in loader:
            if isinstance(item, StecError):
                raise item
            yield item
    except (RuntimeError, OSError, EOFError) as error:
        if not num_workers:
            raise
        raise _lost(error) from error


class _Made(Dataset[Any]):
    """make(part) as an item; an error is an item too, since torch would give it another type and many lines."""

    def __init__(self, make: Callable[[Any], Any]):
        self._make = make

    def __getitem__(self, part: Any) -> Any:
        try:
            return self._make(part)
        except (UsageError, DataError) as error:
            return error
        except Exception as error:  # a fault of a decoder or an action space: its traceback travels along as a note
            failure = error if isinstance(error, StecError) else StecError(f"{type(error).__name__}: {error}")
            failure.add_note(traceback.format_exc())
            return failure


def _as_it_is(item: Item) -> Item:
    return item


def _begin_worker(_: int) -> None:
    """Leave it to the main process what a signal to all processes of a run means (Ctrl-C, a scheduler, torchrun): it
    finishes its step, which a dying worker would break; but obey the main process, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main = multiprocessing.parent_process()
    if main is not None and hasattr(signal, "sigtimedwait"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_follow, args=(main.pid, os.getppid()), daemon=True).start()


def _follow(main: int, parent: int) -> None:
    while os.getppid() == parent:
        came = signal.sigtimedwait({signal.SIGTERM}, 0.5)
        if came is not None and came.si_pid == main:
            break
    os._exit(0)
