"""CPC against a slow twin: loss, gradients and what is counted; closed forms; micro-batches."""

import math

import pytest
import torch
from toy_sequence import DIMS, Sequences, sequence_views, some_features

from stec.encoder import Features
from stec.errors import UsageError
from stec.identity import cpc
from stec.identity.cpc import CPC
from stec.identity.time_insensitive import TimeInsensitive
from stec.manipulation.frame_offset import FrameOffset
from stec.negatives import MODES, draw
from stec.objective import STEC
from stec.training.gradcache import GradCache
from stec.training.gradient import Pass, Plain
from stec.training.options import Hardware
from stec.views import Views

BATCH, LENGTH, STEPS, NUM = 4, 7, 3, 6
SOME = torch.tensor([7, 5, 1, 6])


def model(mode="uniform", **options):
    torch.manual_seed(1)
    return CPC(DIMS, **{"steps": STEPS, "negatives": mode, "num_negatives": NUM} | options).double()


def views_of(num_views=1):
    return sequence_views(BATCH, LENGTH, num_views)


def slow_twin(term, features, views):
    """The mean over views of the mean over steps and anchors, one softmax at a time; what was right; collisions."""
    losses, right, hits, beside = [], {k: [] for k in range(1, STEPS + 1)}, 0, 0
    for number, f in enumerate(features):
        negatives = draw(
            term.negatives,
            NUM,
            STEPS,
            keys=views.keys,
            view=number,
            length=LENGTH,
            frames=f.frames,
            group=views.group,
            device=torch.device("cpu"),
        )
        weights, each = term.predict.weight.view(STEPS, DIMS["local"], DIMS["context"]), []
        for b in range(BATCH):
            for t in range(LENGTH - STEPS):
                if not negatives.valid[b, t]:
                    continue
                for k in range(1, STEPS + 1):
                    candidates = [(b, t + k), *(divmod(int(n), LENGTH) for n in negatives.frames[b, t])]
                    scores = [f.local[s, u] @ weights[k - 1] @ f.context[b, t] for s, u in candidates]
                    if term.score == "mean":
                        scores = [score / DIMS["local"] for score in scores]
                    each.append(-torch.log(scores[0].exp() / torch.stack(scores).exp().sum()))
                    right[k].append(all(scores[0] > score for score in scores[1:]))
                    hits += sum(place == (b, t + k) for place in candidates[1:])
                    beside += NUM
        losses.append(torch.stack(each).mean())
    return torch.stack(losses).mean(), right, hits / beside


@pytest.mark.parametrize("real", [None, SOME], ids=["whole", "padded"])
@pytest.mark.parametrize(("mode", "score"), [*((mode, "dot") for mode in MODES), ("uniform", "mean")])
@pytest.mark.parametrize("slab", [1, 2**20])
def test_loss_gradient_and_counts_are_the_slow_twin_s(monkeypatch, mode, score, real, slab):
    monkeypatch.setattr(cpc, "_CPU_SLAB", slab)
    term, views = model(mode, score=score), views_of(2)
    features = tuple(some_features(BATCH, LENGTH, seed, real) for seed in (0, 1))
    leaves = [term.predict.weight, *(x for f in features for x in (f.local, f.context))]
    out, (loss, right, collisions) = term(features, views), slow_twin(term, features, views)
    assert torch.allclose(out.loss, loss, rtol=1e-12)
    for a, b in zip(torch.autograd.grad(out.loss, leaves), torch.autograd.grad(loss, leaves), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)
    told = {name: (total / count).item() for name, (total, count) in out.sums.items()}
    everything = [x for each in right.values() for x in each]
    assert told == pytest.approx(
        {
            "train/loss_id": loss.item(),
            "train/cpc_acc": sum(everything) / len(everything),
            "train/cpc_acc/1": sum(right[1]) / len(right[1]),
            f"train/cpc_acc/{STEPS}": sum(right[STEPS]) / len(right[STEPS]),
            "train/cpc_collisions": collisions,
        },
        rel=1e-5,
    )
    assert (collisions > 0) == (mode == "permuted")


@pytest.mark.parametrize("mode", MODES)
def test_a_sequence_in_which_nothing_happens_is_chance(mode):
    same = Features(torch.zeros(BATCH, 5), torch.ones(BATCH, LENGTH, 4), torch.randn(BATCH, LENGTH, 5))
    term = model(mode).float()
    out = term((same,), views_of())
    assert out.loss.item() == pytest.approx(math.log(1 + NUM), rel=1e-5)
    assert term.chance()["train/loss_id"] == pytest.approx(math.log(1 + NUM))
    assert out.sums["train/cpc_acc"][0] == 0  # equal scores are no wins
    assert term.chance().keys() == out.sums.keys() - {"train/cpc_collisions"}


def test_who_sees_what_comes_is_right():
    told = torch.eye(BATCH * LENGTH).view(BATCH, LENGTH, -1) * 5
    wide = torch.cat([told, torch.zeros(BATCH, STEPS, told.shape[2])], dim=1)
    context = torch.cat([wide[:, k : k + LENGTH] for k in range(1, STEPS + 1)], dim=2)
    term = CPC({"local": told.shape[2], "context": context.shape[2]}, steps=STEPS, num_negatives=NUM)
    with torch.no_grad():
        term.predict.weight.copy_(torch.eye(context.shape[2]))
    out = term((Features(context.mean(1), told, context),), views_of())
    assert out.loss.item() == pytest.approx(NUM * math.exp(-25), rel=1e-2)
    for name in ("train/cpc_acc", "train/cpc_acc/1", "train/cpc_acc/3"):
        assert out.sums[name][0] == out.sums[name][1]


def test_what_is_to_come_is_learnt_where_it_can_be_known():
    def accuracy(moving):
        torch.manual_seed(0)
        term = STEC(Sequences(), {"cpc": (1.0, CPC(DIMS, steps=2, num_negatives=8))}, {}, {}).double()
        optimizer = torch.optim.Adam(term.parameters(), lr=0.03)
        time = torch.arange(42.0, dtype=torch.float64)
        for step in range(60):
            views = sequence_views(16, 20, seed=step)
            if moving:  # a wave whose phase and speed are its own
                speed, phase = views.x[0][:, :, :1].sigmoid(), views.x[0][:, :, 1:2] * 6
                views = views._replace(x=((time * speed + phase).sin(),))
            optimizer.zero_grad()
            out = term(views)
            out.loss.backward()
            optimizer.step()
        total, count = out.sums["train/cpc_acc/2"]  # two frames ahead there is no overlap
        return float(total / count)

    assert accuracy(moving=True) > 0.35
    assert accuracy(moving=False) < 0.25  # chance is 1/9


@pytest.mark.parametrize("size", [1, 3, 8])
def test_micro_batches_give_the_whole_batch_s_gradient(size):
    def stec():
        torch.manual_seed(2)
        identity = {
            "cpc": (1.0, CPC(DIMS, steps=STEPS, num_negatives=NUM)),
            "windows": (0.5, TimeInsensitive(DIMS, hidden=8, out=4)),
            "frames": (0.5, TimeInsensitive(DIMS, design="frames", reads="local", num_frames=2, hidden=8, out=4)),
        }
        offset = FrameOffset(DIMS, reach=4, num_bins=4, hidden=8)
        return STEC(Sequences(), identity, {"offset": (1.0, offset)}, {}).double()

    one, two, hardware = stec(), stec(), Hardware(device="cpu", precision="fp32")
    views = sequence_views(8, 9, num_views=2)
    whole = Plain(Pass(one), hardware, lambda loss: loss)(views, False)
    cut = GradCache(two, hardware, lambda loss: loss, size)(views, False)
    assert torch.allclose(whole.loss, cut.loss)
    expected = {name: p.grad for name, p in one.named_parameters() if p.grad is not None}
    assert expected.keys() >= {"encoder.near.weight", "encoder.far.weight_hh_l0"}
    for name, p in two.named_parameters():
        if name in expected:
            assert torch.allclose(p.grad, expected[name], rtol=1e-9, atol=1e-12), name


def test_under_autocast_scores_are_float32_and_everything_learns():
    f = some_features(BATCH, LENGTH)
    halves = Features(f.pooled.bfloat16(), f.local.bfloat16(), f.context.bfloat16())
    term = model().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = term((halves,), views_of())
    assert out.loss.dtype == torch.float32
    out.loss.backward()
    assert all(t.grad is not None and torch.isfinite(t.grad).all() for t in (f.local, f.context, term.predict.weight))
    exact = term((Features(f.pooled.float(), f.local.float(), f.context.float()),), views_of()).loss
    assert out.loss.item() == pytest.approx(exact.item(), rel=0.02)


def test_the_opening_line_says_what_is_averaged():
    line = CPC(DIMS).describe()
    for part in ("12 steps", "128 uniform negatives", "dot", "chance 4.86"):
        assert part in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, r"^identity\.cpc\.steps=0 must"),
        ({"num_negatives": 0}, r"^identity\.cpc\.num_negatives=0 must"),
        ({"negatives": "all"}, "choose one of uniform, same_sequence, same_group, other_sequences, permuted"),
        ({"score": "cosine"}, "choose one of dot, mean"),
    ],
)
def test_bad_options_are_told_in_a_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        model(**options)


def test_an_encoder_without_sequences_is_told():
    with pytest.raises(UsageError, match=r"^identity\.cpc reads the output context, local, which"):
        CPC({"pooled": 8})


@pytest.mark.parametrize(
    ("options", "batch", "length", "words"),
    [
        ({}, 4, 3, r"^identity\.cpc\.steps=3 .* more than 3 frames, but the encoder gives 3"),
        ({"negatives": "same_sequence"}, 4, 4, r"more than 4 frames, but the encoder gives 4"),
        ({"negatives": "other_sequences"}, 1, 7, "needs 2 or more sequences"),
    ],
)
def test_a_batch_that_offers_too_little_is_told(options, batch, length, words):
    with pytest.raises(UsageError, match=words):
        model(**options)((some_features(batch, length),), sequence_views(batch, length))


def test_groups_must_be_known_where_they_are_asked_for():
    views: Views = views_of()._replace(group=None)
    with pytest.raises(UsageError, match="`group`"):
        model("same_group")((some_features(BATCH, LENGTH),), views)
