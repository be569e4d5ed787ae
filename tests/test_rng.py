"""Random numbers by name: the published vectors of Philox, the same words in numpy and torch, and good statistics."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, kstest

from stec.rng import bits, make_keys, permutation, philox, uniform

# Random123, kat_vectors: philox4x32 with 10 rounds (counter, key, result).
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize("array", [lambda n: np.array([n], dtype=np.int64), lambda n: torch.tensor([n])])
@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected, array):
    found = philox(tuple(map(array, words(counter))), tuple(map(array, words(key))))
    assert [int(word[0]) for word in found] == words(expected)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**31),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5),
    st.integers(0, 255),
    st.text(max_size=8),
    st.integers(0, 11),
)
def test_numpy_is_torch(seed, epoch, samples, view, stream, num):
    keys = make_keys(seed, epoch, torch.tensor(samples))
    found = bits(keys, view, stream, num)
    assert found.shape == (len(samples), num)
    assert found.dtype == torch.int64
    assert np.array_equal(found.numpy(), bits(keys.numpy(), view, stream, num))
    assert np.array_equal(uniform(keys, view, stream, num).numpy(), uniform(keys.numpy(), view, stream, num))


def test_a_number_depends_on_its_name_alone():
    keys = make_keys(3, 1, torch.arange(100))
    all_at_once = bits(keys, 0, "crop", 9)
    assert torch.equal(all_at_once[40:41], bits(keys[40:41], 0, "crop", 9))
    assert torch.equal(all_at_once[:, :5], bits(keys, 0, "crop", 5))
    assert torch.equal(all_at_once.flip(0), bits(keys.flip(0), 0, "crop", 9))


def test_every_part_of_the_name_counts():
    keys = make_keys(3, 1, torch.arange(100))
    plain = bits(keys, 0, "crop", 8)
    others = [
        bits(make_keys(4, 1, torch.arange(100)), 0, "crop", 8),
        bits(make_keys(3 + 2**32, 1, torch.arange(100)), 0, "crop", 8),
        bits(make_keys(3, 2, torch.arange(100)), 0, "crop", 8),
        bits(make_keys(3, 1, torch.arange(100) + 100), 0, "crop", 8),
        bits(keys, 1, "crop", 8),
        bits(keys, 0, "flip", 8),
    ]
    for other in others:
        assert (plain != other).all()
    assert len(set(plain.flatten().tolist())) == plain.numel()


def mass_is_even(counts: np.ndarray) -> bool:
    """Chi-square against equal masses, neither too large nor (as of a lattice) too small: p in (.001, .999)."""
    expected = counts.sum() / counts.size
    statistic = ((counts - expected) ** 2 / expected).sum()
    return 0.001 < chi2.sf(statistic, counts.size - 1) < 0.999


def test_uniform_is_uniform_in_every_column():
    draws = uniform(make_keys(7, 0, torch.arange(20_000)), 0, "test", 6)
    assert draws.dtype == torch.float64
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.numpy().T:
        assert mass_is_even(np.histogram(column, bins=64, range=(0, 1))[0])
        assert kstest(column, "uniform").pvalue > 0.001


def test_every_bit_is_fair():
    found = bits(make_keys(8, 0, torch.arange(4096)), 0, "test", 4).numpy()
    ones = np.stack([(found >> bit) & 1 for bit in range(32)]).sum(axis=(1, 2))
    excess = (2 * ones - found.size) / np.sqrt(found.size)
    assert np.abs(excess).max() < 4.5
    assert 0.001 < chi2.sf((excess**2).sum(), 32) < 0.999


@pytest.mark.parametrize("neighbour", ["sample", "column", "block", "view", "stream", "epoch", "seed"])
def test_neighbours_are_independent(neighbour):
    samples = torch.arange(20_000)
    here = uniform(make_keys(9, 0, samples), 0, "test", 5)
    there = {
        "sample": lambda: uniform(make_keys(9, 0, samples + 1), 0, "test", 5)[:, 0],
        "column": lambda: here[:, 1],
        "block": lambda: here[:, 4],
        "view": lambda: uniform(make_keys(9, 0, samples), 1, "test", 1)[:, 0],
        "stream": lambda: uniform(make_keys(9, 0, samples), 0, "tesu", 1)[:, 0],
        "epoch": lambda: uniform(make_keys(9, 1, samples), 0, "test", 1)[:, 0],
        "seed": lambda: uniform(make_keys(10, 0, samples), 0, "test", 1)[:, 0],
    }[neighbour]()
    counts = np.histogram2d(here[:, 0].numpy(), there.numpy(), bins=8, range=[[0, 1], [0, 1]])[0]
    assert mass_is_even(counts.ravel())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 300), st.integers(0, 2**40), st.integers(0, 2**20))
def test_a_permutation_is_one(n, seed, epoch):
    found = permutation(n, seed, epoch, "order")
    assert found.dtype == np.int64
    assert np.array_equal(np.sort(found), np.arange(n))
    assert np.array_equal(found, permutation(n, seed, epoch, "order"))


def test_permutations_are_even_and_differ_by_epoch():
    orders = [tuple(permutation(3, 0, epoch, "order").tolist()) for epoch in range(3000)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert mass_is_even(counts)
