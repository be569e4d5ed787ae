"""The law of a crop is torchvision's; the action has its known quantiles and bins; which pairs may be learnt from."""

import pytest
import torch
from torchvision.transforms import v2

from stec import affine
from stec.actions import Compose
from stec.bins import Bins
from stec.manipulation.binned import Binned
from stec.rng import make_keys
from stec_vision.actions import AffineCrop

CIFAR = torch.tensor([[32, 32]])


def draw(space, num, extent=(32, 32), view=0, seed=0):
    return space.sample(make_keys(seed, 0, torch.arange(num)), torch.tensor([extent]).expand(num, 2), view)


def boxes(*rows):
    """Actions of the given (top, left, height, width, mirrored) of 32 x 32 sources."""
    return torch.tensor([[*row, 32, 32, 0, 0] for row in rows], dtype=torch.float32)


# -- the law -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extent", [(32, 32), (375, 500)])
def test_boxes_follow_the_law_of_torchvision(extent):
    ours = draw(AffineCrop(size=32), 40_000, extent)[:, :4].double()
    assert torch.equal(ours, ours.round())
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 2:] >= 1).all()
    assert (ours[:, :2] + ours[:, 2:] <= torch.tensor(extent)).all()
    torch.manual_seed(0)
    law, source = v2.RandomResizedCrop(32), torch.empty(1, 1, 1).expand(3, *extent)
    params = [law.make_params([source]) for _ in range(4_000)]
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in params]).double()

    def facts(boxes):
        top, left, height, width = boxes.T
        return height, width, height * width, (width / height).log(), 2 * left + width, 2 * top + height

    for a, b in zip(facts(ours), facts(theirs), strict=True):
        where = torch.cat([a, b])
        below = [torch.searchsorted(v.sort().values, where, right=True) / len(v) for v in (a, b)]
        # Kolmogorov-Smirnov: by chance this far apart once in a thousand times.
        assert (below[0] - below[1]).abs().max() < 1.95 * (1 / 40_000 + 1 / 4_000) ** 0.5


def test_quantiles_of_the_relative_action_on_cifar():
    """Against a simulation of a million pairs."""
    space = AffineCrop(size=32)
    a, b = draw(space, 100_000), draw(space, 100_000, view=1)
    values = space.relative(a, b).values
    levels = torch.tensor([0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])
    expected = {
        0: [-2.56, -1.80, -1.45, -1.00, None, 1.00, 1.44, 1.80, 2.56],
        2: [-1.92, -1.06, -0.706, -0.310, 0, 0.310, 0.708, 1.06, 1.91],
        4: [0.355, 0.464, 0.556, 0.750, 1.0, 1.333, 1.80, 2.15, 2.82],
        5: [-1.92, -1.06, -0.706, -0.310, 0, 0.310, 0.708, 1.06, 1.91],
    }
    for column, row in expected.items():
        for level, found, wanted in zip(levels.tolist(), values[:, column].quantile(levels).tolist(), row, strict=True):
            if wanted is not None:
                assert found == pytest.approx(wanted, rel=0.04, abs=0.012), (column, level)
    assert not values[:, [1, 3]].any()
    assert (values[:, 0] > 0).float().mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("extent", "box"), [((10, 100), (0, 43, 10, 13)), ((90, 10), (38, 0, 13, 10)), ((7, 8), None)])
def test_where_no_window_fits_the_largest_central_one_is_taken(extent, box):
    """A share of 1 of a long picture never has an allowed ratio; torchvision then falls back to the centre."""
    action = draw(AffineCrop(size=8, scale=(1.0, 1.0)), 50, extent)[:, :4]
    theirs = v2.RandomResizedCrop(8, scale=(1.0, 1.0)).make_params([torch.empty(3, *extent)])
    if box is not None:
        assert tuple(theirs[n] for n in ("top", "left", "height", "width")) == box
        assert torch.equal(action, torch.tensor([box]).float().expand(50, 4))
    assert (action[:, :2] + action[:, 2:] <= torch.tensor(extent)).all()


@pytest.mark.parametrize("extent", [(1, 1), (1, 1000), (1000, 1), (2, 3)])
def test_the_smallest_and_longest_sources_have_windows(extent):
    space = AffineCrop(size=4, ratio=(3.0, 4.0))
    action = draw(space, 50, extent)
    assert (action[:, 2:4] >= 1).all()
    assert (action[:, :2] + action[:, 2:4] <= torch.tensor(extent)).all()
    assert space.act(torch.rand(50, 3, *extent), action, 0).isfinite().all()


def test_flips_come_with_their_probability():
    for p in (0.0, 0.3, 1.0):
        assert draw(AffineCrop(size=32, flip=p), 4000)[:, 4].mean() == pytest.approx(p, abs=0.03)


def test_an_action_is_a_function_of_its_key_and_view():
    space = AffineCrop(size=32, rotation=1.0)
    keys, extent = make_keys(7, 3, torch.tensor([5, 6, 7])), CIFAR.expand(3, 2)
    action = space.sample(keys, extent, 1)
    assert torch.equal(space.sample(keys[1:2], extent[1:2], 1), action[1:2])
    assert not torch.equal(space.sample(keys, extent, 0), action)
    assert not torch.equal(space.sample(make_keys(7, 4, torch.tensor([5, 6, 7])), extent, 1), action)
    mixed = space.sample(keys, torch.tensor([[32, 32], [50, 80], [9, 9]]), 1)
    assert torch.equal(mixed[0], action[0])
    assert mixed[:, 5:7].tolist() == [[32, 32], [50, 80], [9, 9]]


# -- frames, bins and validity -----------------------------------------------------------------------------------------


def test_the_published_frame_and_bins_have_the_chance_of_the_release():
    space = Compose({"affine_crop": AffineCrop(size=32, frame="published")})
    model = Binned({"pooled": 8}, space, CIFAR, hidden=8, bins="published", keep_constant=True)
    assert model.bins.chance.mean().item() == pytest.approx(1.028, abs=0.005)
    assert model.bins.majority.mean().item() == pytest.approx(0.553, abs=0.005)


def test_occupancy_of_the_published_bins():
    space = AffineCrop(size=32, frame="published")
    relative = space.relative(draw(space, 100_000), draw(space, 100_000, view=1))
    bins = Bins(space.components, relative.values.double(), relative.valid, kind="published", num_bins=6)
    number = bins.assign(relative.values)
    share = torch.stack([torch.bincount(column, minlength=6) for column in number.T]) / 100_000
    translation = [0.126, 0.154, 0.223, 0.216, 0.154, 0.126]
    expected = [
        [0.128, 0.279, 0.093, 0.087, 0.290, 0.123],
        [0, 0, 1, 0, 0, 0],
        translation,
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0.175, 0.579, 0.246],
        translation,
    ]
    torch.testing.assert_close(share, torch.tensor(expected), rtol=0, atol=0.006)


@pytest.mark.parametrize(
    ("frame", "units"),
    [
        ("ego", {"ratio", "half-windows"}),
        ("allocentric", {"half-extents"}),
        ("published", {"ratio", "half-extents"}),
    ],
)
def test_components_have_names_and_units(frame, units):
    components = AffineCrop(size=32, frame=frame).components
    assert [c.name for c in components] == affine.entry_names("xy")
    assert {c.unit for c in components} == units


def polygon(space, action):
    """Corners [4, 2] of a window, in order."""
    square = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    return affine.apply(space.matrix(action[None])[0], square).tolist()


def clipped(subject, clip):
    """Sutherland-Hodgman: the part of one convex polygon inside another; its area by the shoelace formula."""

    def area(points):
        following = points[1:] + points[:1]
        return sum(p[0] * q[1] - q[0] * p[1] for p, q in zip(points, following, strict=True)) / 2

    if area(clip) < 0:
        clip = clip[::-1]
    points = subject
    for a, b in zip(clip, clip[1:] + clip[:1], strict=True):
        side = [(b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]) for p in points]
        kept = []
        for i, p in enumerate(points):
            q, s, t = points[i - 1], side[i], side[i - 1]
            if (s > 0) != (t > 0):
                kept.append([q[k] + (p[k] - q[k]) * t / (t - s) for k in (0, 1)])
            if s > 0:
                kept.append(p)
        points = kept
    return abs(area(points)) if points else 0.0


@pytest.mark.parametrize("options", [{}, {"rotation": 3.0, "shear": 0.8}])
def test_require_overlap_is_told_by_the_area_in_common(options):
    space = AffineCrop(size=32, scale=(0.08, 0.2), require_overlap=True, **options)
    a, b = draw(space, 300, (40, 60)), draw(space, 300, (40, 60), view=1)
    common = [clipped(polygon(space, p), polygon(space, q)) for p, q in zip(a, b, strict=True)]
    valid = space.trusted(a, b)
    assert valid.tolist() == [area > 1e-9 for area in common]
    assert 10 < valid.sum() < 290
    relative = space.relative(a, b)
    assert torch.equal(relative.valid, valid[:, None].expand(-1, 6))
    assert AffineCrop(size=32, scale=(0.08, 0.2), **options).trusted(a, b).all()


def test_windows_that_touch_do_not_overlap():
    space = AffineCrop(size=32, require_overlap=True)
    first = boxes((0, 0, 13, 7, 0), (3, 3, 9, 11, 1), (0, 0, 10, 10, 0))
    second = boxes((2, 7, 11, 17, 1), (12, 3, 5, 5, 0), (9, 9, 10, 10, 0))
    assert space.trusted(first, second).tolist() == [False, False, True]


def test_about_two_in_a_hundred_pairs_are_disjoint():
    space = AffineCrop(size=32, require_overlap=True)
    valid = space.trusted(draw(space, 50_000), draw(space, 50_000, view=1))
    assert 0.015 < 1 - valid.float().mean() < 0.021
