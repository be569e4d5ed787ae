"""Completing a batch: bytes become numbers, the remaining actions are performed, the efference copies are taken."""

import pytest
import torch
from toy_space import Windows

from stec.actions import Compose, sample_views
from stec.rng import make_keys
from stec.views import Batch, make_views


class Shift(Windows):
    """Adds its number and ten times the view and drops a column: who acted, on what and when can be read off."""

    def __init__(self, amount):
        super().__init__()
        self.amount, self.components = amount, ()

    def act(self, x, action, view):
        return x[..., 1:] + self.amount + 10 * view

    def relative(self, a, b):
        copy = super().relative(a, b)
        return copy._replace(values=copy.values[:, :0], valid=copy.valid[:, :0])


SPACE = Compose({"windows": Windows(), "one": Shift(1.0), "two": Shift(2.0)})
KEYS = make_keys(1, 2, torch.arange(6))


def batch(num_sources, num_views):
    x = tuple(torch.full((6, 4), 51 * (1 + n), dtype=torch.uint8) for n in range(num_sources))
    actions = sample_views(SPACE, KEYS, torch.tensor([[8, 8]] * 6), num_views)
    return Batch(x, actions, KEYS, group=torch.arange(6) // 2, labels=torch.arange(6))


@pytest.mark.parametrize("num_sources", [1, 3])
def test_finish_comes_once_before_the_actions_that_are_left(num_sources):
    calls = []

    def finish(x):
        calls.append(x.dtype)
        return x.float() / 255

    views = make_views(batch(num_sources, 3), SPACE, performed=1, finish=finish)
    assert calls == [torch.uint8] * num_sources
    assert views.num_global == len(views.x) == 3
    for v, x in enumerate(views.x):
        assert x.shape == (6, 2)
        source = 0.2 * (1 + (v if num_sources == 3 else 0))
        torch.testing.assert_close(x, torch.full_like(x, source + 3 + 20 * v))


def test_the_parts_that_the_decoder_performed_are_not_performed_again():
    every, rest, last = (make_views(batch(1, 2), SPACE, performed=n, finish=torch.Tensor.float) for n in range(3))
    windows = SPACE.parts["windows"]
    first = windows.act(batch(1, 2).x[0].float(), batch(1, 2).actions[1, :, SPACE.slices["windows"]], 1)
    assert torch.equal(every.x[1], first[..., 2:] + 11 + 12)
    assert torch.equal(rest.x[1], torch.full((6, 2), 51.0 + 11 + 12))
    assert torch.equal(last.x[1], torch.full((6, 3), 51.0 + 12))


def test_without_finish_x_is_taken_as_it_is():
    one = batch(1, 2)
    whole = make_views(one._replace(x=(one.x[0].double(),)), SPACE)
    assert whole.x[0].dtype == torch.float64


def test_copies_are_taken_of_the_ordered_pairs_and_of_all_actions_whoever_performed_them():
    one = batch(1, 3)
    pairs = ((0, 1), (1, 0), (2, 0))
    for performed in (0, 1):
        views = make_views(one, SPACE, pairs, performed=performed, finish=torch.Tensor.float)
        assert tuple(views.copies) == pairs
        for (i, j), copy in views.copies.items():
            expected = SPACE.relative(one.actions[i], one.actions[j])
            assert torch.equal(copy.values, expected.values)
            assert torch.equal(copy.valid, expected.valid)
            assert copy.values.shape == (6, len(SPACE.components))
    assert torch.equal(views.keys, KEYS)
    assert torch.equal(views.labels, one.labels)
    assert torch.equal(views.group, one.group)


def test_views_after_the_first_of_another_size_are_small_ones():
    space = Compose({"windows": Windows()})
    actions = sample_views(space, KEYS, torch.tensor([[8, 8]] * 6), 4)
    x = tuple(torch.zeros(6, width) for width in (4, 4, 3, 3))
    assert make_views(Batch(x, actions, KEYS), space).num_global == 2
    assert make_views(Batch(x[:1] * 4, actions, KEYS), space).num_global == 4
