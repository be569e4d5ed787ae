"""ReLIC: a cross-view softmax, and how far it is the same from either side."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from toy_terms import TwoLayers, toy_views

from stec.encoder import encode
from stec.errors import UsageError
from stec.identity.relic import ReLIC, relic
from stec.losses import nt_xent

NUM = 9


def projections(num=4, rows=NUM, width=5, dtype=torch.float64, seed=0):
    """q1, q2, t1, t2 of the same samples, each with a noise of its own."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    noisy = [shared + torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(num)]
    return [z.to(dtype).requires_grad_() for z in noisy]


def slow_twin(q1, q2, t1, t2, temperature, alpha):
    """The paper's sum for one pair of views, sample by sample: anchors of one view, targets of the other one."""

    def matcher(i, anchors, targets):
        scores = [F.cosine_similarity(anchors[i], targets[j], dim=0) / temperature for j in range(len(targets))]
        return [torch.exp(s) / sum(torch.exp(other) for other in scores) for s in scores]

    losses = []
    for i in range(len(q1)):
        p12, p21 = matcher(i, q1, t2), matcher(i, q2, t1)
        kl = sum(a * torch.log(a / b) for a, b in zip(p12, p21, strict=True))
        losses.append(-torch.log(p12[i]) - torch.log(p21[i]) + alpha * kl)
    return torch.stack(losses)


def transposed(q1, t2, temperature, alpha):
    """What public re-implementations compute: both distributions from one matrix, of view 1 against view 2."""
    logits = F.normalize(q1, dim=1) @ F.normalize(t2, dim=1).T / temperature
    log_p12, log_p21 = logits.log_softmax(1), logits.T.log_softmax(1)
    kl = (log_p12.exp() * (log_p12 - log_p21)).sum(1)
    return (alpha * kl - log_p12.diagonal() - log_p21.diagonal()) / 2


def model(encoder=None, **options):
    torch.manual_seed(1)
    encoder = encoder or TwoLayers()
    options = {"hidden": 8, "out": 4, "predictor_hidden": 8} | options
    return encoder.double(), ReLIC(encoder, **options).double()


@pytest.mark.parametrize(("temperature", "alpha"), [(0.2, 1.0), (1.0, 0.5), (0.5, 0.0)])
def test_twice_the_loss_is_the_papers_sum_in_value_and_gradient(temperature, alpha):
    ours, twin = projections(), projections()
    a = relic(*ours, temperature, alpha).losses
    b = slow_twin(*twin, temperature, alpha)
    assert a.shape == (NUM,)
    assert torch.allclose(2 * a, b, rtol=1e-12)
    gradients = torch.autograd.grad(2 * a.mean(), ours), torch.autograd.grad(b.mean(), twin)
    for g, h in zip(*gradients, strict=True):
        assert torch.allclose(g, h, atol=1e-14)


def test_equals_what_scipy_makes_of_it():
    q1, q2, t1, t2 = (z.detach().numpy() / np.linalg.norm(z.detach(), axis=1)[:, None] for z in projections(seed=3))
    log_p12, log_p21 = (scipy.special.log_softmax(q @ t.T / 0.3, axis=1) for q, t in ((q1, t2), (q2, t1)))
    kl = scipy.stats.entropy(np.exp(log_p12), np.exp(log_p21), axis=1)
    found = relic(*projections(seed=3), 0.3, 0.7)
    assert np.allclose(found.kl.detach(), kl, rtol=1e-12)
    expected = (-log_p12.diagonal() - log_p21.diagonal() + 0.7 * kl) / 2
    assert np.allclose(found.losses.detach(), expected, rtol=1e-12)
    assert np.array_equal(found.right, [m.argmax(1) == np.arange(NUM) for m in (log_p12, log_p21)])


def test_the_second_distribution_is_anchored_at_the_second_online_view():
    q1, q2, t1, t2 = projections()
    ours, other = relic(q1, q2, t1, t2, 0.2, 1.0).losses, transposed(q1, t2, 0.2, 1.0)
    assert (ours - other).abs().min() > 1e-3
    # Where the targets are the anchors themselves, the two are one.
    assert torch.allclose(relic(q1, q2, q1, q2, 0.2, 1.0).losses, transposed(q1, q2, 0.2, 1.0), rtol=1e-12)


def test_without_kl_and_target_it_is_simclrs_across_views():
    """NT-Xent's denominator is this one's and the other samples in the anchor's own view."""
    z1, z2 = projections(2)
    found = relic(z1, z2, z1, z2, 0.5, 0.0)
    whole = nt_xent(z1, z2, 0.5).view(2, NUM)
    cosines = [F.normalize(z, dim=1) @ F.normalize(z, dim=1).T / 0.5 for z in (z1, z2)]
    positive = F.cosine_similarity(z1, z2) / 0.5
    same_view = torch.stack([s.exp().sum(1) - s.diagonal().exp() for s in cosines])
    across = torch.log(whole.exp() - same_view / positive.exp())
    assert torch.allclose(found.losses, across.mean(0), rtol=1e-12)
    assert (found.losses < whole.mean(0)).all()


def test_the_kl_is_zero_only_where_both_sides_judge_alike():
    q1, q2, t1, t2 = projections(width=4)
    turn, _ = torch.linalg.qr(projections(1, rows=4, width=4, seed=5)[0])
    # Other embeddings, the same cosines: the second side is the first one, turned.
    alike = relic(q1, q1 @ turn, t2 @ turn, t2, 0.2, 1.0)
    assert alike.kl.abs().max() < 1e-12
    assert torch.allclose(alike.losses, relic(q1, q1 @ turn, t2 @ turn, t2, 0.2, 0.0).losses)
    apart = relic(q1, q2, t1, t2, 0.2, 1.0)
    assert apart.kl.min() > 1e-3
    grown = relic(q1, q2, t1, t2, 0.2, 3.0)
    assert torch.allclose(grown.losses - apart.losses, apart.kl, rtol=1e-10)  # (3 - 1) / 2 of it


def test_the_kl_tends_to_nothing_as_the_temperature_grows():
    q1, q2, t1, t2 = projections()
    hot = relic(q1, q2, t1, t2, 1e4, 1.0)
    assert hot.kl.max() < 1e-7
    assert torch.allclose(hot.losses, torch.full((NUM,), math.log(NUM)).double(), atol=1e-3)


def test_closed_forms():
    same, apart = torch.ones(8, 4), torch.eye(8)
    flat = relic(same, same, same, same, 0.5, 1.0)
    assert torch.allclose(flat.losses, torch.full((8,), math.log(8)))
    assert not flat.right.any()  # ties are no win
    sharp = relic(apart, apart, apart, apart, 1.0, 1.0)
    assert torch.allclose(sharp.losses, torch.full((8,), math.log(math.e + 7) - 1))
    assert sharp.right.all()
    # One side knows nothing, the other one something: KL(p || uniform) = ln 8 - H(p).
    p = scipy.special.softmax(np.eye(8)[0])
    known = relic(apart, same @ torch.ones(4, 8), apart, apart, 1.0, 1.0)
    assert torch.allclose(known.kl, torch.full((8,), math.log(8) - scipy.stats.entropy(p)).float(), atol=1e-5)


def test_swapping_the_views_turns_the_kl_round_and_leaves_the_rest():
    q1, q2, t1, t2 = projections()
    one, other = relic(q1, q2, t1, t2, 0.2, 1.0), relic(q2, q1, t2, t1, 0.2, 1.0)
    assert torch.allclose(one.losses - one.kl / 2, other.losses - other.kl / 2)
    assert torch.equal(one.right.flip(0), other.right)
    assert (one.kl - other.kl).abs().max() > 1e-3
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(3))
    mixed = relic(q1[order], q2[order], t1[order], t2[order], 0.2, 1.0)
    assert torch.allclose(mixed.losses, one.losses[order])


def test_neither_scale_nor_precision_of_the_projections_matters():
    q1, q2, t1, t2 = projections(dtype=torch.float32)
    plain = relic(q1, q2, t1, t2, 0.2, 1.0).losses
    assert torch.allclose(relic(q1 * 1e3, q2, t1, t2 * 1e-3, 0.2, 1.0).losses, plain, rtol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = relic(q1, q2, t1, t2, 0.2, 1.0).losses
        assert torch.equal(under, plain)
        half = [z.bfloat16() for z in (q1, q2, t1, t2)]
        assert relic(*half, 0.2, 1.0).losses.dtype == torch.float32


@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_the_model_is_the_loss_of_its_projections(momentum, predictor):
    encoder, term = model(momentum=momentum, predictor=predictor, alpha=0.6, temperature=0.3)
    views = toy_views(0)
    term.before_step(encoder, 0, 10)
    for p in (*encoder.parameters(), *term.projector.parameters()):
        p.data += 0.01  # so that target and online networks differ
    features = encode(encoder, views.x)
    out = term(features, views)
    z = term.projector(torch.cat([features[0].pooled, features[1].pooled]))
    q1, q2 = (term.predictor(z) if predictor else z).chunk(2)
    t1, t2 = z.chunk(2) if momentum is None else term.teacher(views.x[:2])
    expected = slow_twin(q1, q2, t1, t2, 0.3, 0.6).mean() / 2
    assert torch.allclose(out.loss, expected, rtol=1e-12)
    assert {name: float(count) for name, (_, count) in out.sums.items()} == {
        "train/loss_id": 12,
        "train/relic_kl": 12,
        "train/contrast_acc": 24,
    }
    learning = [p for p in (*encoder.parameters(), *term.parameters()) if p.requires_grad]
    found = torch.autograd.grad(out.loss, learning, retain_graph=True)
    for g, h in zip(found, torch.autograd.grad(expected, learning), strict=True):
        assert torch.allclose(g, h, atol=1e-12)


def test_gradient_flows_through_the_targets_only_where_there_is_no_target_network():
    views = toy_views(0)
    for momentum, flows in ((None, True), (0.9, False)):
        encoder, term = model(momentum=momentum)
        # Were the anchors constants, only the targets would teach.
        anchors = [z.detach() for z in projections(2, rows=12, width=4)]
        features = encode(encoder, views.x)
        z = term.projector(torch.cat([features[0].pooled, features[1].pooled])).chunk(2)
        targets = z if term.teacher is None else term.teacher(views.x[:2])
        assert relic(*anchors, *targets, 0.5, 1.0).losses.requires_grad == flows


def test_the_target_network_follows():
    encoder, term = model(momentum=0.9)
    term.before_step(encoder, 0, 10)
    before = term.teacher.projector[0].weight.clone()
    assert torch.equal(before, term.projector[0].weight)
    term.projector[0].weight.data += 1
    term.before_step(encoder, 1, 10)
    assert torch.allclose(term.teacher.projector[0].weight, before + 0.1)
    # The rate rises, BYOL's way, from 0.9 at the first step.
    rate = 1 - 0.1 * (math.cos(math.pi / 10) + 1) / 2
    term.before_step(encoder, 2, 10)
    assert torch.allclose(term.teacher.projector[0].weight, before + 0.1 + (1 - rate) * 0.9)


def test_under_autocast_the_loss_is_float32_and_everything_learns():
    encoder = TwoLayers()
    term, views = ReLIC(encoder, hidden=8, out=4, predictor=True, predictor_hidden=8), toy_views(0)
    views = views._replace(x=tuple(x.float() for x in views.x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = term(encode(encoder, views.x), views)
    assert out.loss.dtype == torch.float32
    out.loss.backward()
    assert all(p.grad is not None for p in term.parameters() if p.requires_grad)
    assert "target network of momentum 0.99" in term.describe()
    assert "no target network" in model(momentum=None)[1].describe()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ({"alpha": -1.0}, "alpha=-1.0 must be finite, 0 or more"),
        ({"alpha": math.inf}, "alpha=inf must be finite"),
        ({"momentum": 1.5}, "momentum=1.5 must be in"),
        ({"out": 0}, "out=0 must be at least 1"),
        ({"predictor_hidden": 0}, "predictor_hidden=0 must be at least 1"),
        ({"negatives": "none"}, "choose one of global, local"),
    ],
)
def test_bad_options_are_told_in_a_sentence(options, words):
    with pytest.raises(UsageError, match=rf"^identity\.relic\..*{words}"):
        model(**options)
