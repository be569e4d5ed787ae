"""Negatives of each mode are those that its rule allows, all of them, evenly, and a function of the anchor's key."""

import numpy as np
import pytest
import torch
from test_rng import mass_is_even

from stec.negatives import MODES, draw
from stec.rng import make_keys

BATCH, LENGTH, STEPS = 5, 8, 2
GROUP = torch.tensor([7, -1, 3, 7, -1])
KEYS = make_keys(11, 2, torch.tensor([40, 3, 17, 8, 99]))
ALL = torch.full((BATCH,), LENGTH)
SOME = torch.tensor([8, 5, 1, 6, 4])
CPU = torch.device("cpu")


def drawn(mode, num, frames=None, keys=KEYS, view=0):
    return draw(
        mode, num, STEPS, keys=keys, view=view, length=LENGTH, frames=frames, group=GROUP[: len(keys)], device=CPU
    )


def allowed(mode, b, t, real):
    """The rule, in a loop: which frames (sequence, time) may stand beside the positives of the anchor (b, t)."""
    found = set()
    for other in range(BATCH):
        for time in range(int(real[other])):
            positive = other == b and t < time <= t + STEPS
            if {
                "uniform": not positive,
                "same_sequence": other == b and time != t and not positive,
                "same_group": GROUP[other] == GROUP[b] and not positive,
                "other_sequences": other != b,
                "permuted": True,
            }[mode]:
                found.add(other * LENGTH + time)
    return found


@pytest.mark.parametrize("frames", [None, SOME], ids=["whole", "padded"])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_drawn_is_what_the_rule_allows(mode, frames):
    real = ALL if frames is None else frames
    numbers, valid = drawn(mode, 600, frames)
    assert numbers.shape == (BATCH, LENGTH - STEPS, 600)
    assert numbers.dtype == torch.int64
    for b in range(BATCH):
        for t in range(LENGTH - STEPS):
            may = allowed(mode, b, t, real)
            assert valid[b, t] == (t + STEPS < real[b] and bool(may)), (b, t)
            if valid[b, t]:
                assert set(numbers[b, t].tolist()) == may, (b, t)
    assert numbers.min() >= 0
    assert numbers.max() < BATCH * LENGTH  # those that do not count, too, must be places in the batch
    assert valid.any()


@pytest.mark.parametrize("frames", [None, SOME], ids=["whole", "padded"])
@pytest.mark.parametrize("mode", MODES)
def test_all_are_equally_likely(mode, frames):
    real = ALL if frames is None else frames
    numbers, valid = drawn(mode, 4000, frames)
    checked = 0
    for b, t in ((0, 0), (0, 5), (1, 2), (3, 1)):
        if valid[b, t]:
            may = sorted(allowed(mode, b, t, real))
            counts = numbers[b, t].bincount(minlength=BATCH * LENGTH)[may]
            assert mass_is_even(counts.numpy()), (b, t)
            checked += 1
    assert checked >= 3


@pytest.mark.parametrize("frames", [None, SOME], ids=["whole", "padded"])
def test_a_permutation_gives_no_frame_to_two_anchors(frames):
    numbers, valid = drawn("permuted", 50, frames)
    for n in range(50):
        given = numbers[..., n][valid]
        assert len(given.unique()) == len(given)


@pytest.mark.parametrize("mode", MODES)
def test_neighbours_draw_independently(mode):
    numbers, _ = drawn(mode, 3000)
    if mode != "permuted":  # there, two anchors never draw the same
        joint = np.histogram2d(numbers[0, 0].numpy() % 4, numbers[0, 1].numpy() % 4, bins=4)[0]
        expected = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True) / joint.sum()
        assert ((joint - expected) ** 2 / expected).sum() < 28  # chi-square, 9 degrees of freedom, p = .001
    for other in (drawn(mode, 3000, view=1), drawn(mode, 3000, keys=KEYS + torch.tensor([0, 1, 0]))):
        for b in range(BATCH):
            assert (other.frames[b] == numbers[b]).float().mean() < 0.6


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "permuted"])
def test_an_anchor_s_draws_hang_on_its_own_key_alone(mode):
    changed = KEYS.clone()
    changed[1:, 2] += 1000
    assert torch.equal(drawn(mode, 30, keys=changed).frames[0], drawn(mode, 30).frames[0])
    assert not torch.equal(drawn(mode, 30, keys=changed).frames[1], drawn(mode, 30).frames[1])
