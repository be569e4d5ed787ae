"""Optimisers and the schedule: who is decayed and adapted, LARS by its formula, the rates."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_run import model

from stec.errors import UsageError
from stec.training import optim, schedule
from stec.training.optim import OPTIMIZERS


def grouped(optimizer: torch.optim.Optimizer, stec: torch.nn.Module) -> tuple[set[str], set[str]]:
    names = {id(p): name for name, p in stec.named_parameters()}
    first, second = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    return first, second


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_biases_and_norms_are_not_decayed(name):
    stec = model(batch_norm=True)
    decayed, plain = grouped(OPTIMIZERS[name](stec, 256, lr=0.1), stec)
    assert {"encoder.first.weight", "identity.simclr.projector.0.weight"} <= decayed
    assert {"encoder.norm.weight", "encoder.norm.bias", "encoder.first.bias", "probes.online.linear.bias"} <= plain
    assert all(not n.endswith("bias") for n in decayed)
    assert decayed | plain == {n for n, p in stec.named_parameters() if p.requires_grad}
    assert not decayed & plain
    assert ("probes.online.linear.weight" in plain) == (name == "lars")
    assert "identity.simclr.projector.4.bias" not in decayed | plain  # it does not learn


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_an_encoder_names_is_not_decayed(name, monkeypatch):
    stec = model()
    before, _ = grouped(OPTIMIZERS[name](stec, 256, lr=0.1), stec)
    monkeypatch.setattr(stec.encoder, "undecayed", frozenset({"first.weight"}))
    decayed, plain = grouped(OPTIMIZERS[name](stec, 256, lr=0.1), stec)
    assert before - decayed == {"encoder.first.weight"} <= plain


@pytest.mark.parametrize(("tc", "clip"), [(1e-3, False), (0.02, True)])
def test_lars_is_the_formula_of_the_paper_s_code(tc, clip):
    """Local rate = tc |p| / (|g| + wd |p| + eps); (g + wd p) * local rate into the buffer; lr outside. Others: SGD.
    Clipped (LARC): min(local rate / lr, 1)."""
    stec, (lr, wd, momentum) = model(batch_norm=True), (0.01 if clip else 0.7, 1e-2, 0.9)
    lars = OPTIMIZERS["lars"](stec, 256, lr=lr, weight_decay=wd, momentum=momentum, trust=tc, clip=clip)
    clipped = []
    decayed, _ = grouped(lars, stec)
    g = torch.Generator().manual_seed(0)
    expected = {name: p.detach().double().clone() for name, p in stec.named_parameters()}
    buffers = {name: torch.zeros_like(p) for name, p in expected.items()}
    for step in range(4):
        rate = schedule.set_rate(lars, (step + 1) / 4)
        assert rate == pytest.approx(lr * (step + 1) / 4)
        for name, p in stec.named_parameters():
            if not p.requires_grad:
                continue
            p.grad = torch.randn(p.shape, generator=g)
            w, direction = expected[name], p.grad.double()
            if name in decayed:
                local = tc * w.norm() / (direction.norm() + wd * w.norm() + 1e-8)
                if clip:
                    local = (local / rate).clamp(max=1)
                    clipped.append(bool(local == 1))
                direction = (direction + wd * w) * local
            buffers[name] = momentum * buffers[name] + direction
            expected[name] = w - rate * buffers[name]
        lars.step()
    for name, p in stec.named_parameters():
        assert torch.allclose(p.double(), expected[name], rtol=1e-5, atol=1e-7), name
    assert set(clipped) == ({True, False} if clip else set())


def test_clipped_lars_moves_no_weight_by_more_than_plain_sgd():
    first, second = model(), model()
    optimizers = (
        OPTIMIZERS["lars"](first, 256, lr=0.1, trust=1e3, clip=True, weight_decay=0.0),
        OPTIMIZERS["sgd"](second, 256, lr=0.1, weight_decay=0.0),
    )
    for stec, optimizer in zip((first, second), optimizers, strict=True):
        g = torch.Generator().manual_seed(0)
        for p in stec.parameters():
            p.grad = torch.randn(p.shape, generator=g) if p.requires_grad else None
        optimizer.step()
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.allclose(one, other)


def test_clipped_lars_may_start_from_a_rate_of_nought():
    stec = model()
    lars = OPTIMIZERS["lars"](stec, 256, lr=1.0, clip=True)
    before = stec.encoder.first.weight.detach().clone()
    stec.encoder.first.weight.grad = torch.ones_like(before)
    schedule.set_rate(lars, 0.0)
    lars.step()
    assert torch.equal(stec.encoder.first.weight, before)


def test_lars_without_decay_is_still_lars():
    stec = model()
    lars = OPTIMIZERS["lars"](stec, 256, lr=1.0, weight_decay=0.0)
    weight = stec.encoder.first.weight
    before = weight.detach().clone()
    weight.grad = torch.randn_like(weight)
    lars.step()
    assert (weight - before).norm().item() == pytest.approx(1e-3 * before.norm().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("scale", "peak", "told"),
    [
        ("none", 0.1, "lr 0.1 -> peak 0.1"),
        ("linear", 0.4, "lr 0.1 at batch 256 (linear) -> peak 0.4"),
        ("sqrt", 0.2, "lr 0.1 at batch 256 (sqrt) -> peak 0.2"),
    ],
)
def test_the_peak_follows_the_batch_and_both_numbers_are_told(scale, peak, told):
    optimizer = OPTIMIZERS["sgd"](model(), 1024, lr=0.1, scale=scale)
    assert schedule.set_rate(optimizer, 1.0) == pytest.approx(peak)
    assert all(group["lr"] == pytest.approx(peak) for group in optimizer.param_groups)
    assert told in optim.describe(optimizer)


def test_the_authors_rates_come_out():
    """Paper's code, LARS: 4.0 on CIFAR (1.0 at 256, batch 1024), 1.97 on ImageNet (0.3 at 256, batch 1680)."""
    assert schedule.set_rate(OPTIMIZERS["lars"](model(), 1024, lr=1.0), 1.0) == 4.0
    assert schedule.set_rate(OPTIMIZERS["lars"](model(), 1680, lr=0.3), 1.0) == pytest.approx(1.97, abs=2e-3)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("sgd", {"lr": 0.0}, "optimizer.lr=0.0"),
        ("sgd", {"lr": 0.1, "scale": "cubic"}, "optimizer.scale='cubic'"),
        ("sgd", {"lr": 0.1, "weight_decay": -1.0}, "optimizer.weight_decay=-1.0"),
        ("sgd", {"lr": 0.1, "momentum": 1.0}, "optimizer.momentum=1.0"),
        ("sgd", {"lr": 0.1, "momentum": 0.0, "nesterov": True}, "optimizer.nesterov=true"),
        ("lars", {"lr": 0.1, "trust": 0.0}, "optimizer.trust=0.0"),
        ("adamw", {"lr": 0.1, "beta2": 1.5}, "optimizer.beta2=1.5"),
        ("adamw", {"lr": math.nan}, "optimizer.lr=nan"),
    ],
)
def test_ranges_are_refused_by_their_key(name, options, told):
    with pytest.raises(UsageError) as caught:
        OPTIMIZERS[name](model(), 256, **options)
    assert str(caught.value).startswith(told)


@settings(max_examples=30, deadline=None)
@given(total=st.integers(2, 5000), share=st.floats(0, 0.9))
def test_the_rate_rises_linearly_and_falls_as_a_cosine(total, share):
    warmup = share * total
    rates = [schedule.factor(step, warmup, total) for step in range(total + 1)]
    peak = math.ceil(warmup)
    assert all(0 <= r <= 1 for r in rates)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert all(r == pytest.approx(s / warmup) for s, r in enumerate(rates[:peak]))
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    middle = warmup + (total - warmup) / 2
    assert schedule.factor(middle, warmup, total) == pytest.approx(0.5)


def test_the_schedule_is_torch_s():
    """LinearLR from 0 and CosineAnnealingLR, one after the other."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([parameter], lr=2.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=90)
    for step in range(10, 100):
        assert theirs.param_groups[0]["lr"] == pytest.approx(2 * schedule.factor(step, 10, 100), abs=1e-9)
        theirs.step()
        cosine.step()
