"""E-SSL's turn: one view, one discrete component, one cross-entropy."""

import math

import pytest
import torch
import torch.nn.functional as F
from toy_terms import EXTENTS, Turns, toy_space, toy_views

from stec.actions import Component, Compose, Relative
from stec.encoder import Features
from stec.errors import UsageError
from stec.manipulation.rotation import Rotation


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr("stec.copies._FIT_DRAWS", 4000)


def model(space: Compose | None = None, **options) -> Rotation:
    torch.manual_seed(0)
    return Rotation({"pooled": 8}, space or toy_space(), EXTENTS, **{"hidden": 16, **options})


def features_of(num: int, seed: int = 0) -> tuple[Features, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(Features(torch.randn(num, 8, generator=generator, requires_grad=True)) for _ in range(3))


def test_the_cross_entropy_of_the_third_view_alone():
    rotation, views, features = model(), toy_views(0, 40), features_of(40)
    copy = views.copies[0, 2]
    valid = copy.valid.clone()
    valid[::3] = False
    spoilt = torch.where(valid, copy.values, torch.nan)
    out = rotation(features, views._replace(copies={(0, 2): Relative(spoilt, valid)}))
    kept = valid[:, -1]
    target = copy.values[kept, -1].long()
    logits = rotation.head(features[2].pooled[kept])
    torch.testing.assert_close(out.loss, F.cross_entropy(logits, target))
    total, count = out.sums["train/action_acc/quarter_turn"]
    assert (total, count) == ((logits.argmax(dim=1) == target).sum(), kept.sum())
    total, count = out.sums["train/action_bits/quarter_turn"]
    assert float(total / count) == pytest.approx((rotation.entropy - out.loss.item()) / math.log(2), abs=1e-5)
    out.loss.backward()
    assert [f.pooled.grad is None for f in features] == [True, True, False]
    assert features[2].pooled.grad[~kept].abs().max() == 0
    assert all(p.grad is not None for p in rotation.parameters())


def test_chance_is_ln_4():
    rotation = model()
    assert rotation.num_views == 3
    assert rotation.pairs == ((0, 2),)
    chance = rotation.chance()
    assert chance["train/loss_manip"] == pytest.approx(math.log(4), abs=1e-3)
    assert chance["train/action_acc/quarter_turn"] == pytest.approx(0.25, abs=0.02)
    assert "view 2 alone" in rotation.describe()


def test_it_learns_turns_that_show():
    rotation = model()
    optimizer = torch.optim.Adam(rotation.parameters(), lr=0.01)

    def seen(views):
        shown = F.one_hot(views.copies[0, 2].values[:, -1].long(), 8).float()
        return Features(torch.zeros_like(shown)), Features(torch.zeros_like(shown)), Features(shown)

    views, fresh = toy_views(0, 128), toy_views(1, 128)
    for _ in range(30):
        optimizer.zero_grad()
        rotation(seen(views), views).loss.backward()
        optimizer.step()
    total, count = rotation.eval()(seen(fresh), fresh).sums["train/action_acc/quarter_turn"]
    assert float(total / count) > 0.95


def test_yoked_views_get_their_neighbours_turn():
    yoked, plain, views, features = model(yoked=True), model(), toy_views(0, 40), features_of(40)
    copy = views.copies[0, 2]
    valid = copy.valid.clone()
    valid[::3] = False
    given, rolled = Relative(copy.values, valid), Relative(copy.values.roll(1, 0), valid.roll(1, 0))
    loss = yoked(features, views._replace(copies={(0, 2): given})).loss
    assert torch.equal(loss, plain(features, views._replace(copies={(0, 2): rolled})).loss)
    assert not torch.equal(loss, plain(features, views._replace(copies={(0, 2): given})).loss)
    assert "YOKED" in yoked.describe()
    assert "YOKED" not in plain.describe()


def test_the_view_that_is_turned_is_its_own():
    assert model().keeps == {2}


def test_bf16_autocast_leaves_a_float32_loss():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model()(features_of(12), toy_views(0)).loss.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"component": "angle"}, r"manipulation\.rotation\.component='angle' is not among .*quarter_turn"),
        ({"component": "linear_xx"}, "has no levels"),
        ({"view": 0}, r"manipulation\.rotation\.view=0 must be at least 1"),
        ({"view": 1}, "quarter_turn is constant between views 0 and 1"),
        ({"hidden": 0}, r"manipulation\.rotation\.hidden=0"),
        ({"tap": "layer9"}, "tap='layer9'"),
    ],
)
def test_bad_options_are_told_in_a_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        model(**options)


def test_a_space_without_components_is_refused():
    class Nothing(Turns):
        components: tuple[Component, ...] = ()

    with pytest.raises(UsageError, match=r"\(none\): an action that has it is needed"):
        model(Compose({"nothing": Nothing()}))
