"""Quarter turns are exact, add up on a circle of four, and leave the first views alone if they are to."""

import pytest
import torch

from stec.actions import Compose
from stec.bins import Bins
from stec.errors import UsageError
from stec.rng import make_keys
from stec_vision.actions import AffineCrop
from stec_vision.photometry import Solarize
from stec_vision.quarter_turn import QuarterTurn

EXTENT = torch.tensor([[8, 8]])


def draw(space, num, view):
    return space.sample(make_keys(0, 0, torch.arange(num)), EXTENT.expand(num, 2), view)


def test_each_sample_is_turned_by_its_own_number_exactly():
    x = torch.rand(4, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    before, action = x.clone(), torch.tensor([[2.0], [0.0], [3.0], [1.0]])
    turned = QuarterTurn(first_view=0).act(x, action, 0)
    for i, quarters in enumerate((2, 0, 3, 1)):
        assert torch.equal(turned[i], torch.rot90(x[i], quarters, (1, 2)))
    assert torch.equal(x, before)


def test_it_turns_anticlockwise():
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 0, 2] = 1  # top right
    assert QuarterTurn(first_view=0).act(x, torch.ones(1, 1), 0)[0, 0, 0, 0] == 1  # top left


def test_turns_of_all_numbers_are_as_likely_and_early_views_stay():
    space = QuarterTurn()
    assert not draw(space, 100, 0).any()
    assert not draw(space, 100, 1).any()
    third = draw(space, 20_000, 2)
    assert third.dtype == torch.float32
    assert third.unique().tolist() == [0, 1, 2, 3]
    assert (third.long().flatten().bincount() / 20_000 - 0.25).abs().max() < 0.012
    assert not torch.equal(draw(space, 100, 3), third[:100])


def test_relative_turns_obey_the_law_of_the_group_and_are_what_act_does():
    space = QuarterTurn(first_view=0)
    a, b, c = (draw(space, 500, view) for view in range(3))
    e12, e23, e13, e21 = (space.relative(*pair).values for pair in ((a, b), (b, c), (a, c), (b, a)))
    assert torch.equal((e12 + e23).remainder(4), e13)
    assert torch.equal((e12 + e21).remainder(4), torch.zeros_like(e12))
    assert not space.relative(a, a).values.any()
    assert space.relative(a, b).valid.all()
    x = torch.rand(500, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(space.act(space.act(x, a, 0), e12, 1), space.act(x, b, 1))


def test_from_a_pair_with_a_turned_view_only_the_turn_is_learnt():
    """A crop tells its action as if nobody had been turned: a lens on the turned view would not see that."""
    crop, turn = AffineCrop(size=8), QuarterTurn(first_view=0)
    space = Compose({"crop": crop, "turn": turn})
    a, b = draw(space, 400, 0), draw(space, 400, 1)
    valid, still = space.relative(a, b).valid, (a[:, -1] == 0) & (b[:, -1] == 0)
    assert 0 < still.sum() < 60
    assert torch.equal(valid[:, :-1], still[:, None].expand(-1, 6))
    assert valid[:, -1].all()
    assert Compose({"turn": turn, "crop": crop}).relative(a.roll(1, 1), b.roll(1, 1)).valid[:, 0].all()
    # What spoils a pair altogether spoils its turn, too.
    solarised = Compose({**space.parts, "solarize": Solarize(p=1.0)})
    assert not solarised.relative(draw(solarised, 9, 0), draw(solarised, 9, 1)).valid.any()


@pytest.mark.parametrize(("first_view", "share"), [(2, 1.0), (1, 1 / 4)])
def test_the_first_pair_is_learnt_from_as_far_as_it_is_not_turned(first_view, share):
    space = Compose({"crop": AffineCrop(size=8), "turn": QuarterTurn(first_view=first_view)})
    valid = space.relative(draw(space, 4000, 0), draw(space, 4000, 1)).valid
    assert valid[:, 0].float().mean() == pytest.approx(share, abs=0.03 * (share < 1))


def test_it_has_four_bins_of_equal_mass():
    space = QuarterTurn()
    relative = space.relative(draw(space, 4000, 0), draw(space, 4000, 2))
    bins = Bins(space.components, relative.values, relative.valid, kind="equal_mass", num_bins=6)
    assert bins.num_bins.tolist() == [4]
    assert torch.equal(bins.assign(relative.values)[:, 0], relative.values[:, 0].long())
    assert bins.centres[0].tolist() == [0, 1, 2, 3]


def test_refusals():
    with pytest.raises(UsageError, match="first_view=-1 must be at least 0"):
        QuarterTurn(first_view=-1)
    with pytest.raises(UsageError, match=r"4x5 pixels cannot be turned.*after affine_crop"):
        QuarterTurn().act(torch.zeros(1, 3, 4, 5), torch.zeros(1, 1), 0)
