"""The action as numbers: standardised on draws, squared errors over what is valid and live."""

import pytest
import torch
import torch.nn.functional as F
from test_binned import EXTENTS, features_of, pair_views
from toy_space import Windows

from stec import copies
from stec.actions import Component, Relative
from stec.encoder import Features
from stec.errors import UsageError
from stec.manipulation.regression import Regression

NAMES = ["linear_xx", "translation_x", "linear_yy", "translation_y"]


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr("stec.copies._FIT_DRAWS", 4000)


def model(space=None, **options) -> Regression:
    torch.manual_seed(0)
    return Regression({"pooled": 8}, space or Windows(), EXTENTS, hidden=16, **options)


@pytest.mark.parametrize("squash", ["none", "tanh"])
def test_the_loss_of_a_slow_twin(squash):
    space = Windows(trusted_share=0.6)
    regression = model(space, squash=squash).double()
    views = pair_views(space)
    features = tuple(Features(f.pooled.detach().double().requires_grad_()) for f in features_of())
    copy = views.copies[0, 1]
    spoilt = torch.where(copy.valid, copy.values, torch.full_like(copy.values, torch.nan))
    out = regression(features, views._replace(copies={(0, 1): Relative(spoilt, copy.valid)}))
    draws = copies.draw(space, EXTENTS, ((0, 1),))
    predicted = regression.head(torch.cat([f.pooled for f in features], dim=1)).detach()
    total, count, explained = 0.0, 0, []
    for c, column in enumerate(regression.columns.tolist()):
        known = draws.values[draws.valid[:, column], column]
        scale = known.std(correction=0) if squash == "none" else (known - known.mean()).abs().max()
        errors = []
        for b in range(len(spoilt)):
            if copy.valid[b, column]:
                output = predicted[b, c, 0].tanh() if squash == "tanh" else predicted[b, c, 0]
                errors.append(float(output - (copy.values[b, column].double() - known.mean()) / scale) ** 2)
        total, count = total + sum(errors), count + len(errors)
        explained.append(1 - sum(errors) / len(errors) / float((known / scale).var(correction=0)))
    assert 0 < count < 4 * len(spoilt)
    assert out.loss.item() == pytest.approx(total / count, rel=1e-12)
    assert out.sums["train/loss_manip"][1] == count
    for name, expected in zip(NAMES, explained, strict=True):
        share, num = out.sums[f"train/action_r2/{name}"]
        assert float(share / num) == pytest.approx(expected, rel=1e-5)
    out.loss.backward()
    assert all(torch.isfinite(f.pooled.grad).all() for f in features)


def test_whoever_says_nothing_has_the_chance_level():
    for squash in ("none", "tanh"):
        regression = model(squash=squash)
        torch.nn.init.zeros_(regression.head.layers[-1].weight)
        torch.nn.init.zeros_(regression.head.layers[-1].bias)
        out = regression(features_of(4000), pair_views(Windows(), 4000))
        chance = regression.chance()
        assert out.loss.item() == pytest.approx(chance["train/loss_manip"], rel=0.1)
        for name in NAMES:
            share, num = out.sums[f"train/action_r2/{name}"]
            assert abs(float(share / num) - chance[f"train/action_r2/{name}"]) < 0.15
    assert model().chance()["train/loss_manip"] == pytest.approx(1, abs=1e-9)
    assert 0 < model(squash="tanh").chance()["train/loss_manip"] < 0.2


def test_targets_under_tanh_lie_within_its_range():
    regression = model(squash="tanh")
    draws = copies.draw(Windows(), EXTENTS, ((0, 1),)).values[:, regression.live]
    target = (draws - regression.mean) / regression.scale
    torch.testing.assert_close(target.abs().amax(dim=0), torch.ones(4, dtype=torch.float64))


def test_both_directions_swap_the_roles():
    both = model(direction="both").eval()
    views, features = pair_views(Windows()), features_of()
    swapped = views._replace(copies={(0, 1): views.copies[1, 0], (1, 0): views.copies[0, 1]})
    torch.testing.assert_close(both(features, views).loss, both(features[::-1], swapped).loss)
    assert both(features, views).sums["train/loss_manip"][1] == 2 * 4 * 64


def test_the_head_learns_a_visible_action_and_not_a_yoked_one():
    def seen(views):
        return Features(torch.zeros(256, 8)), Features(F.pad(views.copies[0, 1].values, (0, 2)).clamp(-3, 3))

    explained = {}
    views, fresh = pair_views(Windows(), 256), pair_views(Windows(), 256, seed=2)
    for yoked in (False, True):
        regression = model(yoked=yoked)
        optimizer = torch.optim.Adam(regression.parameters(), lr=0.02)
        for _ in range(60):
            optimizer.zero_grad()
            regression(seen(views), views).loss.backward()
            optimizer.step()
        total, count = regression.eval()(seen(fresh), fresh).sums["train/action_r2/linear_yy"]
        explained[yoked] = float(total / count)
    assert explained[False] > 0.8
    assert explained[True] < 0.1
    assert "YOKED" in regression.describe()


def test_constant_components_are_left_out_or_kept_at_no_error():
    assert model().dropped == ("linear_xy", "linear_yx")
    kept = model(keep_constant=True)
    out = kept(features_of(), pair_views(Windows()))
    assert torch.isfinite(out.loss)
    assert kept.chance()["train/loss_manip"] == pytest.approx(4 / 6)


def test_an_inner_layer_is_read_at_its_tap():
    torch.manual_seed(0)
    regression = Regression({"pooled": 8, "inner": 5}, Windows(), EXTENTS, hidden=16, tap="inner")
    first, second = (
        Features(torch.zeros(64, 8, requires_grad=True), layers={"inner": torch.randn(64, 5, requires_grad=True)})
        for _ in range(2)
    )
    regression((first, second), pair_views(Windows())).loss.backward()
    assert first.pooled.grad is None
    assert second.layers["inner"].grad.abs().sum() > 0
    assert all(p.grad is not None for p in regression.parameters())


def test_state_loads_into_a_fresh_model_with_other_draws():
    one, other = model(), Regression({"pooled": 8}, Windows(), torch.tensor([[375, 500]]), hidden=16)
    assert not torch.equal(one.scale, other.scale)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.scale, other.scale)


def test_bf16_autocast_leaves_a_float32_loss():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model()(features_of(), pair_views(Windows()))
    assert out.loss.dtype == torch.float32
    out.loss.backward()


class Circular(Windows):
    def __init__(self):
        super().__init__()
        self.components = (Component("angle", "rad", period=6.28), *self.components[1:])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"squash": "clip"}, r"manipulation\.regression\.squash='clip' is unknown: choose one of none, tanh"),
        ({"hidden": 0}, r"manipulation\.regression\.hidden=0 must be at least 1"),
        ({"direction": "back"}, r"manipulation\.regression\.direction='back'"),
        ({"tap": "layer9"}, "pooled"),
    ],
)
def test_bad_options_are_told_in_a_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        Regression({"pooled": 8}, Windows(), EXTENTS, **{"hidden": 16, **options})


def test_circles_are_refused():
    with pytest.raises(UsageError, match="circular component angle: choose binned"):
        model(Circular())
