"""The algebra of views: laws of the group, and the test that gives it its meaning, x'(u) = x(E12 u)."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stec import affine
from stec.frames import ego

DIMENSIONS = st.integers(1, 3)
few = settings(max_examples=25, deadline=None)


def maps(dimension: int, seed: int, num: int = 3, batch: tuple[int, ...] = (4,)) -> list[Tensor]:
    """Well-conditioned affine maps with rotation, shear and mirroring: [..., d+1, d+1] in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*batch, *shape, generator=generator, dtype=torch.float64)

    each = []
    for _ in range(num):
        rotation = torch.linalg.qr(normal(dimension, dimension)).Q
        scale = 0.3 + torch.rand(*batch, dimension, generator=generator, dtype=torch.float64)
        shear = torch.eye(dimension, dtype=torch.float64) + 0.3 * normal(dimension, dimension).triu(1)
        each.append(affine.homogeneous(rotation @ torch.diag_embed(scale) @ shear, normal(dimension)))
    return each


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-10)


@few
@given(DIMENSIONS, st.integers(0, 2**31))
def test_maps_are_a_group(dimension, seed):
    a, b, c = maps(dimension, seed)
    one = affine.identity(dimension).expand_as(a)
    assert close(affine.compose(affine.compose(a, b), c), affine.compose(a, affine.compose(b, c)))
    assert close(affine.compose(a, one), a)
    assert close(affine.compose(one, a), a)
    assert close(affine.compose(a, affine.invert(a)), one)
    assert close(affine.compose(affine.invert(a), a), one)
    assert close(affine.invert(affine.invert(a)), a)
    assert close(affine.invert(affine.compose(a, b)), affine.compose(affine.invert(b), affine.invert(a)))


@few
@given(DIMENSIONS, st.integers(0, 2**31))
def test_composing_maps_is_mapping_twice(dimension, seed):
    a, b, _ = maps(dimension, seed)
    points = torch.randn(4, 7, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert close(affine.apply(affine.compose(a, b), points), affine.apply(a, affine.apply(b, points)))
    assert close(affine.apply(affine.invert(a), affine.apply(a, points)), points)


@few
@given(DIMENSIONS, st.integers(0, 2**31))
def test_the_egocentric_action_follows_its_laws(dimension, seed):
    first, second, third = maps(dimension, seed)
    (world,) = maps(dimension, seed + 1, num=1, batch=())
    e12, e23, e13 = ego.relate(first, second), ego.relate(second, third), ego.relate(first, third)
    assert close(e13, affine.compose(e12, e23))
    assert close(ego.relate(second, first), affine.invert(e12))
    assert close(ego.relate(first, first), affine.identity(dimension).expand_as(first))
    # Whoever re-coordinatises the world changes both windows, and not what is felt.
    assert close(ego.relate(affine.compose(world, first), affine.compose(world, second)), e12)


def signal(points: Tensor) -> Tensor:
    """An analytic signal on points [..., d]: waves that tell every direction apart."""
    phases = points @ torch.tensor([1.3, -0.7, 2.1], dtype=torch.float64)[: points.shape[-1]]
    return torch.sin(phases) + 0.3 * torch.cos(2.3 * points[..., 0]) + 0.1 * points.sum(-1).square()


@few
@given(DIMENSIONS, st.integers(0, 2**31))
def test_warping_the_first_view_by_the_action_gives_the_second(dimension, seed):
    first, second, _ = maps(dimension, seed)
    u = torch.rand(4, 50, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1

    def view(window: Tensor, points: Tensor) -> Tensor:
        return signal(affine.apply(window, points))

    seen = view(second, u)
    warped = view(first, affine.apply(ego.relate(first, second), u))
    assert (warped - seen).abs().max() < 1e-12
    # In the other order it is not the observer's action: the error is of the order of the signal.
    wrong = view(first, affine.apply(affine.compose(second, affine.invert(first)), u))
    assert (wrong - seen).abs().max() > 1e-3


def test_two_dimensions_are_the_theta_of_affine_grid():
    (matrix,) = maps(2, seed=5, num=1)
    height, width = 5, 9
    grid = F.affine_grid(matrix[:, :-1], [len(matrix), 1, height, width], align_corners=False)
    x = (2 * torch.arange(width, dtype=torch.float64) + 1) / width - 1
    y = (2 * torch.arange(height, dtype=torch.float64) + 1) / height - 1
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).view(1, -1, 2).expand(len(matrix), -1, -1)
    assert close(affine.apply(matrix, pixels), grid.reshape(len(matrix), -1, 2))


def test_a_window_maps_its_corners_to_its_edges():
    window = affine.window(torch.tensor([0.25, -0.5]), torch.tensor([0.5, -0.25]))
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    assert affine.apply(window, corners).tolist() == [[-0.25, -0.25], [0.75, -0.75]]


def test_entries_and_their_names_go_together():
    assert affine.entry_names("xy") == [
        "linear_xx",
        "linear_xy",
        "translation_x",
        "linear_yx",
        "linear_yy",
        "translation_y",
    ]
    assert affine.entry_names("t") == ["linear_tt", "translation_t"]
    matrix = affine.homogeneous(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0, 6.0]))
    assert affine.entries(matrix).tolist() == [1, 2, 5, 3, 4, 6]
    for axes in ("t", "xy", "xyz"):
        assert len(affine.entry_names(axes)) == affine.entries(affine.identity(len(axes))).numel()


def test_a_window_without_extent_has_no_inverse():
    flat = affine.window(torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    with pytest.raises(torch.linalg.LinAlgError):
        affine.invert(flat)


def test_autocast_does_not_blur_where_a_window_lies():
    first, second, _ = (m.float() for m in maps(2, seed=3))
    points = torch.rand(4, 5, 2)
    exact = ego.relate(first, second), affine.apply(first, points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = ego.relate(first, second), affine.apply(first, points)
    assert all(torch.equal(a, b) for a, b in zip(exact, under, strict=True))
