"""BYOL: 2 - 2 cos by its closed form, one end of its paper's InfoNCE^{alpha,beta}, and what each safeguard does."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NegativeCosineSimilarity
from test_objective import TwoLayers

from stec.errors import UsageError
from stec.identity.byol import BYOL, byol
from stec.losses import nt_xent
from stec.objective import STEC
from stec.rng import make_keys
from stec.views import Views

BATCH = 6


def some(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def four(num=BATCH, dim=5):
    return tuple(some(num, dim, seed=seed) for seed in range(4))


def two_views(num=BATCH):
    return Views((some(num, 4, seed=8), some(num, 4, seed=9)), {}, 2, make_keys(0, 0, torch.arange(num)))


def model(**options):
    torch.manual_seed(1)
    encoder = TwoLayers().double()
    return encoder, BYOL(encoder, **{"hidden": 7, "out": 5} | options).double()


def slow(p, t):
    """Mean of |n(p) - n(t)|^2 in plain loops."""
    total = 0.0
    for a, b in zip(p.tolist(), t.tolist(), strict=True):
        norms = [sum(v * v for v in z) ** 0.5 for z in (a, b)]
        total += sum((v / norms[0] - w / norms[1]) ** 2 for v, w in zip(a, b, strict=True))
    return total / len(p)


def info_nce_alpha_beta(first, second, alpha, beta):
    """InfoNCE^{alpha,beta} of the BYOL paper, to be made large, without its factor 2; S(u, w) = cos of first(u) and
    second(w), where `first` = (of x, of x') and `second` = (of x, of x')."""

    def similarity(u, w):
        return float(u @ w / (u.norm() * w.norm()))

    num, total = len(first[0]), 0.0
    for i in range(num):
        total += similarity(first[0][i], second[1][i])
        others = sum(
            torch.tensor(similarity(first[0][i], second[0][j]) / alpha).exp() for j in range(num) if j != i
        ) + sum(torch.tensor(similarity(first[0][i], second[1][j]) / alpha).exp() for j in range(num))
        total -= beta * alpha * float(others.log())
    return total / num


def test_it_is_the_closed_form_and_its_slow_twin():
    p1, p2, t1, t2 = four()
    losses = byol(p1, p2, t1, t2)
    assert losses.shape == (BATCH,)
    assert losses.mean().item() == pytest.approx((slow(p1, t2) + slow(p2, t1)) / 2, rel=1e-12)
    assert torch.allclose(byol(p1, p2, 3 * p2, 2 * p1), torch.zeros(BATCH).double(), atol=1e-12)
    assert torch.allclose(byol(p1, p2, -p2, -p1), torch.full((BATCH,), 4.0).double())
    e = torch.eye(4).double()
    assert torch.allclose(byol(e[:2], e[:2], e[2:], e[2:]), torch.full((2,), 2.0).double())


def test_lightly_agrees():
    p1, p2, t1, t2 = four(32, 16)
    theirs = NegativeCosineSimilarity()
    expected = 2 + theirs(p1, t2) + theirs(p2, t1)
    assert torch.allclose(byol(p1, p2, t1, t2).mean(), expected, rtol=1e-14)


def test_views_may_change_places_and_lengths_do_not_count():
    p1, p2, t1, t2 = four()
    losses = byol(p1, p2, t1, t2)
    assert torch.allclose(byol(p2, p1, t2, t1), losses, rtol=1e-14)
    assert torch.allclose(byol(5 * p1, p2, t1, t2 / 9), losses, rtol=1e-13)
    rotation = torch.linalg.qr(some(5, 5, seed=7))[0]
    assert torch.allclose(byol(*(z @ rotation for z in (p1, p2, t1, t2))), losses, rtol=1e-13)


def test_at_beta_0_info_nce_alpha_beta_is_byol_and_at_beta_1_it_is_simclr():
    p1, p2, t1, t2 = four()
    for alpha in (0.1, 1.0):
        directions = [
            info_nce_alpha_beta((p1, p2), (t1, t2), alpha, 0),
            info_nce_alpha_beta((p2, p1), (t2, t1), alpha, 0),
        ]
        assert byol(p1, p2, t1, t2).mean().item() == pytest.approx(2 - sum(directions), rel=1e-12)
        # Without predictor and teacher both branches are one.
        contrastive = -info_nce_alpha_beta((p1, p2), (p1, p2), alpha, 1) / alpha
        assert nt_xent(p1, p2, alpha)[:BATCH].mean().item() == pytest.approx(contrastive, rel=1e-6)
        assert info_nce_alpha_beta((p1, p2), (p1, p2), alpha, 0) / alpha != pytest.approx(-contrastive, rel=1e-2)


def test_the_term_compares_predictions_with_the_teacher_s_projections():
    encoder, term = model()
    views = two_views()
    with torch.no_grad():
        for p in term.teacher.parameters():
            p.mul_(1.3)
    features = tuple(encoder(x) for x in views.x)
    out = term(features, views)
    p1, p2 = term.predictor(term.projector(torch.cat([f.pooled for f in features]))).chunk(2)
    t1, t2 = term.teacher(views.x)
    assert torch.allclose(out.loss, byol(p1, p2, t1, t2).mean())
    total, count = out.sums["train/loss_id"]
    assert total.item() / count.item() == pytest.approx(out.loss.item(), rel=1e-6)
    assert count == BATCH


def test_it_learns_everything_but_the_teacher_which_follows():
    encoder, term = model(momentum=0.5)
    stec = STEC(encoder, {"byol": (2.0, term)}, {}, {}).double()
    stec.before_step(0, 10)
    stec(two_views()).loss.backward()
    for name, p in stec.named_parameters():
        assert (p.grad is not None) == p.requires_grad == ("teacher" not in name), name
    torch.optim.SGD([p for p in stec.parameters() if p.requires_grad], lr=0.1).step()
    before = term.teacher.encoder.first.weight.clone()
    stec.before_step(1, 10)
    assert torch.allclose(term.teacher.encoder.first.weight, (before + encoder.first.weight) / 2)
    assert not torch.equal(before, encoder.first.weight)


def test_without_a_teacher_the_online_projection_is_the_target():
    gradients = {}
    for predictor, stop in itertools.product((True, False), repeat=2):
        encoder, term = model(momentum=None, predictor=predictor, stop_gradient=stop)
        term.before_step(encoder, 0, 10)
        term.before_step(encoder, 1, 10)
        views = two_views()
        features = tuple(encoder(x) for x in views.x)
        z = term.projector(torch.cat([f.pooled for f in features]))
        t1, t2 = (z.detach() if stop else z).chunk(2)
        expected = byol(*(term.predictor(z) if predictor else z).chunk(2), t1, t2).mean()
        loss = term(features, views).loss
        assert torch.allclose(loss, expected)
        learnt = [p for p in term.parameters() if p.requires_grad]
        assert len(learnt) == (12 if predictor else 6)
        weights = [encoder.second.weight, *learnt]
        found = torch.autograd.grad(loss, weights, retain_graph=True)
        for one, other in zip(found, torch.autograd.grad(expected, weights), strict=True):
            assert torch.allclose(one, other, atol=1e-13)
        gradients[predictor, stop] = found[0]
    assert not torch.allclose(gradients[True, True], gradients[True, False])
    # Of a symmetric function of both branches, the stopped gradient is half of the whole one.
    assert torch.allclose(2 * gradients[False, True], gradients[False, False])


def test_with_no_safeguard_at_all_one_point_is_reached():
    """The experiment that the switches are for: then nothing but other terms can keep the views apart."""
    encoder, term = model(momentum=None, predictor=False, stop_gradient=False)
    views, sgd = two_views(16), torch.optim.SGD([*encoder.parameters(), *term.parameters()], lr=0.1)
    losses = []
    for _ in range(80):
        loss = term(tuple(encoder(x) for x in views.x), views).loss
        losses.append(loss.item())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    pooled = term.projector(encoder(torch.cat(views.x)).pooled)
    cosines = F.normalize(pooled, dim=1) @ F.normalize(pooled, dim=1).T
    assert losses[0] > 0.3
    assert losses[-1] < 0.02
    assert cosines.min() > 0.9


def test_under_autocast_the_loss_is_float32():
    torch.manual_seed(1)
    encoder = TwoLayers()
    term, views = BYOL(encoder, hidden=7, out=5), two_views()
    views = views._replace(x=tuple(x.float() for x in views.x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = tuple(encoder(x) for x in views.x)
        assert features[0].pooled.dtype == torch.bfloat16
        out = term(features, views)
    assert out.loss.dtype == torch.float32
    out.loss.backward()
    assert all(p.grad is not None for p in term.parameters() if p.requires_grad)


def test_it_says_which_safeguards_are_on():
    assert model()[1].describe().endswith("teacher (momentum 0.99 rising to 1), predictor, stopped gradient")
    bare = model(momentum=None, predictor=False, stop_gradient=False)[1].describe()
    assert bare.endswith("no teacher, no predictor, gradient through the targets")
    assert model()[1].num_views == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"momentum": 1.1}, "identity.byol.momentum=1.1 must be in [0, 1]."),
        ({"stop_gradient": False}, "identity.byol.stop_gradient=false needs identity.byol.momentum=null"),
        ({"hidden": 0}, "identity.byol.hidden=0 must be at least 1."),
        ({"out": 0}, "identity.byol.out=0 must be at least 1."),
    ],
)
def test_what_makes_no_sense_is_refused(options, told):
    with pytest.raises(UsageError) as caught:
        model(**options)
    assert str(caught.value).startswith(told)
