import math

import pytest
import torch
from torch import Tensor, nn
from toy_space import Windows

from stec.actions import Compose
from stec.encoder import Encoder, Features
from stec.errors import UsageError
from stec.identity.relic import ReLIC
from stec.identity.simclr import SimCLR
from stec.manipulation.binned import Binned
from stec.objective import STEC, Out, Term, tally
from stec.probe import OnlineProbe
from stec.rng import make_keys
from stec.views import Batch, Views, make_views

DIMS = {"pooled": 8, "inner": 6}
EXTENTS = torch.tensor([[32, 32]])


class TwoLayers(Encoder):
    def __init__(self, batch_norm: bool = False):
        super().__init__()
        self.dims = dict(DIMS)
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(6) if batch_norm else nn.Identity()
        self.calls = 0

    def forward(self, x: Tensor) -> Features:
        self.calls += 1
        inner = self.norm(self.first(x)).tanh()
        return Features(self.second(inner), local=inner[:, None], layers={"inner": inner})


def model(seed: int = 0, **options) -> STEC:
    torch.manual_seed(seed)
    space = Compose({"window": Windows()})
    return STEC(
        TwoLayers(options.pop("batch_norm", False)),
        {"simclr": (2.0, SimCLR(DIMS, hidden=16, out=8))},
        {"binned": (0.5, Binned(DIMS, space, EXTENTS, hidden=16, tap=options.pop("tap", "pooled")))},
        {"online": (1.0, OnlineProbe(DIMS, 3))},
        **options,
    )


def some_views(num: int = 16, pairs: tuple[tuple[int, int], ...] = ((0, 1),)) -> Views:
    space = Compose({"window": Windows()})
    keys = make_keys(0, 0, torch.arange(num))
    actions = torch.stack([space.sample(keys, EXTENTS.expand(num, 2), v) for v in (0, 1)])
    x = torch.randn(num, 4, generator=torch.Generator().manual_seed(5))
    return make_views(Batch((x,), actions, keys, labels=torch.arange(num) % 4 - 1), space, pairs)


def test_loss_is_eq_2_and_the_probe_stands_beside_it():
    stec, views = model(), some_views()
    out = stec(views)
    value = {name: (total / count).item() for name, (total, count) in out.sums.items()}
    assert value["train/loss"] == pytest.approx(2 * value["train/loss_id"] + 0.5 * value["train/loss_manip"], rel=1e-5)
    assert out.loss.item() == pytest.approx(value["train/loss"] + value["probe/online/loss"], rel=1e-5)
    assert 0 <= value["probe/online/top1"] <= 1
    assert out.sums["probe/online/top1"][1] == 2 * (views.labels >= 0).sum()
    assert not any(t.requires_grad for pair in out.sums.values() for t in pair)
    assert {n for n in value if n.startswith("train/action")} == {
        f"train/action_{kind}/{c}"
        for kind in ("acc", "bits")
        for c in ("linear_xx", "linear_yy", "translation_x", "translation_y")
    }


def test_the_encoder_does_not_feel_the_probe():
    stec, views = model(), some_views()
    with_probe = torch.autograd.grad(stec(views).loss, list(stec.encoder.parameters()))
    stec.weights["probes.online"] = 0.0
    without = torch.autograd.grad(stec(views).loss, list(stec.encoder.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(with_probe, without, strict=True))
    lost = stec(views._replace(labels=None))
    assert "probe/online/top1" not in lost.sums


@pytest.mark.parametrize("tap", ["pooled", "inner"])
def test_joint_and_separate_views_agree_without_batch_statistics(tap):
    joint, separate, views = model(tap=tap), model(tap=tap, forward_views="separate"), some_views()
    assert torch.allclose(joint(views).loss, separate(views).loss)
    assert (joint.encoder.calls, separate.encoder.calls) == (1, 2)
    for a, b in zip(joint.encode(views.x), separate.encode(views.x), strict=True):
        assert torch.allclose(a.pooled, b.pooled)
        assert torch.allclose(a.local, b.local)
        assert torch.allclose(a.layers["inner"], b.layers["inner"])


def test_views_of_different_sizes_do_not_share_a_call():
    stec = model()
    features = stec.encode((torch.zeros(4, 4), torch.zeros(4, 4), torch.zeros(2, 4)))
    assert stec.encoder.calls == 2
    assert [len(f.pooled) for f in features] == [4, 4, 2]


def test_joint_views_share_batch_statistics():
    joint, separate, views = model(batch_norm=True), model(batch_norm=True, forward_views="separate"), some_views()
    assert not torch.allclose(joint(views).loss, separate(views).loss)


def test_grad_share_is_the_ratio_of_the_weighted_gradients():
    stec, views = model(), some_views()
    features = stec.encode(views.x)
    total, count = stec.score(features, views, grad_share=True).sums["train/grad_share_manip"]
    pooled = [f.pooled for f in features]
    norms = []
    for keep, weight in (("manipulation.binned", 0.5), ("identity.simclr", 2.0)):
        only = model()
        only.load_state_dict(stec.state_dict())
        only.weights = {name: (weight if name == keep else 0.0) for name in only.weights}
        gradients = torch.autograd.grad(only.score(features, views).loss, pooled, retain_graph=True)
        norms.append(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())
    assert count == 1
    assert total.item() == pytest.approx((norms[0] / (norms[0] + norms[1])).item(), rel=1e-4)
    assert 0 < total < 1


def test_grad_share_changes_no_gradient_and_is_left_out_without_one():
    stec, views = model(), some_views()
    plain = torch.autograd.grad(stec(views).loss, list(stec.encoder.parameters()))
    measured = torch.autograd.grad(stec(views, grad_share=True).loss, list(stec.encoder.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(plain, measured, strict=True))
    with torch.no_grad():
        assert "train/grad_share_manip" not in stec(views, grad_share=True).sums
    stec.manipulation = nn.ModuleDict()
    assert "train/grad_share_manip" not in stec(views, grad_share=True).sums


def test_pairs_weights_and_the_opening_line():
    stec = model()
    assert stec.pairs == ((0, 1),)
    assert stec.couples_batch
    assert stec.weights == {"identity.simclr": 2.0, "manipulation.binned": 0.5, "probes.online": 1.0}
    line = stec.describe()
    assert "\n" not in line
    for part in ("2 x simclr", "averaged over 2B anchors", "0.5 x binned", "chance 1.79 nats", "linear_xy, linear_yx"):
        assert part in line
    assert stec.chance()["train/loss_manip"] == pytest.approx(1.79, abs=0.005)
    alone = STEC(TwoLayers(), {"simclr": (2.0, SimCLR(DIMS))}, {}, {})
    assert alone.pairs == ()


@pytest.mark.parametrize(("negatives", "among"), [("global", 8), ("local", 4)])
def test_chance_goes_by_how_many_samples_an_anchor_is_told_from(negatives, among, monkeypatch):
    monkeypatch.setattr("stec.losses.world_size", lambda: 2)
    encoder = TwoLayers()
    near = SimCLR(DIMS, hidden=4, out=2, negatives=negatives)
    relic = ReLIC(encoder, momentum=None, hidden=4, out=2, negatives=negatives)
    stec = STEC(encoder, {"simclr": (1.0, near), "relic": (1.0, relic)}, {}, {})
    assert stec.chance() == {}
    expected = {"train/loss_id/simclr": math.log(2 * among - 1), "train/loss_id/relic": math.log(among)}
    assert stec.chance(8) == pytest.approx(expected)


class Counter(Term):
    couples_batch = False

    def before_step(self, encoder: Encoder, step: int, total: int) -> None:
        self.seen = (encoder, step, total)

    def chance(self, batch_size: int | None = None) -> dict[str, float]:
        return {"train/loss_id": 0.5}

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        loss = features[0].pooled.square().mean()
        return Out(loss, {"train/loss_id": tally(loss)})


def test_every_term_hears_of_a_step_and_reports_under_its_own_name():
    first, second = Counter(), Counter()
    stec = STEC(TwoLayers(), {"one": (1.0, first), "two": (3.0, second)}, {}, {})
    stec.before_step(3, 10)
    assert first.seen == second.seen == (stec.encoder, 3, 10)
    assert not stec.couples_batch
    sums = stec(some_views()).sums
    assert {"train/loss_id", "train/loss_id/one", "train/loss_id/two", "train/loss"} == set(sums)
    assert sums["train/loss_id"] == sums["train/loss"]  # the weighted sum of both
    assert float(sums["train/loss_id"][0]) == pytest.approx(4 * float(sums["train/loss_id/two"][0]))
    assert stec.chance() == {"train/loss_id/one": 0.5, "train/loss_id/two": 0.5}
    alone = STEC(TwoLayers(), {"one": (1.0, first)}, {}, {})
    assert {"train/loss_id", "train/loss"} == set(alone(some_views()).sums)


def test_bf16_autocast_trains_every_parameter():
    stec = model(batch_norm=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = stec(some_views(), grad_share=True)
    assert out.loss.dtype == torch.float32
    out.loss.backward()
    missing = {name for name, p in stec.named_parameters() if p.requires_grad and p.grad is None}
    assert missing == set()
    assert {name for name, p in stec.named_parameters() if not p.requires_grad} == {"identity.simclr.projector.4.bias"}


def test_sync_batch_norm_conversion_finds_every_norm_and_keeps_the_state():
    stec = model(batch_norm=True)
    state = stec.state_dict()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(stec)
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in converted.modules()) == 4
    assert all(torch.equal(converted.state_dict()[name], value) for name, value in state.items())
    assert not converted.identity["simclr"].projector[4].bias.requires_grad


class AllAlike(Term):
    all_views = True


class LastForItself(Term):
    keeps = frozenset({2})


def test_what_one_model_keeps_apart_no_other_makes_alike():
    words = r"identity\.alike makes all views alike, but manipulation\.last keeps view 2 apart, .*first two views only"
    alike, last = {"alike": (1.0, AllAlike())}, {"last": (1.0, LastForItself())}
    with pytest.raises(UsageError, match=words):
        STEC(TwoLayers(), alike, last, {})
    STEC(TwoLayers(), alike, {}, {})
    STEC(TwoLayers(), {"first_two": (1.0, Term())}, last, {})


def test_bad_objectives_are_told_in_a_sentence():
    with pytest.raises(UsageError, match="joint, separate"):
        model(forward_views="both")
    with pytest.raises(UsageError, match="out of range"):
        STEC(TwoLayers(), {"simclr": (-1.0, SimCLR(DIMS))}, {}, {})
    with pytest.raises(UsageError, match="empty"):
        STEC(TwoLayers(), {}, {}, {})
    narrow = TwoLayers()
    narrow.dims = {"pooled": 8}
    term = Binned(DIMS, Windows(), EXTENTS, tap="inner")
    with pytest.raises(UsageError, match=r"manipulation\.binned reads the output inner, but this encoder gives pooled"):
        STEC(narrow, {}, {"binned": (1.0, term)}, {})
    with pytest.raises(UsageError, match="2 classes"):
        OnlineProbe(DIMS, 0)
    with pytest.raises(UsageError, match="negatives"):
        SimCLR(DIMS, negatives="none")
    assert (model().num_views, STEC(TwoLayers(), {"one": (1.0, Counter())}, {}, {}).num_views) == (2, 1)
    with pytest.raises(UsageError, match="this objective compares 2 views, but the batch has 1"):
        model().score((Features(torch.zeros(4, 8)),), some_views(4))
