import math

import pytest
import torch
import torch.nn.functional as F
from toy_space import Windows

from stec.actions import Compose, Relative
from stec.encoder import Features
from stec.errors import UsageError
from stec.manipulation.binned import Binned
from stec.rng import make_keys
from stec.views import Views

EXTENTS = torch.tensor([[32, 32]])
INNER_T = [-0.48, -0.188, 0, 0.188, 0.48]
KNOWN_EDGES = {
    "linear_xx": [-1.2, -0.833, 0, 0.833, 1.2],
    "translation_x": INNER_T,
    "linear_yy": [0.65, 0.833, 1, 1.2, 1.54],
    "translation_y": INNER_T,
}


def pair_views(space: Windows, num: int = 64, seed: int = 1) -> Views:
    keys = make_keys(seed, 0, torch.arange(num))
    a, b = (space.sample(keys, EXTENTS.expand(num, 2), view) for view in (0, 1))
    x = torch.zeros(num, 1)
    return Views((x, x), {(0, 1): space.relative(a, b), (1, 0): space.relative(b, a)}, 2, keys)


def features_of(num: int = 64, width: int = 8, seed: int = 0) -> tuple[Features, Features]:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(num, width, generator=generator, requires_grad=True) for _ in range(2))
    return Features(first), Features(second)


@pytest.fixture(scope="module")
def binned() -> Binned:
    return Binned({"pooled": 8}, Windows(), EXTENTS, hidden=16)


def test_known_edges_of_the_default_space(binned):
    assert [c.name for c in binned.components] == list(KNOWN_EDGES)
    expected = torch.tensor(list(KNOWN_EDGES.values()), dtype=torch.float64)
    assert torch.allclose(binned.bins.edges, expected, atol=0.012)
    assert binned.dropped == ("linear_xy", "linear_yx")
    assert binned.chance()["train/loss_manip"] == pytest.approx(math.log(6), abs=0.005)
    # The gap of the signed scale is cut in its middle, not through the tail of one of its lobes.
    assert abs(binned.bins.edges[0, 2]) < 0.1


def test_the_release_has_its_known_chance_and_majority():
    release = Binned({"pooled": 8}, Windows("published"), EXTENTS, hidden=16, bins="published", keep_constant=True)
    assert release.dropped == ()
    assert release.bins.chance.mean().item() == pytest.approx(1.028, abs=0.004)
    assert release.bins.majority.mean().item() == pytest.approx(0.553, abs=0.006)
    occupied = torch.bincount(
        release.bins.assign(pair_views(Windows("published")).copies[0, 1].values)[:, 4], minlength=6
    )
    assert occupied[:3].sum() == 0


def test_the_fit_is_a_function_of_space_and_extents(binned):
    again = Binned({"pooled": 8}, Compose({"window": Windows()}), EXTENTS.repeat(3, 1), hidden=16)
    assert torch.equal(again.bins.edges, binned.bins.edges)


def test_loss_is_the_mean_cross_entropy_over_valid_pairs_and_live_components(binned):
    views, features = pair_views(Windows(trusted_share=0.6)), features_of()
    copy = views.copies[0, 1]
    spoilt = torch.where(copy.valid, copy.values, torch.full_like(copy.values, torch.nan))
    out = binned(features, views._replace(copies={(0, 1): Relative(spoilt, copy.valid)}))
    target = binned.bins.assign(copy.values[:, binned.live])
    logits = binned.head(torch.cat([f.pooled for f in features], dim=1))
    each = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
    trusted = copy.valid[:, 0]
    assert 0 < trusted.sum() < len(trusted)
    assert torch.allclose(out.loss, each[trusted].mean())
    total, count = out.sums["train/loss_manip"]
    assert count == 4 * trusted.sum()
    assert torch.allclose(total / count, out.loss)
    right = (logits.argmax(dim=2) == target)[trusted].float().mean(dim=0)
    for c, component in enumerate(binned.components):
        total, count = out.sums[f"train/action_acc/{component.name}"]
        assert torch.allclose(total / count, right[c])
        total, count = out.sums[f"train/action_bits/{component.name}"]
        bits = (binned.bins.chance[c] - each[trusted][:, c].mean()) / math.log(2)
        assert torch.allclose(total / count, bits.float(), atol=1e-5)
    out.loss.backward()
    assert features[0].pooled.grad[~trusted].abs().max() < features[0].pooled.grad[trusted].abs().max()
    assert all(torch.isfinite(f.pooled.grad).all() for f in features)


def test_no_valid_pair_gives_zero_loss_on_the_graph(binned):
    out = binned(features_of(), pair_views(Windows(trusted_share=0.0)))
    assert out.loss == 0
    out.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in binned.parameters())


def test_both_directions_swap_the_roles():
    torch.manual_seed(0)
    both = Binned({"pooled": 8}, Windows(), EXTENTS, hidden=16, direction="both").eval()
    assert both.pairs == ((0, 1), (1, 0))
    views, features = pair_views(Windows()), features_of()
    swapped = Views(views.x, {(0, 1): views.copies[1, 0], (1, 0): views.copies[0, 1]}, 2, views.keys)
    assert torch.allclose(both(features, views).loss, both(features[::-1], swapped).loss)
    assert both(features, views).sums["train/loss_manip"][1] == 2 * 4 * 64


def test_yoked_pairs_get_their_neighbours_copy(binned):
    yoked = Binned({"pooled": 8}, Windows(), EXTENTS, hidden=16, yoked=True).eval()
    yoked.load_state_dict(binned.state_dict())
    views, features = pair_views(Windows()), features_of()
    copy = views.copies[0, 1]
    rolled = views._replace(copies={(0, 1): Relative(copy.values.roll(1, 0), copy.valid.roll(1, 0))})
    plain = binned.eval()(features, rolled).loss
    binned.train()
    assert torch.equal(yoked(features, views).loss, plain)
    assert "YOKED" in yoked.describe()


def test_the_head_learns_a_visible_action_and_not_a_yoked_one():
    views = pair_views(Windows(), 256)
    values = views.copies[0, 1].values
    shown = F.pad(values, (0, 2)).clamp(-3, 3)
    features = (Features(torch.zeros(256, 8)), Features(shown))
    accuracy = {}
    for is_yoked in (False, True):
        torch.manual_seed(0)
        model = Binned({"pooled": 8}, Windows(), EXTENTS, hidden=64, yoked=is_yoked)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(40):
            optimizer.zero_grad()
            model(features, views).loss.backward()
            optimizer.step()
        fresh = pair_views(Windows(), 256, seed=2)
        seen = F.pad(fresh.copies[0, 1].values, (0, 2)).clamp(-3, 3)
        sums = model.eval()((Features(torch.zeros(256, 8)), Features(seen)), fresh).sums
        total, count = sums["train/action_bits/linear_yy"]
        accuracy[is_yoked] = float(total / count)
    assert accuracy[False] > 1.0
    assert accuracy[True] < 0.1


def test_the_loss_of_a_noisy_copy_is_the_cross_entropy_with_its_masses():
    torch.manual_seed(0)
    space = Windows(trusted_share=0.6)
    noisy = Binned({"pooled": 8}, space, EXTENTS, hidden=16, noise=0.4, bins="log", num_bins=5)
    views, features = pair_views(space), features_of()
    copy = views.copies[0, 1]
    out = noisy(features, views)
    log_probs = F.log_softmax(noisy.head(torch.cat([f.pooled for f in features], dim=1)), dim=2)
    masses, trusted = noisy.bins.masses(copy.values[:, noisy.live]).float(), copy.valid[:, 0]
    expected = F.cross_entropy(log_probs.transpose(1, 2), masses.transpose(1, 2), reduction="none")[trusted]
    torch.testing.assert_close(out.loss, expected.mean())
    for c, component in enumerate(noisy.components):
        total, count = out.sums[f"train/action_bits/{component.name}"]
        bits = (noisy.bins.chance[c] - expected[:, c].mean()) / math.log(2)
        torch.testing.assert_close(total / count, bits.float(), atol=1e-5, rtol=1e-4)
    out.loss.backward()
    assert all(torch.isfinite(f.pooled.grad).all() for f in features)
    assert noisy.chance()["train/loss_manip"] > noisy.bins.floor.mean() > 0
    assert "floor" in noisy.describe()


def test_a_component_with_fewer_bins_gets_a_finite_noisy_loss():
    torch.manual_seed(0)
    space = Windows("augself")
    noisy = Binned({"pooled": 8}, space, EXTENTS, hidden=16, noise=0.2)
    assert noisy.bins.num_bins.tolist() == [6, 6, 6, 6, 2]
    features = features_of()
    out = noisy(features, pair_views(space))
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert all(torch.isfinite(p.grad).all() for p in noisy.parameters())


def test_vanishing_noise_gives_the_loss_of_the_bins(binned):
    noisy = Binned({"pooled": 8}, Windows(), EXTENTS, hidden=16, noise=1e-9)
    noisy.head.load_state_dict(binned.head.state_dict())
    views, features = pair_views(Windows()), features_of()
    torch.testing.assert_close(noisy.eval()(features, views).loss, binned.eval()(features, views).loss)
    binned.train()


def test_posterior_is_a_distribution_with_names_units_and_edges(binned):
    binned.eval()
    posterior = binned.posterior(*features_of(5))
    binned.train()
    assert posterior.log_probs.shape == (5, 4, 6)
    assert torch.allclose(posterior.log_probs.exp().sum(dim=2), torch.ones(5, 4))
    assert [c.unit for c in posterior.components] == ["ratio", "half-windows"] * 2
    assert posterior.edges.shape == (4, 5)
    assert (posterior.centres.diff(dim=1) > 0).all()


def test_state_loads_into_a_fresh_model_with_other_edges(binned):
    other = Binned({"pooled": 8}, Windows(), torch.tensor([[375, 500]]), hidden=16)
    assert not torch.equal(other.bins.edges, binned.bins.edges)
    other.load_state_dict(binned.state_dict())
    assert torch.equal(other.bins.edges, binned.bins.edges)
    assert torch.equal(other.bins.chance, binned.bins.chance)
    kept = Binned({"pooled": 8}, Windows(), EXTENTS, hidden=16, keep_constant=True)
    with pytest.raises(UsageError, match="actions it was trained on"):
        kept.load_state_dict(binned.state_dict())


def test_bf16_autocast_leaves_a_float32_loss(binned):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = binned(features_of(), pair_views(Windows()))
    assert out.loss.dtype == torch.float32
    out.loss.backward()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"direction": "backward"}, "forward, both"),
        ({"hidden": 0}, "hidden=0"),
        ({"tap": "layer9"}, "pooled"),
        ({"bins": "soft"}, "equal_mass, uniform, published"),
    ],
)
def test_bad_options_are_told_in_a_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        Binned({"pooled": 8}, Windows(), EXTENTS, **options)


def test_nothing_to_predict_is_told_in_a_sentence():
    space = Windows()
    space.components = ()
    with pytest.raises(UsageError, match="no components"):
        Binned({"pooled": 8}, space, EXTENTS)
    with pytest.raises(UsageError, match="extents"):
        Binned({"pooled": 8}, Windows(), torch.zeros(0, 2))
