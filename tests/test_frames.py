"""The frames: closed forms, and the release against a literal account of it, pair by pair, in numpy."""

import math
import pickle

import numpy as np
import pytest
import torch
from toy_space import Windows

from stec import affine
from stec.errors import UsageError
from stec.frames import FRAMES, allocentric, augself, ego, frame, published
from stec.rng import make_keys

NAMES = affine.entry_names("xy")


def drawn(side: int, num: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    space, keys = Windows(), make_keys(11, 0, torch.arange(num))
    extent = torch.tensor([[side, side]]).expand(num, 2)
    return space.sample(keys, extent, 0), space.sample(keys, extent, 1)


def theta_of(action: torch.Tensor) -> np.ndarray:
    """The release's window of one crop: x to the right, y upwards; scale negated if mirrored."""
    i, j, h, w, mirrored, height, width = action.tolist()
    theta = np.eye(3, dtype=np.float32)
    theta[0, 0] = -w / width if mirrored else w / width
    theta[1, 1] = h / height
    theta[0, 2] = w / width - 1 + 2 * j / width
    theta[1, 2] = -h / height + 1 - 2 * i / height
    return theta


def its_inverse(theta: np.ndarray) -> np.ndarray:
    """A right 2x2 inverse beside a translation that is merely negated."""
    inverse = np.eye(3, dtype=np.float32)
    inverse[:2, :2] = np.linalg.inv(theta[:2, :2])
    inverse[:2, 2] = -theta[:2, 2]
    return inverse


def its_bin(value: np.float32, low: float, high: float, num_bins: int) -> int:
    place = (float(value) - low) / (high - low) * num_bins - 0.5
    return min(max(round(place), 0), num_bins - 1)  # Python, too, rounds half to even


@pytest.mark.parametrize("side", [32, 96, 375])
def test_the_release_pair_by_pair(side):
    a, b = drawn(side)
    space = Windows("published")
    found = space.relative(a, b).values
    for one, other, row in zip(a, b, found, strict=True):
        expected = (theta_of(other) @ its_inverse(theta_of(one)))[:2].reshape(-1)
        assert np.abs(row.numpy() - expected).max() < 2e-6
        if side == 32:
            supports = published.limits(NAMES)
            bins = [its_bin(v, *limit, 6) for v, limit in zip(expected, supports.tolist(), strict=True)]
            assert published.assign(row[None], supports, 6)[0].tolist() == bins


def test_the_release_in_closed_form():
    a, b = drawn(32)
    space = Windows()
    first, second = space.matrix(a), space.matrix(b)
    found = published.relate(first, second)
    up = torch.tensor([1.0, -1.0], dtype=torch.float64)
    scale_1, scale_2 = (m[:, :2, :2].diagonal(dim1=1, dim2=2) for m in (first, second))
    move_1, move_2 = first[:, :2, 2] * up, second[:, :2, 2] * up
    assert found.dtype == first.dtype
    assert torch.allclose(found[:, :2, :2], torch.diag_embed(scale_2 / scale_1), atol=1e-5)
    assert torch.allclose(found[:, :2, 2], move_2 - scale_2 * move_1, atol=1e-6)
    # Same linear part as the egocentric action, another translation: the release's is no group action.
    exact = ego.relate(first, second)
    assert torch.allclose(found[:, :2, :2], exact[:, :2, :2], atol=1e-5)
    assert (found[:, :2, 2] - exact[:, :2, 2]).abs().max() > 0.5


def test_ties_of_the_release_go_to_the_even_bin_whatever_the_precision():
    # Zero is an edge of six bins over a symmetric support, and so is +-2/3 of a scale, within float32.
    supports = published.limits(["linear_xx", "translation_x"])
    values = torch.tensor(
        [[0.0, 0.0], [4 / 3, 1 / 3], [2.0, 0.5], [-9.0, -9.0], [9.0, 9.0], [1.0, 0.1]], dtype=torch.float64
    )
    found = published.assign(values, supports, 6)
    assert found[[0, 2, 3, 4, 5]].tolist() == [[2, 2], [5, 5], [0, 0], [5, 5], [4, 3]]
    assert torch.equal(found, published.assign(values.float(), supports, 6))


def test_autocast_does_not_touch_the_release():
    space = Windows()
    first, second = (space.matrix(t).float() for t in drawn(32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = published.relate(first, second)
    assert torch.equal(under, published.relate(first, second))


def test_the_egocentric_frame_in_closed_form():
    a, b = drawn(48)
    space = Windows()
    found = ego.relate(space.matrix(a), space.matrix(b))
    for one, other, matrix in zip(a.tolist(), b.tolist(), found.tolist(), strict=True):
        (i1, j1, h1, w1, m1, *_), (i2, j2, h2, w2, m2, *_) = one, other
        sign = -1 if m1 else 1
        move_x = sign * ((2 * j2 + w2) - (2 * j1 + w1)) / w1
        expected = [[(-1 if m1 != m2 else 1) * w2 / w1, 0, move_x], [0, h2 / h1, ((2 * i2 + h2) - (2 * i1 + h1)) / h1]]
        assert np.allclose(matrix[:2], expected, atol=1e-12)
        assert matrix[2] == [0, 0, 1]


def test_one_dimension_is_a_speed_and_a_move():
    first = affine.window(torch.tensor([0.5]).double(), torch.tensor([0.25]).double())
    second = affine.window(torch.tensor([0.0]).double(), torch.tensor([0.5]).double())
    assert ego.relate(first, second).tolist() == [[2, -2], [0, 1]]
    assert allocentric.relate(first, second).tolist() == [[0.25, -0.5], [0, 1]]
    assert published.relate(first, second).tolist() == [[2, -0.25], [0, 1]]


def test_allocentric_is_the_difference_of_the_windows():
    a, b = drawn(32)
    space = Windows()
    first, second = space.matrix(a), space.matrix(b)
    found = allocentric.relate(first, second)
    assert torch.equal(affine.entries(found), affine.entries(second) - affine.entries(first))
    assert found[:, 2].tolist() == [[0, 0, 1]] * len(a)
    # To a bystander there and back is nothing, wherever one started; moving the world as a whole is not seen either.
    assert torch.allclose(affine.entries(allocentric.relate(second, first)), -affine.entries(found))
    moved = [
        affine.compose(affine.window(torch.tensor([0.3, -0.1]).double(), torch.ones(2).double()), m)
        for m in (first, second)
    ]
    assert torch.allclose(allocentric.relate(*moved), found, atol=1e-12)


@pytest.mark.parametrize("side", [32, 375])
def test_augself_pair_by_pair(side):
    """As its authors tell a pair, from the boxes in fractions: view 1 minus view 2, in view 1's handedness."""
    a, b = drawn(side)
    found = Windows("augself").relative(a, b).values
    for one, other, row in zip(a.tolist(), b.tolist(), found.tolist(), strict=True):
        (i1, j1, h1, w1, m1, *_), (i2, j2, h2, w2, m2, *_) = ([v / side for v in x[:4]] + x[4:] for x in (one, other))
        x1, x2, y1, y2 = j1 + w1 / 2, j2 + w2 / 2, i1 + h1 / 2, i2 + h2 / 2
        if m1:
            x1, x2 = 1 - x1, 1 - x2
        shared = float(m1 == m2)
        assert row == pytest.approx([x1 - x2, y1 - y2, w1 - w2, h1 - h2, 1 - shared], abs=1e-6)


def test_augself_there_and_back():
    a, b = drawn(48)
    space = Windows("augself")
    there, back = space.relative(a, b).values, space.relative(b, a).values
    same = there[:, 4] == 0
    assert 0 < same.sum() < len(same)
    torch.testing.assert_close(back[same, :4], -there[same, :4])
    hand = torch.tensor([1.0, -1, -1, -1])  # of opposite handedness: each tells the first axis in its own
    torch.testing.assert_close(back[~same, :4], there[~same, :4] * hand)
    assert torch.equal(back[:, 4], there[:, 4])
    assert torch.equal(space.relative(a, a).values, torch.zeros(len(a), 5))


def test_augself_in_one_dimension_and_of_a_window_that_is_turned():
    first = affine.window(torch.tensor([0.5]).double(), torch.tensor([0.25]).double())
    second = affine.window(torch.tensor([0.0]).double(), torch.tensor([0.5]).double())
    assert augself.relate(first, second).tolist() == [0.25, -0.25, 0]
    quarter = torch.tensor([[0.0, -0.5, 0], [0.3, 0, 0], [0, 0, 1]]).double()  # as wide as it was high
    assert augself.relate(quarter, affine.identity(2)).tolist() == pytest.approx([0, 0, -0.5, -0.7, 0])


def test_frames_by_name():
    assert {name: frame(name) for name in FRAMES} == FRAMES
    assert set(FRAMES) == {"ego", "allocentric", "augself", "published"}
    with pytest.raises(
        UsageError, match=r"frame='egocentric' is unknown: choose one of ego, allocentric, augself, published\."
    ):
        frame("egocentric")


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("axes", ["t", "xy"])
def test_a_frame_tells_as_many_values_as_it_has_components_and_travels_with_its_space(name, axes):
    known = pickle.loads(pickle.dumps(frame(name)))
    generator = torch.Generator().manual_seed(0)
    centre, half = (torch.rand(2, 7, len(axes), generator=generator).double() for _ in range(2))
    values = known.relate(*(affine.window(c, h) for c, h in zip(centre, half, strict=True)))
    components = known.components(axes)
    assert values.shape == (7, len(components))
    assert len({c.name for c in components}) == len(components)
    matrices = {"ego": ego, "allocentric": allocentric, "published": published}
    if name in matrices:
        first, second = (affine.window(c, h) for c, h in zip(centre, half, strict=True))
        assert torch.equal(values, affine.entries(matrices[name].relate(first, second)))
        assert [c.name for c in components] == affine.entry_names(axes)


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("ego", {"linear": "ratio", "translation": "half-windows"}),
        ("allocentric", {"linear": "half-extents", "translation": "half-extents"}),
        ("published", {"linear": "ratio", "translation": "half-extents"}),
        ("augself", {"centre": "extents", "size": "extents", "mirrored": "yes or no"}),
    ],
)
def test_components_have_the_units_of_their_frame(name, units):
    components = frame(name).components("xy")
    assert {c.name.partition("_")[0]: c.unit for c in components} == units


def test_bins_of_the_release_have_its_known_chance():
    space = Windows("published")
    a, b = drawn(32, num=20_000)
    number = published.assign(space.relative(a, b).values, published.limits(NAMES), 6)
    entropies = []
    for column in number.T:
        mass = torch.bincount(column, minlength=6).double() / len(column)
        entropies.append(float(torch.special.entr(mass).sum()))
    assert [round(e, 2) for e in entropies[1::2]] == pytest.approx([0, 0, 1.765], abs=0.02)
    assert sum(entropies) / 6 == pytest.approx(1.028, abs=0.005)
    assert math.log(6) - sum(entropies) / 6 > 0.7
