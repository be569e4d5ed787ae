import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss

from stec import losses
from stec.errors import UsageError
from stec.losses import info_nce, nt_xent


def slow_twin(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent anchor by anchor, as the paper's Eq. 1 reads."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    num, terms = len(z), []
    for i in range(num):
        positive = (i + num // 2) % num
        others = [torch.exp(z[i] @ z[j] / temperature) for j in range(num) if j != i]
        terms.append(-torch.log(torch.exp(z[i] @ z[positive] / temperature) / torch.stack(others).sum()))
    return torch.stack(terms)


def pair(num: int, width: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(num, width, generator=generator, dtype=torch.float64)
    views = [shared + torch.randn(num, width, generator=generator, dtype=torch.float64) for _ in range(2)]
    return [v.to(dtype).requires_grad_() for v in views]


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


@pytest.fixture
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_SLAB", 1)
    monkeypatch.setattr(losses, "_MIN_ROWS", 5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_equals_the_slow_twin_in_loss_and_gradient(temperature, small_slabs):
    ours, twin = pair(13, 8), pair(13, 8, torch.float64)
    a, b = nt_xent(*ours, temperature), slow_twin(*twin, temperature)
    assert a.shape == (26,)
    assert relative_difference(a, b) < 1e-5
    for g, h in zip(torch.autograd.grad(a.mean(), ours), torch.autograd.grad(b.mean(), twin), strict=True):
        assert relative_difference(g, h) < 1e-5


def test_equals_lightly(small_slabs):
    ours, theirs = pair(64, 16), pair(64, 16)
    a, b = nt_xent(*ours, 0.2).mean(), NTXentLoss(temperature=0.2)(*theirs)
    assert relative_difference(a, b) < 1e-5
    for g, h in zip(torch.autograd.grad(a, ours), torch.autograd.grad(b, theirs), strict=True):
        assert relative_difference(g, h) < 1e-5


def test_gradient_by_finite_differences(small_slabs):
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.3), pair(6, 4, torch.float64))


def test_info_nce_gradient_with_candidates_of_their_own(small_slabs):
    anchors, _ = pair(7, 4, torch.float64)
    candidates, _ = pair(9, 4, torch.float64, seed=1)
    positive = torch.arange(7)
    assert torch.autograd.gradcheck(lambda a, c: info_nce(a, c, positive, 0.7), (anchors, candidates))
    expected = F.cross_entropy(anchors @ candidates.T / 0.7, positive, reduction="none")
    assert torch.allclose(info_nce(anchors, candidates, positive, 0.7), expected)


def test_order_of_samples_and_of_views_does_not_matter():
    z1, z2 = pair(11, 8, torch.float64)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(3))
    plain = nt_xent(z1, z2, 0.5)
    assert torch.allclose(nt_xent(z1[order], z2[order], 0.5), plain.view(2, -1)[:, order].flatten())
    assert torch.allclose(nt_xent(z2, z1, 0.5), plain.view(2, -1).flip(0).flatten())


def test_closed_forms():
    same = torch.ones(8, 4)
    assert torch.allclose(nt_xent(same, same, 0.5), torch.full((16,), math.log(15)))
    apart = torch.eye(8)
    expected = -math.log(math.e / (math.e + 14))
    assert torch.allclose(nt_xent(apart, apart, 1.0), torch.full((16,), expected))


def test_scale_of_projections_does_not_matter():
    z1, z2 = pair(9, 8)
    assert torch.allclose(nt_xent(z1 * 1e3, z2 * 1e-3, 0.5), nt_xent(z1, z2, 0.5), rtol=1e-5)


def test_no_matrix_is_kept_for_backward():
    z1, z2 = pair(512, 16)
    kept: dict[int, int] = {}

    def note(t: torch.Tensor) -> torch.Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        nt_xent(z1, z2, 0.5).mean().backward()
    assert sum(kept.values()) < 0.15 * 1024 * 1024 * 4


def test_autocast_does_not_reach_the_similarities():
    exact = pair(32, 16)
    plain = nt_xent(*exact, 0.1)
    expected = torch.autograd.grad(plain.mean(), exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = nt_xent(*exact, 0.1)
        gradients = torch.autograd.grad(under.mean(), exact)
    assert under.dtype == torch.float32
    assert torch.equal(under, plain)
    assert all(torch.equal(g, e) for g, e in zip(gradients, expected, strict=True))
    half = [z.detach().bfloat16().requires_grad_() for z in exact]
    assert nt_xent(*half, 0.1).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((0.0, "global"), "temperature"), ((0.5, "all"), "global, local")],
)
def test_bad_input_is_told_in_a_sentence(arguments, word):
    with pytest.raises(UsageError, match=word):
        nt_xent(*pair(4, 4), *arguments)
    with pytest.raises(UsageError, match="one shape"):
        nt_xent(torch.ones(4, 2), torch.ones(3, 2), 0.5)
