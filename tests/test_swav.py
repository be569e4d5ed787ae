"""SwAV: codes by hand and by lightly, the swapped prediction, the frozen prototypes and the queue."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import SwaVLoss
from lightly.loss.swav_loss import sinkhorn as lightly_sinkhorn
from test_losses import relative_difference
from test_vicreg import DIMS, looks

from stec.errors import UsageError
from stec.identity.swav import SwAV, sinkhorn, swapped_prediction

OPTIONS = {"num_prototypes": 6, "freeze_steps": 0, "hidden": 8, "out": 4}


def some_scores(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    drawn = torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (F.normalize(drawn, dim=-1)[..., 0]).to(dtype)  # cosines


def model(**options) -> SwAV:
    torch.manual_seed(1)
    return SwAV(DIMS, **(OPTIONS | options)).double()


def by_hand(term: SwAV, features):
    """Scores of each view [B, K]."""
    projected = term.projector(torch.cat([f.pooled for f in features]))
    return [z @ term.prototypes.weight.T for z in F.normalize(projected, dim=1).chunk(len(features))]


def slow_sinkhorn(scores: torch.Tensor, epsilon: float, iterations: int) -> list[list[float]]:
    num, kinds = scores.shape
    q = [[math.exp(scores[n, k].item() / epsilon) for k in range(kinds)] for n in range(num)]
    for _ in range(iterations):
        shares = [sum(q[n][k] for n in range(num)) for k in range(kinds)]
        q = [[q[n][k] / shares[k] / kinds for k in range(kinds)] for n in range(num)]
        totals = [sum(row) for row in q]
        q = [[value / total / num for value in row] for row, total in zip(q, totals, strict=True)]
    return [[num * value for value in row] for row in q]


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.3, 1), (1.0, 10)])
def test_codes_equal_the_slow_twin_s(epsilon, iterations):
    scores = some_scores(7, 5)
    expected = torch.tensor(slow_sinkhorn(scores, epsilon, iterations), dtype=torch.float64)
    assert torch.allclose(sinkhorn(scores, epsilon=epsilon, iterations=iterations), expected, rtol=1e-10)


def test_codes_equal_lightly_s():
    scores = some_scores(40, 16, dtype=torch.float32)
    assert relative_difference(sinkhorn(scores), lightly_sinkhorn(scores)) < 1e-5


def test_codes_are_balanced():
    scores = some_scores(60, 4) + torch.tensor([2.0, 0.0, 0.0, -1.0])  # of which one prototype would take all
    codes = sinkhorn(scores, epsilon=0.3, iterations=100)
    assert torch.allclose(codes.sum(dim=1), torch.ones(60, dtype=torch.float64))
    assert torch.allclose(codes.sum(dim=0), torch.full((4,), 15.0, dtype=torch.float64), rtol=1e-3)
    # A constant added to a prototype's scores is gone after the first turn; one added to a sample's, in the limit.
    popular = scores + torch.tensor([0.5, 3.0, -1.0, 0.0])
    assert torch.allclose(sinkhorn(popular, epsilon=0.3, iterations=1), sinkhorn(scores, epsilon=0.3, iterations=1))
    louder = scores + torch.arange(60)[:, None] / 30
    assert torch.allclose(sinkhorn(louder, epsilon=0.3, iterations=500), sinkhorn(scores, epsilon=0.3, iterations=500))


def test_no_epsilon_overflows():
    codes = sinkhorn(some_scores(30, 8, dtype=torch.float32), epsilon=1e-3)
    assert torch.isfinite(codes).all()
    assert torch.allclose(codes.sum(dim=1), torch.ones(30))


def test_equal_scores_give_even_codes_and_the_chance_level():
    scores = torch.zeros(5, 8)
    codes = sinkhorn(scores)
    assert torch.allclose(codes, torch.full((5, 8), 1 / 8))
    assert swapped_prediction([scores, scores], [codes, codes], 0.1).tolist() == pytest.approx([math.log(8)] * 5)


@pytest.mark.parametrize(("num_views", "num_global"), [(2, 2), (5, 2), (4, 3)])
def test_the_swapped_prediction_equals_the_slow_twin_and_lightly(num_views, num_global):
    scores = [some_scores(9, 6, seed=s, dtype=torch.float32).requires_grad_() for s in range(num_views)]
    codes = [sinkhorn(s.detach()) for s in scores[:num_global]]
    losses = swapped_prediction(scores, codes, 0.1)
    assert losses.shape == (9,)
    total, pairs = 0.0, 0
    for i in range(num_global):
        for j in range(num_views):
            if i != j:
                p = torch.exp(scores[j] / 0.1) / torch.exp(scores[j] / 0.1).sum(dim=1, keepdim=True)
                total, pairs = total - (codes[i] * p.log()).sum(dim=1), pairs + 1
    assert torch.allclose(losses, total / pairs, rtol=1e-4)
    theirs = SwaVLoss()(scores[:num_global], scores[num_global:]).squeeze()
    assert relative_difference(losses.mean(), theirs) < 1e-5
    mine, other = (torch.autograd.grad(x, scores) for x in (losses.mean(), theirs))
    for g, h in zip(mine, other, strict=True):
        assert relative_difference(g, h) < 1e-5


def test_two_views_can_be_swapped():
    a, b = (some_scores(9, 6, seed=s) for s in (0, 1))
    codes = sinkhorn(a), sinkhorn(b)
    assert torch.allclose(swapped_prediction([a, b], codes, 0.1), swapped_prediction([b, a], codes[::-1], 0.1))


@pytest.mark.parametrize(("num_views", "num_global"), [(2, 2), (4, 2)])
def test_the_term_is_the_functions_and_everything_learns(num_views, num_global):
    term, (features, views) = model(), looks(num_views, num_global=num_global)
    scores = by_hand(term, features)
    codes = [sinkhorn(s.detach()) for s in scores[:num_global]]
    expected = swapped_prediction(scores, codes, 0.1)
    out = term(features, views)
    assert torch.allclose(out.loss, expected.mean())
    assert out.sums["train/loss_id"][1] == 12
    out.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in term.parameters())
    assert all(f.pooled.grad.abs().sum() > 0 for f in features)
    assert term.chance() == {"train/loss_id": pytest.approx(math.log(6))}


def test_prototypes_stay_on_the_sphere_and_are_frozen_at_first():
    term, (features, views) = model(freeze_steps=2), looks(2)
    optimizer = torch.optim.SGD(term.parameters(), lr=0.5)
    seen = []
    for step in range(4):
        term.before_step(None, step, 10)
        seen.append(term.prototypes.weight.detach().clone())
        assert torch.allclose(seen[-1].norm(dim=1), torch.ones(6, dtype=torch.float64))
        optimizer.zero_grad()
        term(features, views).loss.backward()
        assert term.prototypes.weight.grad is not None  # DDP waits for it
        assert bool(term.prototypes.weight.grad.any()) == (step >= 2)
        assert term.projector[0].weight.grad.any()
        optimizer.step()
    assert torch.equal(seen[0], seen[1])
    assert torch.allclose(seen[1], seen[2])
    assert not torch.allclose(seen[2], seen[3])


def test_the_queue_balances_codes_once_it_is_full():
    term, plain, (features, views) = model(queue=20, queue_start=1), model(), looks(2)
    z = F.normalize(term.projector(torch.cat([f.pooled for f in features])), dim=1).detach().chunk(2)
    for step in range(3):  # 12 embeddings each: from step 1 on they are kept, 24 after step 2
        term.before_step(None, step, 10)
        assert torch.allclose(term(features, views).loss, plain(features, views).loss)
        for view in (0, 1):
            kept = torch.cat([z[view]] * step + [torch.zeros(20, 4, dtype=torch.float64)])[:20]
            assert torch.allclose(term.queued[view], kept)
    term.before_step(None, 3, 10)
    weight = term.prototypes.weight
    own = [each @ weight.T for each in z]
    codes = [sinkhorn(torch.cat([s, q @ weight.T]))[:12] for s, q in zip(own, term.queued, strict=True)]
    expected = swapped_prediction(own, codes, 0.1).mean()
    found = term(features, views).loss
    assert torch.allclose(found, expected)
    assert not torch.allclose(found, plain(features, views).loss, rtol=1e-3)
    assert "queued" in term.state_dict()


def test_the_newest_stand_first_in_the_queue_and_evaluation_leaves_it():
    term, (features, views) = model(queue=15), looks(2)
    term(features, views)
    before = term.queued.clone()
    other = tuple(f._replace(pooled=f.pooled.flip(0) + 1) for f in features)
    term.before_step(None, 1, 10)
    term(other, views)
    assert torch.equal(term.queued[:, 12:], before[:, :3])
    assert not torch.equal(term.queued[:, :12], before[:, :12])
    kept = term.queued.clone()
    term.eval()(features, views)
    assert torch.equal(term.queued, kept)


def test_under_autocast_the_loss_is_float32():
    features, views = looks(2, dtype=torch.float32)
    scores = [some_scores(9, 6, seed=s, dtype=torch.float32) for s in (0, 1)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model().float()(features, views).loss.dtype == torch.float32
        codes = [sinkhorn(s) for s in scores]
        under = swapped_prediction(scores, codes, 0.1)
    assert torch.equal(under, swapped_prediction(scores, [sinkhorn(s) for s in scores], 0.1))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"temperature": 0.0}, "identity.swav.temperature=0.0 must be finite and above 0."),
        ({"epsilon": -1.0}, "identity.swav.epsilon=-1.0 must be finite and above 0."),
        ({"num_prototypes": 1}, "identity.swav.num_prototypes=1 must be at least 2."),
        ({"freeze_steps": -1}, "identity.swav.freeze_steps=-1 must be at least 0."),
        ({"iterations": 0}, "identity.swav.iterations=0 must be at least 1."),
        ({"queue": -1}, "identity.swav.queue=-1 must be at least 0."),
        ({"queue_start": -1}, "identity.swav.queue_start=-1 must be at least 0."),
        ({"hidden": 0}, "identity.swav.hidden=0 must be at least 1."),
        ({"out": 0}, "identity.swav.out=0 must be at least 1."),
    ],
)
def test_ranges_are_told_by_their_key(options, told):
    with pytest.raises(UsageError) as caught:
        SwAV(DIMS, **options)
    assert str(caught.value) == told


def test_it_says_what_it_averages():
    told = SwAV(DIMS, **(OPTIONS | {"freeze_steps": 5, "queue": 8})).describe()
    assert told == (
        "swapped prediction, averaged over samples and ordered pairs of views "
        "(6 prototypes, frozen for 5 steps, queue of 8 a view, chance ln 6 = 1.79)"
    )
