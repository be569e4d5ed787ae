"""The epoch order over random shard layouts, ranks and steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stec.errors import UsageError
from stec.shards.order import epoch_order, slots

layouts = st.lists(st.integers(0, 12), max_size=12)
seeds = st.integers(0, 2**40)
quick = settings(max_examples=60, deadline=None)


@quick
@given(layouts, seeds, st.integers(0, 1000), st.integers(1, 15))
def test_every_epoch_is_a_permutation(sizes, seed, epoch, window):
    order = epoch_order(sizes, seed=seed, epoch=epoch, window=window)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(sum(sizes)))
    assert np.array_equal(order, epoch_order(tuple(sizes), seed=seed, epoch=epoch, window=window))


@quick
@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), seeds, st.integers(1, 15))
def test_a_sample_never_leaves_the_window_of_its_shard(sizes, seed, window):
    order = epoch_order(sizes, seed=seed, epoch=3, window=window)
    shard_of = np.repeat(np.arange(len(sizes)), sizes)[order]
    seen = list(dict.fromkeys(shard_of.tolist()))
    start = 0
    for first in range(0, len(seen), window):
        together = seen[first : first + window]
        end = start + sum(sizes[s] for s in together)
        assert set(shard_of[start:end]) == set(together)
        start = end
    assert start == len(order)


def test_empty_shards_take_no_samples_along():
    order = epoch_order([0, 5, 0, 0, 3], seed=1, epoch=0, window=1)
    assert {tuple(sorted(order[:5])), tuple(sorted(order[:3]))} & {(0, 1, 2, 3, 4), (5, 6, 7)}


def test_epochs_and_seeds_differ_and_every_window_is_shuffled():
    sizes = [50] * 10
    orders = [epoch_order(sizes, seed=s, epoch=e, window=2) for s, e in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len({order.tobytes() for order in orders}) == 4
    for part in orders[0].reshape(5, 100):
        assert len(np.unique(part // 50)) == 2
        assert np.any(part[1:] < part[:-1])
        # About half of either half comes from either shard of the window; 5 sigma of the hypergeometric law is 13.
        assert abs(np.sum(part[:50] // 50 == part.min() // 50) - 25) < 13


def test_a_window_over_all_shards_is_a_uniform_shuffle():
    """Where sample 0 of 6 (in 3 shards) ends up over 3,000 seeds: chi-square with 5 degrees of freedom, p = 1e-6."""
    places = [int(np.flatnonzero(epoch_order([2, 2, 2], seed=s, epoch=0, window=3) == 0)[0]) for s in range(3000)]
    counts = np.bincount(places, minlength=6)
    assert np.sum((counts - 500) ** 2 / 500) < 35.9


@quick
@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 4), seeds)
def test_ranks_share_each_batch_and_the_world_does_not_matter(num, world, each, seed):
    order = epoch_order([num], seed=seed, epoch=0, window=1)
    batch = world * each
    for step in range(num // batch):
        parts = [slots(order, step, batch, rank, world) for rank in range(world)]
        assert {len(part) for part in parts} == {each}
        assert np.array_equal(np.concatenate(parts), slots(order, step, batch, 0, 1))
    taken = [slots(order, step, batch, 0, 1) for step in range(num // batch)]
    assert len(np.unique(np.concatenate([*taken, []]))) == num // batch * batch


def test_slips():
    with pytest.raises(UsageError, match="window=0"):
        epoch_order([3], seed=0, epoch=0, window=0)
    with pytest.raises(UsageError, match="multiple of 4"):
        slots(np.arange(20), 0, 6, 0, 4)
    with pytest.raises(IndexError, match="step 2"):
        slots(np.arange(20), 2, 8, 0, 1)
    with pytest.raises(IndexError, match="rank 2"):
        slots(np.arange(20), 0, 8, 2, 2)
