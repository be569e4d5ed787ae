"""The colour jitter as something to be learnt, and nuisances that are performed in some views only."""

import pytest
import torch
from test_photometry import ALL, EXTENT, NOTHING, draw, pictures

from stec.actions import Compose
from stec.testing.fault import Skip
from stec.testing.laws import CHECKS as LAWS
from stec.testing.spaces import CHECKS, Space, on_a_gpu
from stec_vision.actions import AffineCrop
from stec_vision.photometry import ColorJitter, GaussianBlur, Solarize

# -- told as an action -------------------------------------------------------------------------------------------------


def test_a_predicted_jitter_draws_and_does_the_same_and_tells_the_difference_of_its_factors():
    silent, told = ColorJitter(hue=0.2), ColorJitter(hue=0.2, predict=True)
    a, b, x = draw(told, 300), draw(told, 300, view=1), pictures(300, 4, 4)
    assert torch.equal(draw(silent, 300), a)
    assert torch.equal(silent.act(x, a, 0), told.act(x, a, 0))
    relative = told.relative(a, b)
    torch.testing.assert_close(relative.values, b[:, :4] - a[:, :4])
    assert relative.valid.all()
    assert [(c.name, c.unit) for c in told.components] == [
        ("brightness", "factor"),
        ("contrast", "factor"),
        ("saturation", "factor"),
        ("hue", "turns"),
    ]
    torch.testing.assert_close(torch.tensor([c.high for c in told.components]), torch.tensor([0.8, 0.8, 0.8, 0.4]))
    torch.testing.assert_close(told.relative(a, b).values, -told.relative(b, a).values)


def test_only_what_varies_is_told_and_strong_factors_end_at_0():
    space = ColorJitter(brightness=2.0, contrast=0.0, saturation=0.0, hue=0.1, predict=True)
    assert [c.name for c in space.components] == ["brightness", "hue"]
    a, b = draw(space, 2000), draw(space, 2000, view=1)
    values = space.relative(a, b).values
    torch.testing.assert_close(values, (b - a)[:, [0, 3]])
    assert space.components[0].high == 3.0
    assert values[:, 0].abs().max() <= 3.0


def test_the_copies_of_a_solarised_pair_are_not_learnt_from_colours_neither():
    parts = {"color_jitter": ColorJitter(predict=True), "solarize": Solarize(p=0.5)}
    space = Compose({"crop": AffineCrop(size=32), **parts})
    a, b = draw(space, 100), draw(space, 100, view=1)
    valid = space.relative(a, b).valid
    assert valid.shape == (100, 10)
    assert torch.equal(valid, space.trusted(a, b)[:, None].expand(-1, 10))
    assert 0 < valid[:, 9].sum() < 100


# -- in some views only ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_in_other_views_than_its_own_nothing_is_done(kind):
    every, some, x = kind(p=1.0), kind(p=1.0, views=[1, 3]), pictures(6)
    for view in range(5):
        action = draw(some, 6, view)
        if view in (1, 3):
            assert torch.equal(action, draw(every, 6, view))
        else:
            assert torch.equal(action, torch.tensor([NOTHING[kind]]).expand(6, -1))
            assert torch.equal(some.act(x, action, view), x)
    assert torch.equal(some.still(EXTENT), torch.tensor([NOTHING[kind]]))


def test_byols_blur_is_two_parts():
    first, second = GaussianBlur(p=1.0, views=[0]), GaussianBlur(p=0.1, views=[1])
    space = Compose({"first": first, "second": second})
    shares = [(draw(space, 10_000, view) > 0).float().mean(dim=0) for view in (0, 1)]
    torch.testing.assert_close(torch.stack(shares), torch.tensor([[1.0, 0.0], [0.0, 0.1]]), rtol=0, atol=0.012)
    x = pictures(4)
    assert torch.equal(space.act(x, draw(space, 4), 0), first.act(x, draw(first, 4), 0))


# -- the contract ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space",
    [
        ColorJitter(predict=True),
        ColorJitter(brightness=2.0, contrast=0.0, hue=0.5, p=1.0, predict=True),
        AffineCrop(size=20, num_global=1, small_size=8),
    ],
    ids=["colours", "strong colours", "multi-crop"],
)
def test_options_keep_the_contract_of_action_spaces(space):
    one = Space(space, torch.tensor([[28, 36], [24, 24]]), pictures(8, 28, 36))
    for check in (*CHECKS, *LAWS):
        try:
            check(one)
        except Skip as reason:
            assert check is on_a_gpu or "no law is known" in str(reason)  # noqa: PT017
