"""Micro-batches: the whole batch's gradient, exact where an encoder treats samples alone, else named and measured."""

import copy

import pytest
import torch
from toy_run import Small, Stream, complete, go, model

from stec.identity.byol import BYOL
from stec.identity.moco import MoCo
from stec.identity.relic import ReLIC
from stec.identity.relicv2 import ReLICv2
from stec.objective import STEC
from stec.training import gradcache
from stec.training.gradcache import GradCache, batch_norms, difference, join, micro_batches, still_statistics
from stec.training.gradient import Pass, Plain
from stec.training.options import Hardware
from stec.views import Views

CPU = Hardware(device="cpu", precision="fp32")


def batch() -> Views:
    views = complete(next(Stream(batch_size=24).batches(0)))
    return views._replace(x=tuple(x.double() for x in views.x))


def gradients(stec: STEC) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in stec.named_parameters() if p.grad is not None}


def whole(stec: STEC, views: Views, hardware: Hardware = CPU) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    out = Plain(Pass(stec), hardware, lambda loss: loss)(views, True)
    return gradients(stec), {name: (s / n).item() for name, (s, n) in out.sums.items()}


def cached(stec: STEC, views: Views, size: int, hardware: Hardware = CPU):
    out = GradCache(stec, hardware, lambda loss: loss, size)(views, True)
    return gradients(stec), {name: (s / n).item() for name, (s, n) in out.sums.items()}


@pytest.mark.parametrize("size", [1, 5, 8, 24, 100])
@pytest.mark.parametrize("forward_views", ["joint", "separate"])
def test_the_gradient_is_the_whole_batch_s(size, forward_views):
    """Float64; the heads have batch norm, and it sees the whole batch: only the encoder is cut."""
    views = batch()
    one, two = model().double(), model().double()
    one.forward_views = two.forward_views = forward_views
    expected, told = whole(one, views)
    found, said = cached(two, views, size)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-9, atol=1e-12), name
    assert said == pytest.approx(told, rel=1e-6)


OF_TEACHERS = {
    "byol": lambda encoder: BYOL(encoder, hidden=16, out=8),
    "moco": lambda encoder: MoCo(encoder, queue=32, hidden=16, out=8),
    "moco symmetric": lambda encoder: MoCo(encoder, queue=64, hidden=16, out=8, symmetric=True),
    "relic": lambda encoder: ReLIC(encoder, hidden=16, out=8),
    "relicv2": lambda encoder: ReLICv2(encoder, hidden=16, out=8, predictor_hidden=16),
}


def taught(method: str, forward_views: str = "joint", **options) -> tuple[STEC, list[int]]:
    """After its first step, in which the teacher falls behind; and the samples that its encoder is given at once."""
    torch.manual_seed(0)
    encoder = Small(**options)
    stec = STEC(encoder, {"taught": (1.0, OF_TEACHERS[method](encoder))}, {}, {}, forward_views=forward_views).double()
    stec.before_step(0, 10)
    with torch.no_grad():
        encoder.first.weight += 0.1 * torch.randn_like(encoder.first.weight)
    stec.before_step(1, 10)
    sizes: list[int] = []
    stec.identity["taught"].teacher.encoder.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    return stec, sizes


@pytest.mark.parametrize("forward_views", ["joint", "separate"])
@pytest.mark.parametrize("method", OF_TEACHERS)
def test_a_teacher_is_cut_too_and_the_gradient_stays(method, forward_views):
    views = batch()
    one, at_once = taught(method, forward_views)
    two, in_parts = taught(method, forward_views)
    expected, told = whole(one, views)
    found, said = cached(two, views, 9)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-9, atol=1e-12), name
    assert said == pytest.approx(told, rel=1e-6)
    each = {"joint": 2, "separate": 1}[forward_views] if method != "moco" else 1
    calls = 1 if method == "moco" or forward_views == "joint" else 2
    assert at_once == [24 * each] * calls
    assert in_parts == [8 * each] * (3 * calls)


def test_the_difference_is_also_that_of_the_teacher_s_statistics():
    stec, sizes = taught("byol", batch_norm=True)
    state = copy.deepcopy(stec.state_dict())
    apart = difference(stec, batch(), CPU, 6)
    assert sizes == [24, 12, 12]  # two micro-batches of 2 x 6: together, and each by itself
    assert apart["loss"] > 0
    assert all(torch.equal(t, state[name]) for name, t in stec.state_dict().items())
    assert stec.identity["taught"].teacher.micro_batch is None


def test_the_plain_gradients_of_parts_would_not_do():
    """The test above can fail: NT-Xent over halves has other negatives."""
    views = batch()
    one, two = model().double(), model().double()
    expected, _ = whole(one, views)
    Plain(Pass(two), CPU, lambda loss: loss, 2)(views, False)
    assert not torch.allclose(gradients(two)["encoder.first.weight"], expected["encoder.first.weight"], rtol=1e-2)


def test_under_autocast_it_is_the_whole_batch_s_to_its_precision():
    views = complete(next(Stream(batch_size=24).batches(0)))
    half = Hardware(device="cpu", precision="bf16")
    one, two = model(), model()
    expected, _ = whole(one, views, half)
    found, _ = cached(two, views, 8, half)
    length = torch.stack([g.norm() for g in expected.values()]).norm()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() < 0.02 * gradient.norm() + 0.002 * length, name


def test_a_loss_scale_scales_every_gradient():
    views = batch()
    one, two = model().double(), model().double()
    expected, _ = whole(one, views)
    GradCache(two, CPU, lambda loss: loss * 1024, 8)(views, False)
    for name, gradient in gradients(two).items():
        assert torch.allclose(gradient, 1024 * expected[name], rtol=1e-9, atol=1e-9), name


def test_dropout_is_the_same_in_both_passes():
    """If it were not, the gradient would not be that of the loss: checked against one graph with the same masks."""
    views = batch()
    one, two = model(dropout=0.5).double(), model(dropout=0.5).double()
    torch.manual_seed(7)
    found, _ = cached(two, views, 8)
    seen = []
    for number, part in enumerate(micro_batches(views.x, 8)):
        torch.manual_seed(7 + number)
        seen.append(one.encode(part))
    one.score(join(seen), views).loss.backward()
    for name, gradient in gradients(one).items():
        assert torch.allclose(found[name], gradient, rtol=1e-9, atol=1e-12), name


def test_running_statistics_move_in_one_pass_only():
    views = batch()
    stec, twin = model(batch_norm=True).double(), model(batch_norm=True).double()
    cached(stec, views, 8)
    with torch.no_grad():
        for part in micro_batches(views.x, 8):
            twin.encode(part)
    assert torch.equal(stec.encoder.norm.running_mean, twin.encoder.norm.running_mean)
    assert stec.encoder.norm.num_batches_tracked == 3
    assert stec.identity["simclr"].projector[1].num_batches_tracked == 1


def test_still_statistics_are_back_afterwards_even_after_an_error():
    stec = model(batch_norm=True)
    before = stec.encoder.norm.running_mean.clone()

    def breaks() -> None:
        with still_statistics(stec.encoder):
            stec.encoder(torch.randn(4, 12))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        breaks()
    assert torch.equal(stec.encoder.norm.running_mean, before)
    stec.encoder(torch.randn(4, 12))
    assert not torch.equal(stec.encoder.norm.running_mean, before)


def test_the_difference_is_none_without_batch_norm_and_some_with_it():
    views = batch()
    alone, tied = model().double(), model(batch_norm=True).double()
    before = {name: t.clone() for name, t in tied.state_dict().items()}
    assert difference(alone, views, CPU, 6) == pytest.approx({"features": 0, "loss": 0, "samples": 12}, abs=1e-6)
    coarse, fine = difference(tied, views, CPU, 12), difference(tied, views, CPU, 2)
    assert 0 < coarse["features"] < fine["features"] < 1
    assert fine["loss"] > 0
    assert (coarse["samples"], fine["samples"]) == (24, 4)
    assert all(torch.equal(t, before[name]) for name, t in tied.state_dict().items())
    assert not batch_norms(alone.encoder)


def test_the_difference_takes_no_more_rows_than_fit(tmp_path, monkeypatch):
    """Two micro-batches at most are encoded at once; where even they do not fit, the run goes on."""
    limit, encode = 8, STEC.encode

    def small(stec, xs):
        if len(xs[0]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(stec, xs)

    monkeypatch.setattr(STEC, "encode", small)
    for limit, words in ((8, "on the first 8 samples: features differ by "), (7, "not measured, for want of memory")):
        go(tmp_path / str(limit), stec=model(batch_norm=True), hardware={"micro_batch": 4}, training={"stop_after": 1})
        assert words in (tmp_path / str(limit) / "train.log").read_text()


def test_micro_batches_are_nearly_equal_and_join_is_the_way_back():
    x, y = torch.arange(10)[:, None], torch.arange(10)[:, None] + 10
    parts = micro_batches((x, y), 4)
    assert [len(a) for a, _ in parts] == [4, 3, 3]
    assert all(torch.equal(a + 10, b) for a, b in parts)
    stec = model()
    features = stec.encode(tuple(torch.randn(2, 10, 12)))
    halves = [tuple(f._replace(pooled=f.pooled[s]) for f in features) for s in (slice(0, 4), slice(4, 10))]
    assert all(torch.equal(a.pooled, b.pooled) for a, b in zip(join(halves), features, strict=True))


def test_a_run_in_micro_batches_is_the_run(tmp_path):
    one = go(tmp_path / "one", optimizer={"name": "sgd", "lr": 0.3})
    two = go(tmp_path / "two", optimizer={"name": "sgd", "lr": 0.3}, hardware={"micro_batch": 5})
    for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-3, atol=1e-5), name
    assert "micro-batch statistics" not in (tmp_path / "two/train.log").read_text()


def test_with_batch_norm_a_run_names_and_measures_it_once(tmp_path):
    go(tmp_path, stec=model(batch_norm=True), hardware={"micro_batch": 4}, training={"stop_after": 6})
    go(tmp_path, stec=model(batch_norm=True), hardware={"micro_batch": 4})
    told = (tmp_path / "train.log").read_text()
    assert told.count("in the encoder, statistics per micro-batch of 4 samples") == 2
    assert told.count("micro-batch statistics on the first 8 samples: features differ by ") == 1


def test_gradients_of_one_rank_are_left_alone():
    stec = model()
    stec.encoder.first.weight.grad = torch.ones(16, 12)
    gradcache.average_gradients(stec)
    assert torch.equal(stec.encoder.first.weight.grad, torch.ones(16, 12))
