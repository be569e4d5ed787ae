"""SimSiam: minus the cosine by its closed form, what the stopped gradient stops, and the predictor's own rate."""

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from test_objective import DIMS, TwoLayers

from stec.errors import UsageError
from stec.identity.byol import byol
from stec.identity.simclr import SimCLR
from stec.identity.simsiam import SimSiam, simsiam
from stec.objective import STEC
from stec.rng import make_keys
from stec.training import optim, schedule
from stec.training.optim import OPTIMIZERS
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
    return SimSiam(DIMS, **{"hidden": 7, "out": 5, "bottleneck": 3} | options).double()


def slow(p, z):
    total = 0.0
    for a, b in zip(p.tolist(), z.tolist(), strict=True):
        norms = [sum(v * v for v in row) ** 0.5 for row in (a, b)]
        total -= sum(v * w for v, w in zip(a, b, strict=True)) / (norms[0] * norms[1])
    return total / len(p)


def test_it_is_the_closed_form_and_its_slow_twin():
    p1, p2, z1, z2 = four()
    losses = simsiam(p1, p2, z1, z2)
    assert losses.shape == (BATCH,)
    assert losses.mean().item() == pytest.approx((slow(p1, z2) + slow(p2, z1)) / 2, rel=1e-12)
    assert torch.allclose(simsiam(p1, p2, 3 * p2, 2 * p1), torch.full((BATCH,), -1.0).double())
    assert torch.allclose(simsiam(p1, p2, -p2, p1), torch.zeros(BATCH).double(), atol=1e-14)


def test_lightly_agrees_and_byol_is_an_affine_map_of_it():
    p1, p2, z1, z2 = four(32, 16)
    theirs = NegativeCosineSimilarity()
    expected = (theirs(p1, z2) + theirs(p2, z1)) / 2
    assert torch.allclose(simsiam(p1, p2, z1, z2).mean(), expected, rtol=1e-14)
    assert torch.allclose(byol(p1, p2, z1, z2), 2 + 2 * simsiam(p1, p2, z1, z2))


def test_views_may_change_places_and_lengths_do_not_count():
    p1, p2, z1, z2 = four()
    losses = simsiam(p1, p2, z1, z2)
    assert torch.allclose(simsiam(p2, p1, z2, z1), losses, rtol=1e-14)
    assert torch.allclose(simsiam(5 * p1, p2, z1, z2 / 9), losses, rtol=1e-13)


def test_no_gradient_goes_through_the_targets():
    inputs = [z.requires_grad_() for z in four()]
    gradients = torch.autograd.grad(simsiam(*inputs).mean(), inputs, allow_unused=True)
    assert [g is not None for g in gradients] == [True, True, False, False]
    # Of -cos, in the direction of a length, there is none; across it, it pulls towards the other.
    assert torch.allclose((gradients[0] * inputs[0]).sum(1), torch.zeros(BATCH).double(), atol=1e-15)
    assert ((gradients[0] * inputs[3]).sum(1) < 0).all()


def test_the_term_compares_each_prediction_with_the_other_projection():
    term, encoder, views = model(), TwoLayers().double(), two_views()
    features = tuple(encoder(x) for x in views.x)
    out = term(features, views)
    z = term.projector(torch.cat([f.pooled for f in features]))
    p1, p2 = term.predictor(z).chunk(2)
    z1, z2 = z.chunk(2)
    assert torch.allclose(out.loss, simsiam(p1, p2, z1, z2).mean())
    total, count = out.sums["train/loss_id"]
    assert total.item() / count.item() == pytest.approx(out.loss.item(), rel=1e-6)
    assert count == BATCH
    out.loss.backward()
    assert all(p.grad is not None for p in [*term.parameters(), *encoder.parameters()])


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_projections_are_standardised_without_gain_and_shift(num_layers):
    term = model(num_layers=num_layers)
    z = term.projector(some(64, DIMS["pooled"], seed=3))
    assert torch.allclose(z.mean(0), torch.zeros(5).double(), atol=1e-12)
    assert torch.allclose(z.var(0, unbiased=False), torch.ones(5).double(), rtol=1e-3)
    linear = [m for m in term.projector if isinstance(m, torch.nn.Linear)]
    assert len(linear) == num_layers
    assert linear[-1].bias is None
    assert not list(term.projector[-1].parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_predictor_keeps_its_rate(name):
    stec = STEC(TwoLayers(), {"simsiam": (1.0, model().float())}, {}, {})
    steady = STEC(TwoLayers(), {"simsiam": (1.0, model(predictor_lr="decays").float())}, {}, {})
    optimizer = OPTIMIZERS[name](stec, 256, lr=0.5, weight_decay=0.01)
    others = OPTIMIZERS[name](steady, 256, lr=0.5, weight_decay=0.01)
    assert schedule.set_rate(optimizer, 0.25) == schedule.set_rate(others, 0.25) == pytest.approx(0.125)
    names = {id(p): key for key, p in stec.named_parameters()}
    rates, decays = {}, {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            assert names[id(p)] not in rates
            rates[names[id(p)]], decays[names[id(p)]] = group["lr"], group["weight_decay"]
    assert rates.keys() == set(names.values())
    for key, rate in rates.items():
        assert rate == pytest.approx(0.5 if ".predictor." in key else 0.125), key
    expected = {}
    names = {id(p): key for key, p in steady.named_parameters()}
    for group in others.param_groups:
        expected |= {names[id(p)]: group["weight_decay"] for p in group["params"]}
    assert decays == expected
    assert len(others.param_groups) == 2
    learning = sum(p.numel() for p in stec.identity["simsiam"].predictor.parameters())
    assert optim.describe(optimizer).endswith(f"; {learning:,} more learn at the peak rate all the time")
    assert optim.describe(others).endswith("(biases, norms)")


def test_a_constant_rate_is_no_other_model_s():
    assert SimCLR(DIMS).constant_rate == ()
    assert model(predictor_lr="decays").constant_rate == ()


def test_under_autocast_the_loss_is_float32():
    term, views, encoder = model().float(), two_views(), TwoLayers()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = tuple(encoder(x.float()) for x in views.x)
        assert features[0].pooled.dtype == torch.bfloat16
        out = term(features, views)
    assert out.loss.dtype == torch.float32
    out.loss.backward()
    assert all(p.grad is not None for p in term.parameters())


def test_it_says_what_is_averaged():
    assert model().describe().endswith("stopped gradient, predictor at a constant learning rate")
    assert model(predictor_lr="decays").describe().endswith("predictor at a falling learning rate")
    assert model().num_views == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"hidden": 0}, "identity.simsiam.hidden=0 must be at least 1."),
        ({"out": 0}, "identity.simsiam.out=0 must be at least 1."),
        ({"num_layers": 0}, "identity.simsiam.num_layers=0 must be at least 1."),
        ({"bottleneck": 0}, "identity.simsiam.bottleneck=0 must be at least 1."),
        (
            {"predictor_lr": "fixed"},
            "identity.simsiam.predictor_lr='fixed' is unknown: choose one of constant, decays.",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options, told):
    with pytest.raises(UsageError) as caught:
        model(**options)
    assert str(caught.value).startswith(told)
