"""Gradients of every loss of the catalogue against differences, in float64: at the features, and at all that learns."""

import pytest
import torch
from every_term import EVERY, NAMES, Constants, case

from stec.identity import swav


@pytest.mark.parametrize(("name", "options"), EVERY, ids=NAMES)
def test_the_gradient_of_every_loss(name, options, monkeypatch):
    # The codes are made without gradient, of the prototypes too.
    balance = swav.sinkhorn
    monkeypatch.setattr(swav, "sinkhorn", lambda *given, **how: balance(*given, **how).detach())
    scored, constants = case(name, **options), Constants()
    leaves, outputs = scored.leaves(), scored.num_outputs
    sizes = [t.numel() for t in leaves]
    flat = [torch.cat([t.detach().flatten() for t in some]) for some in (leaves[:outputs], leaves[outputs:])]

    def loss(*given):
        parts = torch.cat(given).split(sizes)
        with constants:
            return scored.score(*(part.view_as(t) for part, t in zip(parts, leaves, strict=True))).loss

    # Fast: along one random direction of all that the encoder gives, and one of all that learns beside it.
    assert torch.autograd.gradcheck(loss, [t.requires_grad_() for t in flat], fast_mode=True, atol=1e-6, rtol=1e-4)
    felt, learnt = torch.autograd.grad(loss(*flat), flat)
    assert felt.norm() > 1e-3
    assert learnt.norm() > 1e-3
