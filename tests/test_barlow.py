"""Barlow Twins: the correlation by hand, lightly's loss, and what it is blind to."""

import pytest
import torch
from lightly.loss import BarlowTwinsLoss
from test_losses import pair, relative_difference
from test_vicreg import DIMS, looks

from stec.errors import UsageError
from stec.identity.barlow import BarlowTwins, barlow_twins


def slow_twin(z1: torch.Tensor, z2: torch.Tensor) -> list[torch.Tensor]:
    """Eq. 1 and 2, number by number."""
    num, width = z1.shape
    standard = []
    for z in (z1, z2):
        mean = [sum(z[n, d] for n in range(num)) / num for d in range(width)]
        var = [sum((z[n, d] - mean[d]) ** 2 for n in range(num)) / num for d in range(width)]
        standard.append([[(z[n, d] - mean[d]) / (var[d] + 1e-5).sqrt() for d in range(width)] for n in range(num)])
    c = [
        [sum(standard[0][n][i] * standard[1][n][j] for n in range(num)) / num for j in range(width)]
        for i in range(width)
    ]
    return [
        sum((1 - c[i][i]) ** 2 for i in range(width)),
        sum(c[i][j] ** 2 for i in range(width) for j in range(width) if i != j),
    ]


def test_equals_the_slow_twin_in_loss_and_gradient():
    z = pair(7, 4, torch.float64)
    for ours, theirs in zip(barlow_twins(*z), slow_twin(*z), strict=True):
        assert relative_difference(ours, theirs) < 1e-12
        mine, twins = (torch.autograd.grad(loss, z, retain_graph=True) for loss in (ours, theirs))
        for g, h in zip(mine, twins, strict=True):
            assert relative_difference(g, h) < 1e-10


def test_equals_lightly():
    ours, theirs = pair(64, 16), pair(64, 16)
    invariance, redundancy = barlow_twins(*ours)
    a, b = invariance + 0.0051 * redundancy, BarlowTwinsLoss(lambda_param=0.0051)(*theirs)
    assert relative_difference(a, b) < 1e-5
    for g, h in zip(torch.autograd.grad(a, ours), torch.autograd.grad(b, theirs), strict=True):
        assert relative_difference(g, h) < 1e-5


def test_the_diagonal_is_the_distance_of_standardised_coordinates():
    """A Gaussian in them: mean of (u - u')^2 = 2 (1 - C)."""
    z1, z2 = pair(200, 1, torch.float64)
    u1, u2 = ((z - z.mean(dim=0)) / z.std(dim=0, unbiased=False) for z in (z1, z2))
    assert ((u1 - u2).square().mean() / 2).square().item() == pytest.approx(barlow_twins(z1, z2)[0].item(), rel=1e-4)


def test_it_is_blind_to_order_shift_scale_and_which_view_is_first():
    z1, z2 = pair(30, 4, torch.float64)
    expected = torch.stack(barlow_twins(z1, z2))
    scale, shift = torch.tensor([2.0, 5.0, 0.5, 30.0]), torch.tensor([1.0, -4.0, 0.0, 9.0])
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(torch.stack(barlow_twins(z2, z1)), expected)
    assert torch.allclose(torch.stack(barlow_twins(z1[order], z2[order])), expected)
    assert torch.allclose(torch.stack(barlow_twins(scale * z1 + shift, z2 / scale - shift)), expected, rtol=1e-2)


def test_closed_forms():
    z, _ = pair(60, 5, torch.float64)
    z = z.detach() - z.detach().mean(dim=0)
    white = z @ torch.linalg.inv(torch.linalg.cholesky(z.T.cov(correction=0))).T
    invariance, redundancy = barlow_twins(white, white)
    assert invariance.item() == pytest.approx(0, abs=1e-8)
    assert redundancy.item() == pytest.approx(0, abs=1e-20)
    assert barlow_twins(white, -white)[0].item() == pytest.approx(4 * 5, rel=1e-4)
    same = white[:, :1].expand(-1, 5)
    assert barlow_twins(same, same)[1].item() == pytest.approx(5 * 4, rel=1e-4)
    assert barlow_twins(torch.ones(8, 5), torch.ones(8, 5))[0] == 5  # all in one point: nothing agrees
    assert barlow_twins(z[:, :1], z[:, :1])[1] == 0


def test_unrelated_views_cost_about_a_unit_a_coordinate():
    generator = torch.Generator().manual_seed(0)
    invariance, _ = barlow_twins(torch.randn(5000, 20, generator=generator), torch.randn(5000, 20, generator=generator))
    assert invariance.item() == pytest.approx(20, rel=0.05)
    assert "unrelated views: about 20" in BarlowTwins(DIMS, hidden=8, out=20).describe()


def test_the_term_weighs_its_parts_and_everything_learns():
    features, views = looks(3)
    torch.manual_seed(0)
    term = BarlowTwins(DIMS, redundancy=0.3, hidden=8, out=4).double()
    invariance, redundancy = barlow_twins(*term.projector(torch.cat([f.pooled for f in features[:2]])).chunk(2))
    out = term(features, views)
    assert out.loss.item() == pytest.approx((invariance + 0.3 * redundancy).item())
    assert {name: total.item() for name, (total, _) in out.sums.items()} == pytest.approx(
        {
            "train/loss_id": out.loss.item(),
            "train/barlow_invariance": invariance.item(),
            "train/barlow_redundancy": redundancy.item(),
        },
        rel=1e-6,
    )
    out.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in term.parameters() if p.requires_grad)
    assert all(f.pooled.grad.abs().sum() > 0 for f in features[:2])
    assert features[2].pooled.grad is None


def test_under_autocast_the_loss_is_float32():
    features, views = looks(2, dtype=torch.float32)
    term, z = BarlowTwins(DIMS, hidden=8, out=4), pair(8, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert term(features, views).loss.dtype == torch.float32
        under = torch.stack(barlow_twins(*z))
    assert torch.equal(under, torch.stack(barlow_twins(*z)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"redundancy": -1.0}, "identity.barlow.redundancy=-1.0 must be finite, 0 or more."),
        ({"hidden": 0}, "identity.barlow.hidden=0 must be at least 1."),
        ({"out": 0}, "identity.barlow.out=0 must be at least 1."),
    ],
)
def test_ranges_are_told_by_their_key(options, told):
    with pytest.raises(UsageError) as caught:
        BarlowTwins(DIMS, **options)
    assert str(caught.value) == told


def test_what_cannot_be_compared_is_told():
    with pytest.raises(UsageError, match="one shape"):
        barlow_twins(torch.ones(4, 2), torch.ones(3, 2))
    with pytest.raises(UsageError, match="at least 2"):
        barlow_twins(torch.ones(1, 2), torch.ones(1, 2))
