"""AugSelf: groups with heads of their own, both orders, allocentric targets between -1 and 1."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_binned import EXTENTS, features_of
from toy_space import Windows

from stec.actions import Component, Compose, Relative
from stec.encoder import Features
from stec.errors import UsageError
from stec.manipulation.augself import AugSelf, augself_loss
from stec.rng import make_keys, uniform
from stec.views import Views

WINDOW = ["centre_x", "centre_y", "size_x", "size_y"]


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr("stec.copies._FIT_DRAWS", 4000)


class Gain:
    """A factor between .6 and 1.4, whose differences may declare their range."""

    num_params = 1

    def __init__(self, reach: float = 0.8):
        self.components = (Component("gain", "factor", low=-reach, high=reach),)

    def sample(self, keys, extent, view):
        return (0.6 + 0.8 * uniform(keys, view, "gain", 1)).float()

    def act(self, x, action, view):
        return x * action

    def relative(self, a, b):
        return Relative(b - a, torch.ones(len(a), 1, dtype=torch.bool))

    def trusted(self, a, b):
        return torch.ones(len(a), dtype=torch.bool)


def two_parts(reach: float = 0.8, **options) -> Compose:
    return Compose({"window": Windows("augself", **options), "gain": Gain(reach)})


def pair_views(space: Compose, num: int = 64, seed: int = 1) -> Views:
    keys = make_keys(seed, 0, torch.arange(num))
    a, b = (space.sample(keys, EXTENTS.expand(num, 2), view) for view in (0, 1))
    x = torch.zeros(num, 1)
    return Views((x, x), {(0, 1): space.relative(a, b), (1, 0): space.relative(b, a)}, 2, keys)


def model(space: Compose | None = None, **options) -> AugSelf:
    torch.manual_seed(0)
    return AugSelf({"pooled": 8}, space or two_parts(), EXTENTS, hidden=16, **options)


def test_each_part_is_a_group_and_so_is_each_component_with_levels():
    augself = model()
    assert {n: [augself.components[c].name for c in each] for n, each in augself.groups.items()} == {
        "window": WINDOW,
        "gain": ["gain"],
    }
    assert list(augself.class_heads) == ["mirrored"]
    assert [type(m).__name__ for m in augself.heads["window"]].count("Linear") == 3
    assert augself.pairs == ((0, 1), (1, 0))
    # Their published settings: no flip head.
    assert list(model(discrete=False).class_heads) == []
    # What is never mirrored has no such target.
    assert list(model(two_parts(mirror=0.0)).class_heads) == []


@pytest.mark.parametrize("reach", [0.8, math.inf])
def test_the_loss_of_a_slow_twin(reach):
    space = two_parts(reach, trusted_share=0.6)
    augself = model(space).double()
    views = pair_views(space)
    features = tuple(Features(f.pooled.detach().double()) for f in features_of())
    out = augself(features, views)
    seen = torch.cat([torch.cat([features[i].pooled, features[j].pooled], dim=1) for i, j in ((0, 1), (1, 0))])
    values, valid = (torch.cat([getattr(views.copies[p], k) for p in ((0, 1), (1, 0))]) for k in ("values", "valid"))
    values = values.double()
    trusted = valid[:, 0]
    assert 0 < trusted.sum() < len(trusted)
    window = F.mse_loss(augself.heads["window"](seen).tanh()[trusted], values[trusted, :4])
    scale = 0.8 if reach == 0.8 else float(augself.scale[5])
    assert scale == pytest.approx(0.8, abs=0.02)
    gain = F.mse_loss(augself.heads["gain"](seen).tanh()[trusted], values[trusted, 5:] / scale)
    logits = augself.class_heads["mirrored"](seen)[trusted]
    flip = F.binary_cross_entropy_with_logits(logits[:, 1] - logits[:, 0], values[trusted, 4])
    assert out.loss.item() == pytest.approx((window + gain + flip).item(), rel=1e-10)
    total, count = out.sums["train/loss_manip"]
    assert float(total / count) == pytest.approx(out.loss.item())
    total, count = out.sums["train/action_acc/mirrored"]
    assert count == trusted.sum()
    assert total == (logits.argmax(dim=1) == values[trusted, 4]).sum()


def test_the_published_form_of_the_loss():
    outputs, target = torch.randn(5, 3), torch.rand(5, 3)
    assert torch.equal(augself_loss(outputs, target).mean(), F.mse_loss(outputs.tanh(), target))


def test_whoever_says_nothing_has_the_chance_level():
    augself = model()
    for name, parameter in augself.named_parameters():
        if ".6." in name:  # the heads' last layers
            torch.nn.init.zeros_(parameter)
    out = augself(features_of(4000), pair_views(two_parts(), 4000))
    chance = augself.chance()
    assert out.loss.item() == pytest.approx(chance["train/loss_manip"], rel=0.03)
    assert chance["train/action_acc/mirrored"] == pytest.approx(0.5, abs=0.02)
    total, count = out.sums["train/action_r2/gain"]
    assert float(total / count) == pytest.approx(chance["train/action_r2/gain"], abs=0.05)


def test_swapping_the_views_changes_nothing():
    augself = model().eval()
    views, features = pair_views(two_parts()), features_of()
    swapped = views._replace(copies={(0, 1): views.copies[1, 0], (1, 0): views.copies[0, 1]})
    torch.testing.assert_close(augself(features, views).loss, augself(features[::-1], swapped).loss)


def test_gradient_reaches_every_parameter_and_both_views():
    augself, features = model(), features_of()
    augself(features, pair_views(two_parts())).loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in augself.parameters())
    assert all(f.pooled.grad.abs().sum() > 0 for f in features)


def test_the_heads_learn_a_visible_action():
    space, augself = two_parts(), model()
    optimizer = torch.optim.Adam(augself.parameters(), lr=0.01)

    def seen(views):
        # The first view shows what leads away from it, the second what leads back.
        return tuple(Features(F.pad(views.copies[p].values, (0, 2))) for p in ((0, 1), (1, 0)))

    views, fresh = pair_views(space, 256), pair_views(space, 256, seed=2)
    for _ in range(60):
        optimizer.zero_grad()
        augself(seen(views), views).loss.backward()
        optimizer.step()
    sums = augself.eval()(seen(fresh), fresh).sums
    for name in ("train/action_r2/centre_x", "train/action_r2/gain", "train/action_acc/mirrored"):
        total, count = sums[name]
        assert float(total / count) > 0.8


def test_bf16_autocast_leaves_a_float32_loss():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model()(features_of(), pair_views(two_parts()))
    assert out.loss.dtype == torch.float32
    out.loss.backward()


def test_what_does_not_fit_is_told_in_a_sentence():
    with pytest.raises(UsageError, match=r"actions\.window tells linear_xx: set actions\.window\.frame=augself\."):
        model(Compose({"window": Windows("ego")}))
    with pytest.raises(UsageError, match=r"manipulation\.augself\.hidden=0 must be at least 1"):
        AugSelf({"pooled": 8}, two_parts(), EXTENTS, hidden=0)
    with pytest.raises(UsageError, match="tap='layer9'"):
        model(tap="layer9")
    circle = Gain()
    circle.components = (Component("hue", "turns", period=1.0),)
    with pytest.raises(UsageError, match="circular component hue"):
        model(Compose({"hue": circle}))


def test_yoked_pairs_get_their_neighbours_copy():
    yoked, plain = model(yoked=True).eval(), model().eval()
    views, features = pair_views(two_parts(trusted_share=0.6)), features_of()
    rolled = {pair: Relative(c.values.roll(1, 0), c.valid.roll(1, 0)) for pair, c in views.copies.items()}
    loss = yoked(features, views).loss
    assert torch.equal(loss, plain(features, views._replace(copies=rolled)).loss)
    assert not torch.equal(loss, plain(features, views).loss)
    assert "YOKED" in yoked.describe()
    assert "YOKED" not in plain.describe()


def test_a_part_that_tells_no_map_may_name_its_components_as_it_likes():
    speed = Gain()
    speed.components = (Component("linear_speed", "factor", low=-0.8, high=0.8),)
    assert list(model(Compose({"window": Windows("augself"), "speed": speed})).groups) == ["window", "speed"]


def test_colours_alone_are_enough():
    out = model(Compose({"gain": Gain()}))(features_of(), pair_views(Compose({"gain": Gain()})))
    assert set(out.sums) == {"train/loss_manip", "train/action_r2/gain"}
