"""The lines of docs/one-q-many-methods.md: -log q from probabilities is what the functions train.

q is q(a_id = 0 | x, x') of each identity model, q(m | 0, x, x') of each manipulation model.
"""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.special import rel_entr, softmax
from test_binned import EXTENTS, features_of, pair_views
from torch import Tensor
from toy_sequence import DIMS, sequence_views, some_features
from toy_space import Windows

from stec.catalogue import CORE
from stec.encoder import Features
from stec.identity.barlow import barlow_twins
from stec.identity.byol import byol
from stec.identity.cpc import CPC
from stec.identity.lejepa import prediction
from stec.identity.moco import moco
from stec.identity.relic import relic
from stec.identity.relicv2 import relicv2
from stec.identity.simsiam import simsiam
from stec.identity.swav import sinkhorn, swapped_prediction
from stec.identity.time_insensitive import TimeInsensitive
from stec.identity.vicreg import vicreg
from stec.losses import nt_xent
from stec.manipulation.binned import Binned
from stec.manipulation.regression import Regression
from stec.negatives import draw

PAGE = Path(__file__).parents[1] / "docs" / "one-q-many-methods.md"
NUM, WIDTH, TAU = 5, 3, 0.3


def drawn(number: int, num: int = NUM) -> Tensor:
    return torch.randn(num, WIDTH, generator=torch.Generator().manual_seed(number), dtype=torch.float64)


def unit(z: Tensor) -> np.ndarray:
    return F.normalize(z, dim=1).numpy()


def matched(anchors: Tensor, candidates: Tensor) -> np.ndarray:
    """[N, M]: softmax of the cosines over tau."""
    return softmax(unit(anchors) @ unit(candidates).T / TAU, axis=1)


def normal(x: np.ndarray, mean: np.ndarray, variance: float) -> np.ndarray:
    """-log of an isotropic normal density, without its constant: [N]."""
    width = x.shape[1]
    density = [
        stats.multivariate_normal(m, variance * np.eye(width)).logpdf(each) for each, m in zip(x, mean, strict=True)
    ]
    return -np.array(density) - width / 2 * math.log(2 * math.pi * variance)


def test_the_divergence_is_that_of_identity_plus_that_of_the_manipulation():
    # a = "another thing", or "the same" and one of four actions; q is any law, p is sure.
    q_id, q_m = 0.7, softmax(drawn(0).numpy()[0].repeat(2)[:4])
    q = np.array([1 - q_id, *(q_id * q_m)])
    for number, parts in enumerate([(-math.log(1 - q_id), 0.0), *((-math.log(q_id), -math.log(m)) for m in q_m)]):
        p = np.eye(5)[number]
        assert rel_entr(p, q).sum() == pytest.approx(sum(parts))


def of_simclr():
    z1, z2 = drawn(1), drawn(2)
    both = torch.cat([z1, z2])
    scores = unit(both) @ unit(both).T / TAU
    np.fill_diagonal(scores, -np.inf)
    q = softmax(scores, axis=1)
    own = np.arange(2 * NUM), np.roll(np.arange(2 * NUM), -NUM)
    other = q.copy()
    other[own] = 0
    # Of another thing of the batch: -log(1 - q) is bounded by the same expression.
    assert (-np.log(1 - other) <= -np.log(q[own])[:, None] + 1e-12).all()
    return -np.log(q[own]), nt_xent(z1, z2, TAU)


def of_relic(alpha=0.7):
    q1, q2, t1, t2 = (drawn(n) for n in range(4))
    p12, p21 = matched(q1, t2), matched(q2, t1)
    confidence = np.exp(-alpha / 2 * rel_entr(p12, p21).sum(1))
    return -np.log(np.diag(p12) * confidence) - np.log(np.diag(p21) * confidence), 2 * relic(
        q1, q2, t1, t2, TAU, alpha
    ).losses


def of_relicv2(alpha=0.7):
    q1, q2, t1, t2 = (drawn(n) for n in range(4))
    # All others once: the candidates are then those of ReLIC.
    others = torch.tensor([[j for j in range(NUM) if j != i] for i in range(NUM)])
    p12, p21 = matched(q1, t2), matched(q2, t1)
    each = [np.diag(p) * np.exp(-alpha * rel_entr(o, p).sum(1)) for p, o in ((p12, p21), (p21, p12))]
    return -np.log(each).mean(0), relicv2((q1, q2), (t1, t2), others, TAU, alpha).losses


def of_moco():
    q, k, queue = drawn(1), drawn(2), F.normalize(drawn(3, 7), dim=1)
    scores = [np.concatenate([[a @ b], queue.numpy() @ a]) / TAU for a, b in zip(unit(q), unit(k), strict=True)]
    return -np.log(softmax(scores, axis=1)[:, 0]), moco(q, k, queue, TAU)


def of_byol():
    r, t = drawn(1), drawn(2)
    return normal(unit(r), unit(t), 1 / 2), byol(r, r, t, t)


def of_simsiam():
    r, t = drawn(1), drawn(2)
    return normal(unit(r), unit(t), 1.0), 1 + simsiam(r, r, t, t)


def of_vicreg():
    z1, z2 = drawn(1), drawn(2)
    return normal(z1.numpy(), z2.numpy(), WIDTH / (2 * 25)).mean(), 25 * vicreg(z1, z2)[0]


def of_barlow():
    z1, z2 = drawn(1), drawn(2)
    u1, u2 = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (z1, z2))
    agreement = (u1 * u2).mean(0)
    # Up to the 1e-5 of batch norm, the mean of u^2 is 1.
    assert normal(u1.numpy(), u2.numpy(), 1.0).mean() == pytest.approx(float((1 - agreement).sum()), abs=1e-4)
    return (1 - agreement).square().sum(), barlow_twins(z1, z2)[0]


def of_lejepa():
    z = torch.stack([drawn(n) for n in range(3)])
    mean = z[:2].mean(0).numpy()
    return [normal(view.numpy(), mean, WIDTH / 2) for view in z], prediction(z, 2)


def of_swav():
    scores = [F.normalize(drawn(n), dim=1) for n in range(2)]
    codes = [sinkhorn(s) for s in scores]
    each = []
    for code, other in ((codes[0], scores[1]), (codes[1], scores[0])):
        q, p = softmax(other.numpy() / 0.1, axis=1), code.numpy()
        each.append(rel_entr(p, q).sum(1) + stats.entropy(p, axis=1))
        assert np.allclose(p.sum(1), 1)
    return np.mean(each, axis=0), swapped_prediction(scores, codes, 0.1)


def of_cpc():
    views, features = sequence_views(4, 7), some_features(4, 7)
    term = CPC(DIMS, steps=1, num_negatives=6).double()
    places = draw("uniform", 6, 1, keys=views.keys, view=0, length=7, device=torch.device("cpu")).frames
    frames, weight = features.local.detach(), term.predict.weight.detach()
    each = []
    for b in range(4):
        for t in range(6):
            candidates = torch.cat([frames[b, t + 1][None], frames.flatten(0, 1)[places[b, t]]])
            each.append(-math.log(softmax((candidates @ (weight @ features.context[b, t].detach())).numpy())[0]))
    return np.mean(each), term((features,), views).loss


def of_time_insensitive():
    # Where nothing changes in time, it does not matter which frames are drawn: NT-Xent of what each recording is.
    views, features = sequence_views(4, 7, num_views=2), []
    for n in range(2):
        still = drawn(n, 4) @ torch.ones(WIDTH, DIMS["context"], dtype=torch.float64) * torch.arange(1.0, 6.0).double()
        features.append(some_features(4, 7)._replace(context=still[:, None].expand(-1, 7, -1)))
    term = TimeInsensitive(DIMS, hidden=8, out=4).double().eval()
    z1, z2 = (term.projector(f.context[:, 3]) for f in features)
    return nt_xent(z1, z2, term.temperature).mean(), term(tuple(features), views).loss


def an_action(model, **options):
    """A model of 4 components, what its head makes of 64 pairs [B, 4, ...], their copies [B, 4], and its loss."""
    torch.manual_seed(0)
    term = model({"pooled": 8}, Windows(), EXTENTS, hidden=16, **options).double()
    views, features = pair_views(Windows()), tuple(Features(f.pooled.detach().double()) for f in features_of())
    said = term.head(torch.cat([f.pooled for f in features], dim=1)).detach().numpy()
    return term, said, views.copies[0, 1].values[:, term.live].double().numpy(), term(features, views).loss


def of_binned():
    term, logits, values, loss = an_action(Binned)
    q = softmax(logits, axis=2)
    joint = np.ones(len(values))
    for c, edges in enumerate(term.bins.edges.numpy()):
        joint *= q[np.arange(len(values)), c, np.searchsorted(edges, values[:, c])]
    return -np.log(joint).mean(), 4 * loss


def of_binned_with_noise():
    term, logits, values, loss = an_action(Binned, noise=0.3)
    q, each = softmax(logits, axis=2), []
    for c, (edges, sigma) in enumerate(zip(term.bins.edges.numpy(), term.bins.sigma.numpy(), strict=True)):
        below = stats.norm.cdf(edges, loc=values[:, c, None], scale=sigma)
        p = np.diff(below, axis=1, prepend=0, append=1)
        each.append(rel_entr(p, q[:, c]).sum(1) + stats.entropy(p, axis=1))
    return np.mean(each), loss


def of_regression():
    term, predicted, values, loss = an_action(Regression)
    standardised = (values - term.mean.numpy()) / term.scale.numpy()
    return normal(standardised, predicted[..., 0], 1 / 2).mean(), 4 * loss


ACTIONS = {"binned": of_binned, "binned with noise": of_binned_with_noise, "regression": of_regression}
LINES = {
    "simclr": of_simclr,
    "relic": of_relic,
    "relicv2": of_relicv2,
    "moco": of_moco,
    "byol": of_byol,
    "simsiam": of_simsiam,
    "vicreg": of_vicreg,
    "barlow": of_barlow,
    "lejepa": of_lejepa,
    "swav": of_swav,
    "cpc": of_cpc,
    "time_insensitive": of_time_insensitive,
}


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr("stec.copies._FIT_DRAWS", 4000)


@pytest.mark.parametrize("method", LINES | ACTIONS)
def test_the_negative_logarithm_is_the_loss(method):
    expected, found = (LINES | ACTIONS)[method]()
    expected = (
        torch.stack([torch.as_tensor(e) for e in expected]) if isinstance(expected, list) else torch.as_tensor(expected)
    )
    torch.testing.assert_close(found.detach(), expected.detach().to(found), rtol=1e-9, atol=1e-9)


def test_of_a_constant_encoder_the_least_loss_is_the_entropy_of_the_actions():
    term, views = Binned({"pooled": 8}, Windows(), EXTENTS, hidden=16).double(), pair_views(Windows(), 4000)
    constant = Features(torch.ones(4000, 8).double())
    number = term.bins.assign(views.copies[0, 1].values[:, term.live])
    shares = F.one_hot(number, 6).double().mean(0)
    bias = term.head.layers[-1].bias
    assert term((constant, constant), views).loss > stats.entropy(shares, axis=1).mean() + 1e-3
    # Whatever the head is, it says the same of all pairs: at best how often each bin occurs.
    with torch.no_grad():
        bias += shares.log().flatten() - term.head(torch.ones(4000, 16).double())[0].flatten()
    loss = term((constant, constant), views).loss
    loss.backward()
    assert loss.item() == pytest.approx(stats.entropy(shares, axis=1).mean(), rel=1e-9)
    assert bias.grad.abs().max() < 1e-12
    assert loss.item() == pytest.approx(math.log(6), abs=0.01)


def test_the_page_has_a_line_for_every_model_that_it_tells_of():
    page = PAGE.read_text(encoding="utf-8").partition("## Identity")[2]
    identity, _, manipulation = page.partition("## Does")[0].partition("## Manipulation")
    assert set(re.findall(r"^\| `(\w+)` \|", identity, re.MULTILINE)) == set(LINES) == set(CORE["identity"])
    rows = re.findall(r"^\| (`.*?`) \|", manipulation, re.MULTILINE)
    assert {row.replace("`", "") for row in rows} == set(ACTIONS)
    assert set(CORE["manipulation"]) <= set(re.findall(r"`(\w+)`", manipulation))
