"""VICReg: three terms by hand, lightly's, and what they do to a batch."""

import pytest
import torch
from lightly.loss import VICRegLoss
from test_losses import pair, relative_difference

from stec.encoder import Features
from stec.errors import UsageError
from stec.identity.vicreg import VICReg, vicreg
from stec.rng import make_keys
from stec.views import Views

DIMS = {"pooled": 5}


def looks(num_views: int, num: int = 12, num_global: int | None = None, dtype=torch.float64):
    """Features of some views, and the views that the terms read (their number of global ones)."""
    shared = torch.randn(num, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    noise = torch.randn(num_views, num, 5, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    pooled = [(shared + n).to(dtype).requires_grad_() for n in noise]
    keys = make_keys(0, 0, torch.arange(num))
    views = Views(tuple(p.detach() for p in pooled), {}, num_global or num_views, keys)
    return tuple(Features(p) for p in pooled), views


def slow_twin(z1: torch.Tensor, z2: torch.Tensor) -> list[torch.Tensor]:
    """Eq. 1 to 5, number by number."""
    num, width = z1.shape
    invariance = sum((z1[n, d] - z2[n, d]) ** 2 for n in range(num) for d in range(width)) / (num * width)
    variance = covariance = torch.zeros((), dtype=z1.dtype)
    for z in (z1, z2):
        mean = [sum(z[n, d] for n in range(num)) / num for d in range(width)]
        cov = [
            [sum((z[n, i] - mean[i]) * (z[n, j] - mean[j]) for n in range(num)) / (num - 1) for j in range(width)]
            for i in range(width)
        ]
        variance = variance + sum((1 - (cov[d][d] + 1e-4).sqrt()).clamp(min=0) for d in range(width)) / width / 2
        covariance = covariance + sum(cov[i][j] ** 2 for i in range(width) for j in range(width) if i != j) / width
    return [invariance, variance, covariance]


def test_equals_the_slow_twin_in_loss_and_gradient():
    z = [(z.detach() * 0.6).requires_grad_() for z in pair(7, 4, torch.float64)]  # some standard deviations below 1
    for ours, theirs in zip(vicreg(*z), slow_twin(*z), strict=True):
        assert relative_difference(ours, theirs) < 1e-12
        assert theirs > 0
        mine, twins = (torch.autograd.grad(loss, z, retain_graph=True) for loss in (ours, theirs))
        for g, h in zip(mine, twins, strict=True):
            assert relative_difference(g, h) < 1e-12


def test_equals_lightly():
    """Their weights are our weights: factor 1."""
    weights = torch.tensor([25.0, 25.0, 1.0])
    ours, theirs = pair(64, 16), pair(64, 16)
    a, b = (weights * torch.stack(vicreg(*ours))).sum(), VICRegLoss()(*theirs)
    assert relative_difference(a, b) < 1e-5
    for g, h in zip(torch.autograd.grad(a, ours), torch.autograd.grad(b, theirs), strict=True):
        assert relative_difference(g, h) < 1e-5


def test_views_can_be_swapped_and_shifted_together():
    z1, z2 = pair(9, 4, torch.float64)
    expected = torch.stack(vicreg(z1, z2))
    shift = torch.tensor([3.0, -1.0, 10.0, 0.5], dtype=torch.float64)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    for other in (vicreg(z2, z1), vicreg(z1 + shift, z2 + shift), vicreg(z1[order], z2[order])):
        assert torch.allclose(torch.stack(other), expected)
    # A shift of one view costs its square, and changes nothing else.
    shifted = torch.stack(vicreg(z1, z2 + 1)) - expected
    assert torch.allclose(shifted, torch.stack([(1 + 2 * (z2 - z1)).mean(), *torch.zeros(2, dtype=torch.float64)]))


def test_closed_forms():
    z, _ = pair(50, 6, torch.float64)
    z = z.detach() - z.detach().mean(dim=0)
    white = z @ torch.linalg.inv(torch.linalg.cholesky(z.T.cov())).T  # covariance 1
    assert torch.allclose(torch.stack(vicreg(white, white)), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    # Half as wide: a hinge of 1 - 1/2; all in one point: 1 - sqrt(1e-4).
    assert vicreg(white / 2, white / 2)[1].item() == pytest.approx(1 - (0.25 + 1e-4) ** 0.5)
    assert vicreg(white * 3, white * 3)[1] == 0
    point = torch.ones(8, 6)
    assert [t.item() for t in vicreg(point, point)] == pytest.approx([0, 0.99, 0])
    # One number, six times: every covariance off the diagonal is 1, and there are 5 of them a coordinate and view.
    same = white[:, :1].expand(-1, 6)
    assert vicreg(same, same)[2].item() == pytest.approx(2 * 5)


def test_the_invariance_is_a_gaussian_s_likelihood():
    """-log N(t(x'); t(x), sigma^2 I), 1 / sigma^2 = 2 * 25 / D, but for its normaliser."""
    z1, z2 = pair(9, 4, torch.float64)
    gaussian = torch.distributions.Normal(z1, (4 / 50) ** 0.5)
    surplus = (gaussian.log_prob(z1) - gaussian.log_prob(z2)).sum(dim=1).mean()
    assert surplus.item() == pytest.approx(25 * vicreg(z1, z2)[0].item())


def test_terms_scale_as_squares_and_fourth_powers():
    z1, z2 = pair(9, 4, torch.float64)
    small, large = vicreg(z1, z2), vicreg(3 * z1, 3 * z2)
    assert large[0].item() == pytest.approx(9 * small[0].item())
    assert large[2].item() == pytest.approx(81 * small[2].item())


def test_a_single_coordinate_has_no_covariance():
    z1, z2 = pair(9, 1, torch.float64)
    assert vicreg(z1, z2)[2] == 0


def test_gradient_of_the_variance_spreads_a_small_cloud():
    z = (0.1 * pair(20, 3, torch.float64)[0]).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(vicreg(z, z)[1], z)
    assert (z - gradient).std(dim=0).gt(z.std(dim=0)).all()


def test_the_term_weighs_its_parts_and_everything_learns():
    features, views = looks(3)
    torch.manual_seed(0)
    term = VICReg(DIMS, invariance=2.0, variance=3.0, covariance=0.5, hidden=8, out=4).double()
    expected = vicreg(*term.projector(torch.cat([f.pooled for f in features[:2]])).chunk(2))
    out = term(features, views)
    assert out.loss.item() == pytest.approx((2 * expected[0] + 3 * expected[1] + 0.5 * expected[2]).item())
    assert {name: total.item() for name, (total, _) in out.sums.items()} == pytest.approx(
        {
            "train/loss_id": out.loss.item(),
            **{
                f"train/vicreg_{name}": value.item()
                for name, value in zip(("invariance", "variance", "covariance"), expected, strict=True)
            },
        },
        rel=1e-6,
    )
    out.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in term.parameters() if p.requires_grad)
    assert all(f.pooled.grad.abs().sum() > 0 for f in features[:2])
    assert features[2].pooled.grad is None


def test_without_its_safeguards_only_the_distance_is_left():
    features, views = looks(2)
    term = VICReg(DIMS, variance=0.0, covariance=0.0, hidden=8, out=4).double()
    out = term(features, views)
    assert out.loss.item() == pytest.approx(25 * out.sums["train/vicreg_invariance"][0].item(), rel=1e-6)
    assert "25 x invariance + 0 x variance + 0 x covariance" in term.describe()


def test_under_autocast_the_loss_is_float32():
    features, views = looks(2, dtype=torch.float32)
    term = VICReg(DIMS, hidden=8, out=4)
    z = pair(8, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert term(features, views).loss.dtype == torch.float32
        assert torch.equal(torch.stack(vicreg(*z)), torch.stack(vicreg(*(x.detach() for x in z))))
        under = torch.stack(vicreg(*z))
    assert torch.equal(under, torch.stack(vicreg(*z)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"variance": -1.0}, "identity.vicreg.variance=-1.0 must be finite, 0 or more."),
        ({"covariance": float("inf")}, "identity.vicreg.covariance=inf must be finite"),
        ({"hidden": 0}, "identity.vicreg.hidden=0 must be at least 1."),
        ({"out": 0}, "identity.vicreg.out=0 must be at least 1."),
    ],
)
def test_ranges_are_told_by_their_key(options, told):
    with pytest.raises(UsageError) as caught:
        VICReg(DIMS, **options)
    assert str(caught.value).startswith(told)


def test_what_cannot_be_compared_is_told():
    with pytest.raises(UsageError, match="one shape"):
        vicreg(torch.ones(4, 2), torch.ones(3, 2))
    with pytest.raises(UsageError, match="at least 2"):
        vicreg(torch.ones(1, 2), torch.ones(1, 2))
