"""Closed forms."""

import math

import pytest
import torch

from stec.errors import UsageError
from stec.evaluation import health as module
from stec.evaluation.health import alignment, health, uniformity
from stec.spectrum import rankme, std


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
        "std": pytest.approx(float(std(x))),
        "rankme": pytest.approx(float(rankme(x))),
        "alignment": pytest.approx(0),
        "uniformity": pytest.approx(uniformity(x)),
    }
    with pytest.raises(UsageError, match="at least 2"):
        health(x[:1], x[:1])
    with pytest.raises(UsageError, match=r"\[30, 4\] and \[29, 4\]"):
        health(x, x[1:])
