"""LeJEPA: SIGReg by quadrature, lightly's, its expectation, and what it does to a cloud."""

import math

import numpy as np
import pytest
import torch
from lightly.loss.lejepa_loss import LeJEPALoss
from scipy.integrate import quad
from test_losses import relative_difference
from test_vicreg import DIMS, looks

from stec.errors import UsageError
from stec.identity import lejepa
from stec.identity.lejepa import LeJEPA, prediction, sigreg

OPTIONS = {"num_slices": 16, "hidden": 8, "out": 4}


def cloud(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_directions(width: int, num: int, seed: int = 1) -> torch.Tensor:
    drawn = cloud(width, num, seed=seed)
    return drawn / drawn.norm(dim=0)


def slow_twin(z: torch.Tensor, directions: torch.Tensor, t_max: float) -> float:
    """The integral as it is written, view by view and direction by direction."""
    values = []
    for view in z.numpy():
        for a in directions.numpy().T:
            y = view @ a

            def integrand(t: float, y: np.ndarray = y) -> float:
                return abs(np.exp(1j * t * y).mean() - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2)

            values.append(len(y) * quad(integrand, -t_max, t_max, epsabs=1e-12, limit=200)[0])
    return float(np.mean(values))


@pytest.mark.parametrize(("knots", "tolerance"), [(17, 2e-3), (1001, 1e-6)])
def test_equals_the_integral(knots, tolerance):
    z, directions = cloud(2, 9, 3) * 1.5 + 0.3, some_directions(3, 4)
    expected = slow_twin(z, directions, 3.0)
    assert sigreg(z, directions, knots=knots).item() == pytest.approx(expected, rel=tolerance)


def test_equals_lightly():
    z, directions = cloud(4, 12, 5, seed=3).float().requires_grad_(), some_directions(5, 32).float()
    theirs = LeJEPALoss(lambda_param=0.05, sigreg_num_vectors=32)
    theirs.sigreg._generate_unit_vectors = lambda *_: directions
    a = 0.95 * prediction(z, 2).mean() + 0.05 * sigreg(z, directions)
    b = theirs(global_proj=z[:2], local_proj=z[2:])
    assert relative_difference(a, b) < 1e-5
    (g,), (h,) = torch.autograd.grad(a, z), torch.autograd.grad(b, z)
    assert relative_difference(g, h) < 1e-5


@pytest.mark.parametrize("num", [4, 32])
def test_of_a_gaussian_its_expectation_is_known_whatever_the_batch(num):
    """N E|phi_N - phi|^2 = 1 - phi^2, so that E T = integral of (1 - exp(-t^2)) exp(-t^2 / 2)."""
    expected = quad(lambda t: (1 - math.exp(-t * t)) * math.exp(-t * t / 2), -3, 3)[0]
    assert expected == pytest.approx(1.05, abs=0.005)
    measured = sigreg(cloud(1500, num, 2), some_directions(2, 3)).item()
    assert measured == pytest.approx(expected, rel=0.06)


def test_a_collapsed_cloud_costs_most_and_every_scale_but_one_costs_more():
    directions, z = some_directions(8, 64), cloud(1, 512, 8)
    costs = {scale: sigreg(scale * z, directions).item() for scale in (0.0, 0.3, 0.7, 1.0, 1.5, 4.0)}
    assert costs[0.0] > costs[0.3] > costs[0.7] > costs[1.0] < costs[1.5] < costs[4.0]
    exact = quad(lambda t: (1 - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2), -3, 3)[0]
    assert exact == pytest.approx(0.40, abs=0.005)
    assert costs[0.0] == pytest.approx(512 * exact, rel=1e-3)
    # On a line: as wide as it should be, but in one direction only.
    line = z[..., :1] * torch.eye(8, dtype=z.dtype)[0]
    assert sigreg(line * 8**0.5, directions).item() > 10 * costs[1.0]
    assert sigreg(z + 1, directions).item() > 10 * costs[1.0]


def test_a_rotation_of_the_cloud_is_one_of_the_directions():
    z, directions = cloud(2, 30, 4), some_directions(4, 8)
    rotation, _ = torch.linalg.qr(cloud(4, 4, seed=5))
    assert torch.allclose(sigreg(z @ rotation, directions), sigreg(z, rotation @ directions))
    # So over all directions it does not matter: a long cloud costs the same whichever way it lies.
    z = z * torch.tensor([3.0, 1.0, 0.2, 1.0])
    many = some_directions(4, 5000)
    assert sigreg(z @ rotation, many).item() == pytest.approx(sigreg(z, many).item(), rel=0.05)


def test_order_of_samples_and_sign_of_all_do_not_matter():
    z, directions = cloud(1, 30, 4), some_directions(4, 8)
    expected = sigreg(z, directions)
    assert torch.allclose(sigreg(z.flip(1), directions), expected)
    assert torch.allclose(sigreg(-z, directions), expected)


def test_its_gradient_pushes_a_collapsed_cloud_apart():
    z = (0.05 * cloud(1, 64, 3)).requires_grad_()
    for step in range(60):
        (gradient,) = torch.autograd.grad(sigreg(z, some_directions(3, 32, seed=step)), z)
        z = (z - 0.3 * gradient).detach().requires_grad_()
    assert z[0].std(dim=0).detach().numpy() == pytest.approx(np.ones(3), abs=0.15)
    off = z[0].detach().T.corrcoef() - torch.eye(3)
    assert off.abs().max() < 0.2


def test_gradient_by_finite_differences():
    directions = some_directions(3, 5)
    assert torch.autograd.gradcheck(lambda z: sigreg(z, directions), cloud(2, 6, 3).requires_grad_())


def test_views_are_drawn_to_the_mean_of_the_global_ones():
    z = cloud(4, 3, 5)
    expected = [
        [sum((z[v, b, d] - (z[0, b, d] + z[1, b, d]) / 2) ** 2 for d in range(5)) / 5 for b in range(3)]
        for v in range(4)
    ]
    assert torch.allclose(prediction(z, 2), torch.tensor(expected, dtype=torch.float64))
    assert prediction(z[:1].expand(4, -1, -1), 2).abs().max() == 0
    assert torch.allclose(prediction(z.flip(0), 4), prediction(z, 4).flip(0))
    # Of two views: a Gaussian around the other one, each a half of the distance away.
    assert torch.allclose(prediction(z[:2], 2).mean(dim=0), (z[0] - z[1]).square().mean(dim=1) / 4)


@pytest.mark.parametrize(("num_views", "num_global"), [(2, 2), (4, 2)])
def test_the_term_weighs_both_parts_of_all_views_and_everything_learns(num_views, num_global):
    features, views = looks(num_views, num_global=num_global)
    torch.manual_seed(0)
    term = LeJEPA(DIMS, lamb=0.3, knots=9, t_max=2.0, **OPTIONS).double()
    z = term.projector(torch.cat([f.pooled for f in features])).view(num_views, 12, 4)
    parts = prediction(z, num_global).mean(), sigreg(z, term.directions, knots=9, t_max=2.0)
    out = term(features, views)
    assert out.loss.item() == pytest.approx((0.7 * parts[0] + 0.3 * parts[1]).item())
    means = {name: (total / count).item() for name, (total, count) in out.sums.items()}
    assert means == pytest.approx(
        {
            "train/loss_id": out.loss.item(),
            "train/lejepa_prediction": parts[0].item(),
            "train/lejepa_sigreg": parts[1].item(),
        },
        rel=1e-6,
    )
    out.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in term.parameters() if p.requires_grad)
    assert all(f.pooled.grad.abs().sum() > 0 for f in features)


def test_directions_are_a_function_of_the_step():
    one, other = LeJEPA(DIMS, **OPTIONS), LeJEPA(DIMS, **OPTIONS)
    first = one.directions.clone()
    assert torch.allclose(first.norm(dim=0), torch.ones(16))
    for step in (3, 0, 5):
        one.before_step(None, step, 10)
    torch.manual_seed(99)  # whatever was drawn elsewhere
    other.before_step(None, 5, 10)
    assert torch.equal(one.directions, other.directions)
    assert not torch.equal(one.directions, first)
    assert "directions" not in one.state_dict()


def test_directions_are_spread_evenly():
    drawn = lejepa._directions(3, 20000, 4)
    assert torch.allclose(drawn @ drawn.T / 20000, torch.eye(3) / 3, atol=0.01)
    assert drawn.mean(dim=1).abs().max() < 0.02


def test_under_autocast_the_loss_is_float32():
    features, views = looks(2, dtype=torch.float32)
    z, directions = cloud(2, 8, 4).float(), some_directions(4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert LeJEPA(DIMS, **OPTIONS)(features, views).loss.dtype == torch.float32
        under = sigreg(z, directions)
    assert torch.equal(under, sigreg(z, directions))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"lamb": 1.5}, "identity.lejepa.lamb=1.5 must be in [0, 1]."),
        ({"num_slices": 0}, "identity.lejepa.num_slices=0 must be at least 1."),
        ({"knots": 1}, "identity.lejepa.knots=1 must be at least 2."),
        ({"t_max": 0.0}, "identity.lejepa.t_max=0.0 must be finite and above 0."),
        ({"hidden": 0}, "identity.lejepa.hidden=0 must be at least 1."),
        ({"out": 0}, "identity.lejepa.out=0 must be at least 1."),
    ],
)
def test_ranges_are_told_by_their_key(options, told):
    with pytest.raises(UsageError) as caught:
        LeJEPA(DIMS, **options)
    assert str(caught.value) == told


def test_it_says_what_it_averages():
    told = LeJEPA(DIMS, lamb=0.05, **OPTIONS).describe()
    assert told.startswith("LeJEPA, 0.95 x prediction + 0.05 x SIGReg (16 directions")
