"""Composed action spaces: columns side by side, one verdict on what may be learnt from, parts by number."""

import pytest
import torch
from torch import Tensor
from toy_space import Windows

from stec.actions import ActionSpace, Component, Compose, Relative, sample_views
from stec.bins import constant
from stec.errors import UsageError
from stec.rng import make_keys, uniform
from stec.views import Batch, make_views

EXTENT = torch.tensor([32, 32])


class Gain:
    """A scalar in [1, 2); its quotient is felt. Pairs in which both views are loud are not to be trusted."""

    num_params = 1
    components = (Component("gain", "1", 0.5, 2.0),)

    def sample(self, keys: Tensor, extent: Tensor, view: int) -> Tensor:
        return 1 + uniform(keys, view, "gain", 1).float()

    def act(self, x: Tensor, action: Tensor, view: int) -> Tensor:
        return x * action

    def relative(self, a: Tensor, b: Tensor) -> Relative:
        return Relative(b / a, a < 1.9)

    def trusted(self, a: Tensor, b: Tensor) -> Tensor:
        return ((a < 1.5) | (b < 1.5))[:, 0]


class Hiss:
    """A nuisance: performed on its seed, never predicted."""

    num_params = 2
    components: tuple[Component, ...] = ()

    def sample(self, keys: Tensor, extent: Tensor, view: int) -> Tensor:
        return uniform(keys, view, "hiss", 2).float()

    def act(self, x: Tensor, action: Tensor, view: int) -> Tensor:
        return x + action[:, :1]

    def relative(self, a: Tensor, b: Tensor) -> Relative:
        return Relative(a[:, :0], torch.zeros(len(a), 0, dtype=torch.bool))

    def trusted(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.ones(len(a), dtype=torch.bool)


def composed() -> Compose:
    return Compose({"window": Windows(), "hiss": Hiss(), "gain": Gain()})


def pair(space: ActionSpace, num: int = 200) -> tuple[Tensor, Tensor]:
    actions = sample_views(space, make_keys(1, 0, torch.arange(num)), EXTENT.expand(num, 2), 2)
    return actions[0], actions[1]


@pytest.mark.parametrize("space", [Windows(), Gain(), Hiss(), composed()])
def test_what_an_action_space_promises(space):
    known: ActionSpace = space  # a static promise: mypy reads this line
    keys, extent = make_keys(2, 0, torch.arange(5)), EXTENT.expand(5, 2)
    a, b = known.sample(keys, extent, 0), known.sample(keys, extent, 1)
    assert a.shape == (5, known.num_params)
    assert a.dtype == torch.float32
    assert torch.equal(a, known.sample(keys, extent, 0))
    assert torch.equal(a[2:3], known.sample(keys[2:3], extent[2:3], 0))
    assert not torch.equal(a, b)
    relative = known.relative(a, b)
    assert relative.values.shape == relative.valid.shape == (5, len(known.components))
    assert relative.valid.dtype == torch.bool
    assert known.trusted(a, b).shape == (5,)
    x = torch.ones(5, 1)
    assert torch.equal(known.act(x, a, 0), known.act(x, a, 0))


def test_parts_lie_side_by_side():
    space = composed()
    assert space.num_params == 10
    assert space.slices == {"window": slice(0, 7), "hiss": slice(7, 9), "gain": slice(9, 10)}
    assert [c.name for c in space.components] == [*(c.name for c in Windows().components), "gain"]
    a, b = pair(space)
    for name, part in space.parts.items():
        assert torch.equal(a[:, space.slices[name]], pair(part)[0])
    relative = space.relative(a, b)
    assert torch.equal(relative.values[:, :6], Windows().relative(*pair(Windows())).values)
    assert torch.equal(relative.values[:, 6:], Gain().relative(*pair(Gain())).values)


def test_parts_act_in_turn_from_any_number_on():
    space = Compose({"gain": Gain(), "hiss": Hiss()})
    action = torch.tensor([[2.0, 0.5, 0.0]])
    x = torch.tensor([[3.0]])
    assert [float(space.act(x, action, 0, start)) for start in range(3)] == [6.5, 3.5, 3.0]
    assert float(Compose({"hiss": Hiss(), "gain": Gain()}).act(x, action[:, [1, 2, 0]], 0)) == 7.0


def test_distrust_of_one_part_spoils_the_copies_of_all():
    space = composed()
    a, b = pair(space)
    relative, trusted = space.relative(a, b), space.trusted(a, b)
    both_loud = (a[:, -1] >= 1.5) & (b[:, -1] >= 1.5)
    assert 0 < both_loud.sum() < len(a)
    assert torch.equal(trusted, ~both_loud)
    assert not relative.valid[both_loud].any()
    assert relative.valid[~both_loud, :6].all()
    # A part's own verdict on one component stays with that component.
    assert torch.equal(relative.valid[:, 6], ~both_loud & (a[:, -1] < 1.9))
    assert not torch.equal(relative.valid[:, 6], relative.valid[:, 0])


class Shaking(Gain):
    """A gain that moves the frame of the others where a view is loud."""

    def disturbs(self, a: Tensor, b: Tensor) -> Tensor:
        return ((a > 1.5) | (b > 1.5))[:, 0]


def test_one_part_can_disturb_the_copies_of_the_others_alone():
    plain, shaken = (Compose({"window": Windows(), "gain": part}) for part in (Gain(), Shaking()))
    a, b = pair(shaken)
    loud = (a[:, -1] > 1.5) | (b[:, -1] > 1.5)
    before, after = plain.relative(a, b), shaken.relative(a, b)
    assert torch.equal(before.values, after.values)
    assert torch.equal(after.valid[:, -1], before.valid[:, -1])
    assert torch.equal(after.valid[:, :-1], before.valid[:, :-1] & ~loud[:, None])
    assert (before.valid[:, 0] & loud).any()


def test_views_are_made_from_one_source_or_go_on_from_begun_ones():
    space = Compose({"gain": Gain(), "hiss": Hiss()})
    keys = make_keys(1, 0, torch.arange(4))
    actions = sample_views(space, keys, torch.zeros(4, 0), 2)
    assert actions.shape == (2, 4, 3)
    x = torch.rand(4, 1)
    views = make_views(Batch((x,), actions, keys), space, ((0, 1), (1, 0)))
    assert torch.equal(views.x[1], space.act(x, actions[1], 1))
    begun = make_views(Batch((x, 2 * x), actions, keys), space, performed=1)
    assert torch.equal(begun.x[1], 2 * x + actions[1, :, 1:2])
    assert torch.allclose(views.copies[0, 1].values * views.copies[1, 0].values, torch.ones(4, 1))
    assert set(begun.copies) == {(0, 1)}


def test_constant_components_are_those_that_nothing_changes():
    relative = Windows(mirror=0.0).relative(*pair(Windows(mirror=0.0)))
    names = [c.name for c in Windows().components]
    still = constant(relative.values, relative.valid)
    assert [n for n, c in zip(names, still.tolist(), strict=True) if c] == ["linear_xy", "linear_yx"]


def test_a_copy_moves_as_a_whole():
    moved = Relative(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)).to(torch.device("meta"))
    assert moved.values.device.type == moved.valid.device.type == "meta"


def test_senseless_spaces_are_told_in_a_sentence():
    with pytest.raises(UsageError, match="at least one part"):
        Compose({})
    with pytest.raises(UsageError, match=r"\(left, right\) have a component 'gain'\."):
        Compose({"left": Gain(), "right": Gain()})
