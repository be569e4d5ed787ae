"""Losses are float32 islands: whatever precision the networks run in, what follows them is computed as if it were none.

Heads are networks, and run as the encoder does. All that lies behind their outputs must not, or large logits, sums over
a batch and squares above 65,504 would be lost.
"""

import pytest
import torch
from every_term import EVERY, NAMES, case, heads
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from toy_terms import TwoLayers

from stec.distributed import global_mean
from stec.identity.barlow import barlow_twins
from stec.identity.lejepa import sigreg
from stec.identity.swav import sinkhorn
from stec.identity.vicreg import vicreg
from stec.losses import nt_xent
from stec.objective import _gradient_norm
from stec.teacher import Teacher

HALVES = (torch.bfloat16, torch.float16)
# What only moves or compares numbers may do so in any precision.
MOVES = {
    *("_to_copy", "alias", "argmax", "as_strided", "cat", "clone", "copy_", "detach", "empty_like", "expand", "gather"),
    *("index", "index_select", "lift_fresh", "permute", "select", "slice", "split", "split_with_sizes", "squeeze"),
    *("stack", "t", "transpose", "unbind", "unsqueeze", "view", "_unsafe_view", "reshape", "roll", "narrow"),
}


class Low(TorchDispatchMode):
    """Names of the operations that compute with bf16 or fp16 outside of `resting` networks."""

    def __init__(self):
        super().__init__()
        self.resting, self.found = 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        seen = [t for t in pytree.tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        name = function.name().removeprefix("aten::").partition(".")[0]
        if not self.resting and name not in MOVES and any(t.dtype in HALVES for t in seen):
            self.found.add(name)
        return out


def scored(name, options, dtype, *, scale=1.0, replay=None):
    """The term under autocast, its features in `dtype`; the heads' outputs times `scale`, as lists of each head; or, if
    there is something to replay, in float32 on what the heads gave then."""
    made = case(name, **options).rounded(dtype, torch.float32 if replay else dtype)
    term, kept, low = made.term, [], Low()
    left = iter(replay or [])

    def enter(module, given):
        low.resting += 1

    def leave(module, given, out):
        low.resting -= 1
        if replay is not None:
            return pytree.tree_map(torch.Tensor.float, next(left))
        low.resting += 1
        kept.append(pytree.tree_map(lambda t: (t * scale).to(dtype).detach(), out))
        low.resting -= 1
        return kept[-1]

    for head in heads(term):
        head.register_forward_pre_hook(enter)
        head.register_forward_hook(leave)
    with low, torch.autocast("cpu", dtype, enabled=replay is None):
        out = term(made.features, made.views)
    return out, kept, low.found


@pytest.mark.parametrize("dtype", HALVES, ids=["bf16", "fp16"])
@pytest.mark.parametrize(("name", "options"), EVERY, ids=NAMES)
def test_a_loss_is_that_of_float32_on_the_same_numbers_bit_for_bit(name, options, dtype):
    # In fp16 the heads' outputs are so large that their squares would not exist.
    scale = 1.0 if dtype == torch.bfloat16 else 500.0
    low, outputs, computed = scored(name, options, dtype, scale=scale)
    full, _, _ = scored(name, options, dtype, replay=outputs)
    assert outputs
    assert outputs[0].dtype == dtype
    assert low.loss.dtype == torch.float32
    assert low.loss.isfinite()
    assert torch.equal(low.loss, full.loss)
    for metric, (total, count) in full.sums.items():
        assert torch.equal(low.sums[metric][0], total), metric
        assert torch.equal(low.sums[metric][1], count), metric
    assert not computed


def cloud(num, width, spread=1.0, shift=0.0, seed=0):
    return spread * torch.randn(num, width, generator=torch.Generator().manual_seed(seed)) + shift


def pairs(num, width, **how):
    return [cloud(num, width, seed=seed, **how) for seed in (1, 2)]


# Sums over thousands of samples, logits of 100 and more, means far from 0: (loss, what it is given, relative error).
HARD = {
    "nt_xent": (lambda z1, z2: nt_xent(z1, z2, 0.01).mean(), pairs(1024, 32), 1e-5),
    "vicreg": (lambda z1, z2: torch.stack(vicreg(z1, z2)), pairs(4096, 16, shift=100.0), 1e-3),
    "barlow": (lambda z1, z2: torch.stack(barlow_twins(z1, z2)), pairs(4096, 16, shift=100.0), 1e-3),
    "sigreg": (lambda z1, z2: sigreg(torch.stack([z1, z2]), torch.eye(16)), pairs(4096, 16), 1e-4),
    "sinkhorn": (lambda s, _: sinkhorn(s, epsilon=0.005), pairs(2048, 64), 1e-3),
    "global_mean": (lambda z1, z2: global_mean(z1.square()), pairs(4096, 64, spread=1e3), 1e-5),
}


@pytest.mark.parametrize("name", HARD)
def test_in_float32_even_hard_cases_are_float64_s(name):
    loss, given, bound = HARD[name]
    exact = loss(*(z.double() for z in given)).double()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(*given)
    assert found.dtype == torch.float32
    assert (found.double() - exact).abs().max() <= bound * exact.abs().max()


@pytest.mark.parametrize("name", ["relic", "barlow", "swav"])
def test_the_share_of_a_gradient_is_measured_as_it_is_trained(name):
    """A loss is scored under autocast, but its backward pass runs without: so does the one that only measures."""
    made = case(name).rounded(torch.bfloat16, torch.float32)
    outputs = [f.pooled.requires_grad_() for f in made.features]
    with torch.autocast("cpu", torch.bfloat16):
        loss = made.term(made.features, made.views).loss
        measured = _gradient_norm(loss, outputs)
    assert torch.equal(measured, _gradient_norm(loss, outputs))
    assert measured > 0


@torch.no_grad()
def test_a_teacher_of_bf16_follows_in_float32():
    """A ten-thousandth of the way is less than the spacing of bf16 numbers: it would never get there."""
    student, head = TwoLayers(), nn.Linear(8, 4)
    teacher = Teacher(student, head, momentum=0.9999, rises=False, where="here")
    before = teacher.projector.weight.clone()
    head.weight += 1
    with torch.autocast("cpu", torch.bfloat16):
        teacher.follow(student, head, 1, 10)
    assert torch.allclose(teacher.projector.weight - before, torch.full((4, 8), 1e-4), rtol=1e-2)
