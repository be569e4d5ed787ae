"""Closed forms."""

import math

import pytest
import torch

from stec.errors import UsageError
from stec.evaluation import health as module
from stec.evaluation.health import alignment, health, rankme, std, uniformity


def test_std_is_one_for_isotropic_features_and_zero_for_collapsed_ones():
    axes = torch.cat([torch.eye(8), -torch.eye(8)])  # mean 0, each coordinate +-1 in 2 of 16
    assert std(5 * axes) == pytest.approx(1.0)
    assert std(torch.ones(16, 8)) == pytest.approx(0.0, abs=1e-7)
    assert std(torch.ones(16, 8) * torch.arange(1.0, 17)[:, None]) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("transposed", [False, True])
def test_rankme(transposed):
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(40, 6, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(9, 6, generator=generator, dtype=torch.float64))
    values = torch.tensor([4.0, 2.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    x = left * values @ right.T
    p = [0.5, 0.25, 0.125, 0.125]
    expected = math.exp(-sum(q * math.log(q) for q in p))
    assert rankme(x.T if transposed else x) == pytest.approx(expected, rel=1e-5)
    assert rankme(torch.eye(7)) == pytest.approx(7)
    assert rankme(torch.ones(20, 7)) == pytest.approx(1, abs=1e-5)
    assert rankme(torch.zeros(20, 7)) == 1


def test_alignment():
    x = torch.tensor([[3.0, 0], [0, 2]])
    assert alignment(x, 7 * x) == pytest.approx(0)
    assert alignment(x, -x) == pytest.approx(4)
    assert alignment(x, x.flip(0)) == pytest.approx(2)


def test_uniformity(monkeypatch):
    axes = torch.cat([torch.eye(3), -torch.eye(3)])
    # Of the 5 others, 4 at squared distance 2 and 1 at 4.
    expected = math.log((4 * math.exp(-4) + math.exp(-8)) / 5)
    assert uniformity(9 * axes) == pytest.approx(expected)
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = torch.pdist(torch.nn.functional.normalize(x)).pow(2).mul(-2).exp().mean().log()
    assert uniformity(x) == pytest.approx(float(theirs))
    monkeypatch.setattr(module, "_SLAB", 150)
    assert uniformity(x) == pytest.approx(float(theirs))
    assert uniformity(torch.ones(4, 3)) == pytest.approx(0)


def test_all_together():
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    found = health(x, x)
    assert found == {
        "std": pytest.approx(std(x)),
        "rankme": pytest.approx(rankme(x)),
        "alignment": pytest.approx(0),
        "uniformity": pytest.approx(uniformity(x)),
    }
    with pytest.raises(UsageError, match="at least 2"):
        health(x[:1], x[:1])
    with pytest.raises(UsageError, match=r"\[30, 4\] and \[29, 4\]"):
        health(x, x[1:])
