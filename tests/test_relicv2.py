"""ReLICv2: ReLIC among many views, with few negatives."""

import math

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from test_relic import projections
from test_rng import mass_is_even
from toy_terms import TwoLayers, toy_views

from stec.encoder import encode
from stec.errors import UsageError
from stec.identity import relicv2 as module
from stec.identity.relic import relic
from stec.identity.relicv2 import ReLICv2, draw_others, relicv2
from stec.rng import make_keys

NUM = 7


def some_others(num=3, rows=NUM):
    return draw_others(make_keys(4, 0, torch.arange(rows)), num, torch.device("cpu"))


def slow_twin(online, targets, others, temperature, alpha):
    """Sample by sample and pair by pair. The reference of a small view is the large view after the target."""
    num_large = len(targets)

    def matcher(i, j, b):
        candidates = [b, *others[b].tolist()]
        scores = [F.cosine_similarity(online[i][b], targets[j][c], dim=0) / temperature for c in candidates]
        return torch.stack([torch.exp(s) for s in scores]) / sum(torch.exp(s) for s in scores)

    losses = []
    for b in range(len(others)):
        terms = []
        for i in range(len(online)):
            for j in range(num_large):
                if i == j:
                    continue
                first, second = (j, i) if i < num_large else ((j + 1) % num_large, j)
                p, reference = matcher(i, j, b), matcher(first, second, b).detach()
                terms.append(-torch.log(p[0]) + alpha * (reference * torch.log(reference / p)).sum())
        losses.append(torch.stack(terms).mean())
    return torch.stack(losses)


def model(**options):
    torch.manual_seed(1)
    encoder = TwoLayers().double()
    options = {"hidden": 8, "out": 4, "predictor_hidden": 8, "num_negatives": 3} | options
    return encoder, ReLICv2(encoder, **options).double()


@pytest.mark.parametrize(("num_large", "num_small"), [(2, 0), (2, 2), (3, 1), (4, 0)])
def test_equals_the_slow_twin_in_value_and_gradient(num_large, num_small):
    num, others = 2 * num_large + num_small, some_others()
    ours, twin = projections(num, rows=NUM), projections(num, rows=NUM)
    a = relicv2(ours[num_large:], ours[:num_large], others, 0.2, 0.7)
    b = slow_twin(twin[num_large:], twin[:num_large], others, 0.2, 0.7)
    num_pairs = (num_large + num_small) * num_large - num_large
    assert (a.losses.shape, a.kl.shape, a.right.shape) == ((NUM,), (num_pairs, NUM), (num_pairs, NUM))
    assert torch.allclose(a.losses, b, rtol=1e-12)
    gradients = (torch.autograd.grad(x.mean(), z[num_large:]) for x, z in ((a.losses, ours), (b, twin)))
    for g, h in zip(*gradients, strict=True):
        assert torch.allclose(g, h, atol=1e-14)
    # The targets are a teacher's.
    assert torch.autograd.grad(a.losses.mean(), ours[0], allow_unused=True) == (None,)


@pytest.mark.parametrize("alpha", [0.0, 0.8])
def test_of_two_views_and_all_others_it_is_relic_with_both_directions_of_the_kl(alpha):
    q1, q2, t1, t2 = projections(rows=NUM)
    everyone = torch.stack([torch.tensor([j for j in range(NUM) if j != i]) for i in range(NUM)])
    ours = relicv2((q1, q2), (t1, t2), everyone, 0.2, alpha)
    one, other = relic(q1, q2, t1, t2, 0.2, alpha), relic(q2, q1, t2, t1, 0.2, alpha)
    assert torch.allclose(ours.losses, one.losses + alpha * other.kl / 2, rtol=1e-12)
    # Pair (1, 2) first has view 2 as anchor, in view 1: its reference is p12.
    assert torch.allclose(ours.kl, torch.stack([one.kl, other.kl]), rtol=1e-12)
    assert torch.equal(ours.right, one.right.flip(0))


def test_the_kl_equals_scipys():
    q1, q2, t1, t2 = (z.detach() for z in projections(rows=NUM))
    others = some_others()
    found = relicv2((q1, q2), (t1, t2), others, 0.3, 1.0).kl[0]
    numbers = torch.cat([torch.arange(NUM)[:, None], others], dim=1)
    p12, p21 = (
        (F.cosine_similarity(q[:, None], t[numbers], dim=2) / 0.3).softmax(1).numpy() for q, t in ((q1, t2), (q2, t1))
    )
    assert torch.allclose(found, torch.from_numpy(scipy.stats.entropy(p12, p21, axis=1)), rtol=1e-12)


def test_closed_forms():
    same, apart, others = torch.ones(8, 4), torch.eye(8), some_others(5, 8)
    flat = relicv2((same, same, same), (same, same), others, 0.1, 1.0)
    assert torch.allclose(flat.losses, torch.full((8,), math.log(6)))
    assert not flat.right.any()
    sharp = relicv2((apart, apart, apart), (apart, apart), others, 1.0, 1.0)
    assert torch.allclose(sharp.losses, torch.full((8,), math.log(math.e + 5) - 1))
    assert sharp.kl.abs().max() < 1e-6
    # A small view that knows nothing, beside large ones that know: KL(p || uniform) = ln 6 - H(p), in 2 pairs of 4.
    lost = relicv2((apart, apart, same @ torch.ones(4, 8)), (apart, apart), others, 1.0, 1.0)
    p = torch.tensor([math.e, 1, 1, 1, 1, 1]) / (math.e + 5)
    surprise = math.log(6) - scipy.stats.entropy(p)
    assert torch.allclose(lost.kl.mean(0), torch.full((8,), surprise / 2).float(), atol=1e-5)


def test_neither_order_nor_scale_nor_precision_matters():
    q1, q2, q3, t1, t2 = projections(5, rows=NUM, dtype=torch.float32)
    others = some_others()
    plain = relicv2((q1, q2, q3), (t1, t2), others, 0.2, 1.0).losses
    swapped = relicv2((q2, q1, q3), (t2, t1), others, 0.2, 1.0).losses
    assert torch.allclose(swapped, plain, rtol=1e-5)
    assert torch.allclose(relicv2((q1, q2 * 50, q3 / 9), (t1 * 7, t2), others, 0.2, 1.0).losses, plain, rtol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(relicv2((q1, q2, q3), (t1, t2), others, 0.2, 1.0).losses, plain)


def test_others_are_everyone_but_oneself_evenly_and_by_name():
    drawn = some_others(3000, 6)
    assert drawn.shape == (6, 3000)
    for b in range(6):
        counts = drawn[b].bincount(minlength=6)
        assert counts[b] == 0
        assert mass_is_even(counts[counts > 0].numpy())
        assert (counts > 0).sum() == 5
    assert torch.equal(some_others(3000, 6), drawn)
    assert (drawn[0] != drawn[1]).float().mean() > 0.5
    later = draw_others(make_keys(4, 1, torch.arange(6)), 3000, torch.device("cpu"))
    assert (later != drawn).float().mean() > 0.5
    assert torch.equal(some_others(4, 2), torch.tensor([[1] * 4, [0] * 4]))


def test_ranks_draw_what_one_draws_of_the_whole(monkeypatch):
    whole = some_others(5, 6)
    monkeypatch.setattr(module, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(module, "rank", lambda rank=rank: rank)
        keys = make_keys(4, 0, torch.arange(6))[3 * rank : 3 * rank + 3]
        assert torch.equal(draw_others(keys, 5, torch.device("cpu")), whole[3 * rank : 3 * rank + 3])


@pytest.mark.parametrize("small", [0, 2])
def test_the_model_is_the_loss_of_its_projections(small):
    encoder, term = model(alpha=0.6, temperature=0.3)
    views = toy_views(0, small=small)
    term.before_step(encoder, 0, 10)
    for p in (*encoder.parameters(), *term.projector.parameters()):
        p.data += 0.01
    features = encode(encoder, views.x)
    out = term(features, views)
    assert views.num_global == 3
    online = term.predictor(term.projector(torch.cat([f.pooled for f in features]))).chunk(3 + small)
    targets = term.teacher(views.x[:3])
    others = draw_others(views.keys, 3, torch.device("cpu"))
    expected = slow_twin(online, targets, others, 0.3, 0.6).mean()
    assert torch.allclose(out.loss, expected, rtol=1e-12)
    num_pairs = 3 * (3 + small) - 3
    assert {name: float(count) for name, (_, count) in out.sums.items()} == {
        "train/loss_id": 12,
        "train/relic_kl": 12 * num_pairs,
        "train/contrast_acc": 12 * num_pairs,
    }
    learning = [p for p in (*encoder.parameters(), *term.parameters()) if p.requires_grad]
    found = torch.autograd.grad(out.loss, learning, retain_graph=True)
    for g, h in zip(found, torch.autograd.grad(expected, learning), strict=True):
        assert torch.allclose(g, h, atol=1e-12)


def test_small_views_are_never_seen_by_the_teacher(monkeypatch):
    encoder, term = model()
    views, seen = toy_views(0, small=2), []
    teach = term.teacher.forward
    monkeypatch.setattr(term.teacher, "forward", lambda xs: seen.append([x.shape[1] for x in xs]) or teach(xs))
    term(encode(encoder, views.x), views)
    assert seen == [[4, 4, 4]]


def test_under_autocast_the_loss_is_float32_and_everything_learns():
    encoder = TwoLayers()
    term, views = ReLICv2(encoder, hidden=8, out=4, predictor_hidden=8), toy_views(0, small=1)
    views = views._replace(x=tuple(x.float() for x in views.x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = term(encode(encoder, views.x), views)
    assert out.loss.dtype == torch.float32
    out.loss.backward()
    assert all(p.grad is not None for p in (*encoder.parameters(), *term.parameters()) if p.requires_grad)
    assert term.chance() == {"train/contrast_acc": 1 / 11}
    assert "InfoNCE with 10 negatives" in term.describe()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1.0}, "temperature=-1.0 must be above 0"),
        ({"alpha": -1.0}, "alpha=-1.0 must be finite, 0 or more"),
        ({"num_negatives": 0}, "num_negatives=0 must be at least 1"),
        ({"momentum": -0.1}, "momentum=-0.1 must be in"),
    ],
)
def test_bad_options_are_told_in_a_sentence(options, words):
    with pytest.raises(UsageError, match=rf"^identity\.relicv2\..*{words}"):
        model(**options)


def test_what_cannot_be_compared_is_told():
    encoder, term = model()
    views = toy_views(0)._replace(num_global=1)
    with pytest.raises(UsageError, match="two or more large views"):
        term(encode(encoder, views.x), views)
    alone = toy_views(0, num=1)
    with pytest.raises(UsageError, match="2 or more in a batch"):
        term.eval()(encode(encoder.eval(), alone.x), alone)
