"""Closed forms."""

import math

import pytest
import torch

from stec.spectrum import rankme, std


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
    found = rankme(x.T if transposed else x)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert rankme(torch.eye(7)) == pytest.approx(7)
    assert rankme(torch.ones(20, 7)) == pytest.approx(1, abs=1e-5)
    assert rankme(torch.zeros(20, 7)) == 1


def test_it_is_the_same_in_any_precision_around_it_and_says_when_there_is_no_answer():
    x = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    expected = std(x), rankme(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert (std(x), rankme(x)) == expected
    x[3, 2] = torch.nan
    assert std(x).isnan()
    assert rankme(x).isnan()
