"""torchvision is the oracle for the pixels of a crop; the group laws and the warp for its matrix."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from stec import affine
from stec.actions import Compose, sample_views
from stec.catalogue import find
from stec.errors import UsageError
from stec.nodes import checked, keywords
from stec.rng import make_keys
from stec_vision.actions import AffineCrop


def draw(space, num, extent=(32, 32), view=0, seed=0):
    return space.sample(make_keys(seed, 0, torch.arange(num)), torch.tensor([extent]).expand(num, 2), view)


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def boxes(*rows, extent=(32, 32)):
    """Actions of the given (top, left, height, width, mirrored[, angle, shear])."""
    return torch.tensor([[*row[:5], *extent, *(row[5:] or (0, 0))] for row in rows], dtype=torch.float32)


def torchvisions(x, action, size):
    each = []
    for image, (top, left, height, width, mirrored) in zip(x, action[:, :5].tolist(), strict=True):
        box = (int(top), int(left), int(height), int(width))
        view = v2.functional.resized_crop(image, *box, [size, size], antialias=True)
        each.append(view.flip(-1) if mirrored else view)
    return torch.stack(each)


# -- pixels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extent", "size"), [((32, 32), 32), ((96, 96), 32), ((20, 45), 64), ((150, 100), 24), ((75, 100), 224)]
)
def test_pixels_are_torchvisions_shrinking_and_enlarging(extent, size):
    space = AffineCrop(size=size)
    action = draw(space, 24, extent)
    assert 0 < action[:, 4].sum() < 24
    x = picture(24, 3, *extent)
    error = (space.act(x, action, 0) - torchvisions(x, action, size)).abs().max()
    assert error <= 1e-5


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24)).flatmap(
        lambda t: st.tuples(st.just(t), st.integers(1, t[0]), st.integers(1, t[1]), st.booleans(), st.floats(0, 1))
    )
)
@settings(max_examples=60, deadline=None)
def test_any_box_of_any_source_is_torchvisions(case):
    (tall, wide, size), height, width, mirrored, where = case
    top, left = round(where * (tall - height)), round((1 - where) * (wide - width))
    action = boxes((top, left, height, width, mirrored), extent=(tall, wide))
    x = picture(1, 3, tall, wide, seed=tall)
    torch.testing.assert_close(
        AffineCrop(size=size).act(x, action, 0), torchvisions(x, action, size), rtol=0, atol=1e-5
    )


def test_a_window_lets_gradients_through():
    space, x = AffineCrop(size=8), torch.rand(600, 3, 12, 12, requires_grad=True)
    action = space.sample(make_keys(0, 0, torch.arange(600)), torch.tensor([[12, 12]]).expand(600, 2), 0)
    space.act(x, action, 0).sum().backward()
    torch.testing.assert_close(x.grad.sum(), torch.tensor(600.0 * 3 * 64))


def test_a_whole_window_of_the_right_size_is_the_picture_itself():
    x = picture(2, 3, 32, 32)
    action = boxes((0, 0, 32, 32, 0), (0, 0, 32, 32, 1))
    seen = AffineCrop(size=32).act(x, action, 0)
    assert torch.equal(seen, torch.stack([x[0], x[1].flip(-1)]))


def test_nothing_beyond_the_window_is_seen():
    action = boxes((8, 8, 16, 12, 0))
    x = picture(1, 3, 32, 32)
    hidden = torch.full_like(x, 100.0)
    hidden[:, :, 8:24, 8:20] = x[:, :, 8:24, 8:20]
    for size in (8, 64):
        space = AffineCrop(size=size)
        assert torch.equal(space.act(x, action, 0), space.act(hidden, action, 0))


@pytest.mark.parametrize("options", [{}, {"rotation": 0.5, "shear": 0.2}])
def test_a_view_does_not_depend_on_its_batch_or_on_autocast(options):
    space = AffineCrop(size=24, **options)
    action, x = draw(space, 9, (40, 50)), picture(9, 3, 40, 50)
    together = space.act(x, action, 0)
    alone = torch.cat([space.act(x[i : i + 1], action[i : i + 1], 0) for i in range(9)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert torch.equal(space.act(x, action, 0), together)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(space.act(x, action, 0), together)


# -- rotation and shear ------------------------------------------------------------------------------------------------


def test_enlarging_by_the_grid_agrees_with_the_upright_crop_off_the_border():
    action, x = boxes((10, 8, 12, 16, 1)), picture(1, 3, 32, 32)
    upright = AffineCrop(size=48).act(x, action, 0)
    grid = AffineCrop(size=48, rotation=1.0).act(x, action, 0)
    torch.testing.assert_close(grid[..., 3:-3, 3:-3], upright[..., 3:-3, 3:-3], rtol=0, atol=1e-5)
    assert (grid - upright).abs().max() > 1e-3


def test_a_quarter_turn_is_rot90():
    """The window is turned clockwise (as seen, y down), so what it shows turns the other way."""
    x = picture(1, 3, 32, 32)
    seen = AffineCrop(size=32, rotation=3.0).act(x, boxes((0, 0, 32, 32, 0, torch.pi / 2, 0)), 0)
    torch.testing.assert_close(seen, x.rot90(1, (2, 3)), rtol=0, atol=1e-4)


def test_a_turned_window_keeps_its_shape_in_pixels_and_a_sheared_one_its_area():
    space = AffineCrop(size=32, rotation=3.0, shear=1.0)
    extent = (40, 100)
    action = boxes((4, 20, 10, 30, 1, 0.7, 0), (4, 20, 10, 30, 0, 0.7, 0.4), extent=extent)
    pixels = torch.diag(torch.tensor([50.0, 20.0], dtype=torch.float64))
    sides = pixels @ space.matrix(action)[:, :2, :2]
    torch.testing.assert_close(sides.norm(dim=1)[0], torch.tensor([15.0, 5.0], dtype=torch.float64))
    assert sides[0, :, 0] @ sides[0, :, 1] == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(torch.linalg.det(sides), torch.tensor([-75.0, 75.0], dtype=torch.float64))
    across, upright = sides[1, :, 0], sides[1, :, 1]
    cosine = (across @ upright) / (across.norm() * upright.norm())
    assert torch.asin(cosine) == pytest.approx(0.4, abs=1e-6)


def test_angles_are_uniform_within_their_limits_and_zero_by_default():
    action = draw(AffineCrop(size=32, rotation=0.5, shear=0.1), 4000)
    for column, limit in ((7, 0.5), (8, 0.1)):
        assert action[:, column].abs().max() <= limit
        assert action[:, column].std() == pytest.approx(limit / 3**0.5, rel=0.05)
    assert torch.corrcoef(action[:, 7:].T)[0, 1].abs() < 0.06
    assert not draw(AffineCrop(size=32), 100)[:, 7:].any()


# -- the matrix and the group ------------------------------------------------------------------------------------------


def test_the_matrix_of_an_upright_window_is_that_of_its_box():
    action = boxes((3, 5, 10, 20, 1), extent=(40, 80))
    expected = torch.tensor([[-20 / 80, 0, 30 / 80 - 1], [0, 10 / 40, 16 / 40 - 1], [0, 0, 1]], dtype=torch.float64)
    assert torch.equal(AffineCrop(size=8).matrix(action)[0], expected)


@pytest.mark.parametrize("options", [{}, {"rotation": 3.0, "shear": 0.8}])
@pytest.mark.parametrize("extent", [(32, 32), (375, 500)])
def test_group_laws_of_the_egocentric_action(options, extent):
    space = AffineCrop(size=32, **options)
    one, two, three = (draw(space, 200, extent, view) for view in range(3))

    def matrix(a, b):
        return square(space.relative(a, b).values.double())

    torch.testing.assert_close(matrix(one, three), matrix(one, two) @ matrix(two, three), rtol=0, atol=2e-4)
    torch.testing.assert_close(matrix(two, one), affine.invert(matrix(one, two)), rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(matrix(one, one), torch.eye(3).double().expand(200, 3, 3), rtol=0, atol=1e-6)


def square(entries):
    """[B, 6] -> [B, 3, 3]."""
    top = entries.view(-1, 2, 3)
    return affine.homogeneous(top[:, :, :2], top[:, :, 2])


def waves(p):
    """A smooth picture, known everywhere: values at points [..., 2] of [-1, 1]^2."""
    x, y = p.unbind(-1)
    return torch.sin(3 * x + 1) * torch.cos(2 * y) + 0.3 * torch.sin(5 * x * y)


def corners(size):
    """Pixel centres of a view in its own coordinates, [size * size, 2], x fastest."""
    line = (torch.arange(size, dtype=torch.float64) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


@pytest.mark.parametrize("options", [{}, {"rotation": 3.0, "shear": 0.8}])
def test_warping_view_1_with_the_action_gives_view_2_where_pictures_are_functions(options):
    space = AffineCrop(size=16, **options)
    a, b = draw(space, 100, (30, 50)), draw(space, 100, (30, 50), view=1)
    first, second = space.matrix(a), space.matrix(b)
    felt = square(affine.entries(affine.compose(affine.invert(first), second)))
    told = square(space.relative(a, b).values.double())
    u = corners(16).expand(100, -1, 2)
    expected = waves(affine.apply(second, u))
    assert (waves(affine.apply(first, affine.apply(felt, u))) - expected).abs().max() < 1e-13
    assert (waves(affine.apply(first, affine.apply(told, u))) - expected).abs().max() < 5e-6
    backwards = affine.compose(second, affine.invert(first))
    assert (waves(affine.apply(first, affine.apply(backwards, u))) - expected).abs().max() > 0.1


@pytest.mark.parametrize("options", [{}, {"rotation": 0.3, "shear": 0.2}])
def test_warping_the_pixels_of_view_1_gives_those_of_view_2(options):
    """View 1 shows the middle of a sampled analytic picture, larger than any view 2, which lies inside of it."""
    space = AffineCrop(size=128, **options)
    source = waves(corners(256)).float().view(1, 1, 256, 256).expand(40, 3, -1, -1)
    b = draw(AffineCrop(size=128, scale=(0.1, 0.2), **options), 40, (140, 140), view=1)
    a = boxes((16, 16, 224, 224, 1), extent=(256, 256)).expand(40, -1).clone()
    a[::2, 4] = 0
    b[:, :2] += 58
    b[:, 5:7] = 256
    theta = space.relative(a, b).values.view(40, 2, 3)
    grid = F.affine_grid(theta, [40, 3, 128, 128], align_corners=False)
    warped = F.grid_sample(space.act(source, a, 0), grid, padding_mode="border", align_corners=False)
    error = (warped - space.act(source, b, 1)).abs()
    # Off the border: there, an upright crop repeats its last pixel where the warp goes on.
    assert error[..., 2:-2, 2:-2].max() < 0.003


# -- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 0}, "actions.affine_crop.size=0"),
        ({"scale": [0.0, 1.0]}, "scale"),
        ({"scale": [0.5, 1.5]}, "scale"),
        ({"scale": [0.5]}, "scale"),
        ({"ratio": [2.0, 1.0]}, "ratio"),
        ({"ratio": [1.0, 2.0, 3.0]}, "ratio"),
        ({"flip": -0.1}, "flip"),
        ({"rotation": 90.0}, "radians"),
        ({"shear": -0.1}, "radians"),
        ({"frame": "egocentric"}, "ego, allocentric"),
    ],
)
def test_refusals(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        AffineCrop(**{"size": 32, **options})


@pytest.mark.parametrize("name", ["cifar", "stl", "imagenet"])
def test_recipes_list_every_keyword_and_build(name):
    text = (Path(__file__).parents[2] / "recipes" / "actions" / f"{name}.yaml").read_text()
    nodes = yaml.safe_load(text.replace("${augment}", "fast"))
    classes = {part: find("action_space", part) for part in nodes}
    space = Compose({part: classes[part](**checked(classes[part], node, part)) for part, node in nodes.items()})
    for part, node in nodes.items():
        assert set(node) == set(keywords(type(space.parts[part])))
    size = nodes["affine_crop"]["size"]
    actions = sample_views(space, make_keys(0, 0, torch.arange(3)), torch.tensor([[50, 60]]).expand(3, 2), 2)
    seen = space.act(picture(3, 3, 50, 60), actions[0], 0)
    assert seen.shape == (3, 3, size, size)
    assert seen.min() >= 0
    assert seen.max() <= 1
