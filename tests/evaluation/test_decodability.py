import math

import pytest
import torch

from stec.actions import Component, Relative
from stec.errors import UsageError
from stec.evaluation.decodability import Reader, actions
from stec.evaluation.features import Pairs

COMPONENTS = (
    Component("product", "ratio"),
    Component("hidden", "ratio"),
    Component("fixed", "ratio"),
    Component("side", "left or right", levels=(-1.0, 1.0)),
)


def pairs(num: int, seed: int, *, invalid: float = 0.0) -> Pairs:
    """The first component is a product of what the two views show (no linear reader finds it), the second is nowhere,
    the third constant, the fourth a sign shown by both."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(num, 6, generator=generator), torch.randn(num, 6, generator=generator)
    side = torch.where(torch.rand(num, generator=generator) < 0.7, 1.0, -1.0)
    a[:, 5] = side + 0.01 * a[:, 5]
    hidden = torch.randn(num, generator=generator)
    values = torch.stack([a[:, 0] * b[:, 0], hidden, torch.full((num,), 2.0), side], dim=1)
    valid = torch.rand(num, 1, generator=generator).expand(num, 4) >= invalid
    return Pairs(a, b, Relative(values.masked_fill(~valid, torch.nan), valid))


def test_what_is_shown_is_read_what_is_not_gives_no_bits_and_what_is_constant_is_named():
    found, dropped = actions(pairs(1500, 0), pairs(600, 1), COMPONENTS)
    assert dropped == ("fixed",)
    assert list(found) == ["product", "hidden", "side"]
    assert found["product"].bits > 0.25
    assert found["product"].accuracy > 2 * found["product"].majority
    assert -0.05 < found["hidden"].bits < 0.05
    assert found["hidden"].accuracy == pytest.approx(1 / 6, abs=0.06)
    assert found["product"].chance == pytest.approx(math.log(6), abs=0.02)
    assert found["product"].num_bins == 6
    side = found["side"]
    entropy = -0.7 * math.log(0.7) - 0.3 * math.log(0.3)
    assert side.num_bins == 2
    assert side.chance == pytest.approx(entropy, abs=0.05)
    assert side.majority == pytest.approx(0.7, abs=0.06)
    assert side.accuracy > 0.99
    assert entropy / math.log(2) - 0.1 < side.bits <= side.chance / math.log(2)


def test_the_answer_depends_on_nothing_but_the_pairs():
    train, test = pairs(200, 0), pairs(100, 1)
    torch.manual_seed(5)
    first = actions(train, test, COMPONENTS, hidden=16, epochs=2)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert actions(train, test, COMPONENTS, hidden=16, epochs=2) == first
    assert actions(train, test, COMPONENTS, hidden=16, epochs=2, seed=1) != first
    # The scale of the features means nothing: they are standardised.
    scaled = [p._replace(a=4 * p.a, b=4 * p.b) for p in (train, test)]
    again = actions(*scaled, COMPONENTS, hidden=16, epochs=2).components["side"]
    assert again.bits == pytest.approx(first.components["side"].bits, abs=1e-3)


def test_invalid_copies_carry_no_weight():
    train, test = pairs(400, 0, invalid=0.3), pairs(300, 1, invalid=0.3)
    found, _ = actions(train, test, COMPONENTS, hidden=64, epochs=10)
    assert all(math.isfinite(value) for one in found.values() for value in one)
    valid = test.copy.valid[:, 0]
    other = Relative(torch.where(test.copy.valid, test.copy.values, 1e6), test.copy.valid)
    assert actions(train, test._replace(copy=other), COMPONENTS, hidden=64, epochs=10).components == found
    share = float((test.copy.values[valid, 3] == 1).double().mean())
    assert found["side"].majority == pytest.approx(share)


def test_a_component_that_is_never_valid_is_dropped():
    train, test = pairs(200, 0), pairs(100, 1)
    test.copy.valid[:, 1] = False
    train.copy.valid[:, 3] = False
    found, dropped = actions(train, test, COMPONENTS, hidden=16, epochs=1)
    assert list(found) == ["product"]
    assert dropped == ("hidden", "fixed", "side")
    train.copy.valid[:] = False
    assert actions(train, test, COMPONENTS).components == {}


def test_refusals():
    with pytest.raises(UsageError, match="at least 20"):
        actions(pairs(19, 0), pairs(100, 1), COMPONENTS)
    for options in ({"bins": "soft"}, {"num_bins": 1}, {"hidden": 0}, {"epochs": 0}):
        with pytest.raises(UsageError, match=rf"evaluation\.action\.{next(iter(options))}="):
            Reader(**options)
    assert "5 uniform bins" in Reader(bins="uniform", num_bins=5).describe()
