"""Which samples make up a batch: a pure function of (seed, epoch, step), whoever asks and however many ask.

Every epoch the tars are permuted, and samples are shuffled within consecutive windows of tars. So reads stay near each
other (a window of 8 tars of 256 MiB stays in the page cache), and every sample comes exactly once.
"""

from collections.abc import Sequence

import numpy as np

from stec.errors import UsageError
from stec.rng import permutation


def epoch_order(shard_sizes: Sequence[int], *, seed: int, epoch: int, window: int) -> np.ndarray:
    """Sample numbers int64 [N] of an epoch in their order, for shards of these sizes (samples, in stored order).

    window: over how many shards samples are shuffled; with all of them it is a plain shuffle.
    """
    if window < 1:
        raise UsageError(f"window={window} must be at least 1: the number of shards over which samples are shuffled.")
    sizes = np.asarray(shard_sizes, np.int64)
    first = np.cumsum(sizes) - sizes
    shards = permutation(len(sizes), seed, epoch, "order/shards")
    numbers = np.concatenate([np.arange(first[s], first[s] + sizes[s]) for s in shards] or [np.empty(0, np.int64)])
    windows = np.repeat(np.arange(len(sizes)) // window, sizes[shards])
    # One random permutation of everything, sorted by window without disturbing it further, is one of each window.
    shuffled = permutation(len(numbers), seed, epoch, "order/samples")
    return numbers[shuffled[np.argsort(windows[shuffled], kind="stable")]]


def slots(order: np.ndarray, step: int, batch_size: int, rank: int, world: int) -> np.ndarray:
    """Sample numbers int64 [batch_size // world]: rank's contiguous part of the global batch `step` of an order."""
    if batch_size < 1 or batch_size % world:
        raise UsageError(f"batch_size={batch_size} cannot be shared by {world} ranks: take a multiple of {world}.")
    if not (0 <= step < len(order) // batch_size and 0 <= rank < world):
        raise IndexError(f"step {step}, rank {rank} of {len(order) // batch_size} steps, {world} ranks.")
    each = batch_size // world
    start = step * batch_size + rank * each
    return order[start : start + each]
