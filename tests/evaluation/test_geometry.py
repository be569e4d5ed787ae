"""Distances of class centroids: closed forms, an independent oracle, symmetries; and what is done alone."""

import math

import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.neighbors import NearestCentroid
from torch import nn

from stec.actions import Compose
from stec.encoder import Encoder, Features
from stec.errors import NonFinite, UsageError
from stec.evaluation.features import Raw, Table
from stec.evaluation.geometry import Alone, Reading, centroids, lines, moved, plain, read, spread
from stec.rng import make_keys, uniform
from stec.views import Views
from stec_vision.actions import AffineCrop

KEYS = make_keys(0, 0, torch.arange(40))
EXTENT = torch.tensor([[8, 8]]).expand(40, 2)


class Shift:
    """Adds to each of two numbers what its own parameter says; does nothing at 0, which is how it keeps still."""

    num_params, components = 2, ()
    aspects = {"first": (0,), "second": (1,)}  # noqa: RUF012

    def sample(self, keys, extent, view):
        return uniform(keys, view, "shift", 2).float() + 1

    def still(self, extent):
        return torch.zeros(len(extent), 2)

    def act(self, x, action, view):
        return x + action


class Double:
    """A nuisance: it has no action that does nothing."""

    num_params, components = 1, ()

    def sample(self, keys, extent, view):
        return 2 + uniform(keys, view, "double", 1).float()

    def act(self, x, action, view):
        return x * action


SPACE = Compose({"shift": Shift(), "double": Double()})


def table(num=60, width=5, classes=3, seed=0):
    numbers = torch.Generator().manual_seed(seed)
    y = torch.arange(num) % classes
    return Table(torch.randn(num, width, generator=numbers) + 3 * y[:, None], y)


def drawn(space, x):
    return space.act(x, space.sample(KEYS, EXTENT, 0), 0)


def test_a_class_that_is_moved_as_a_whole_is_as_far_away_as_its_step():
    still = table()
    steps = torch.tensor([[3.0, 4, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
    found = moved(still, still._replace(x=still.x + steps[still.y]), spread(still))
    assert found.distance == pytest.approx((5 + 1 + 0) / 3, rel=1e-6)
    assert found.by_chance == pytest.approx(0, abs=1e-6)


def test_the_units_are_those_of_a_triangle():
    """Three classes of two samples each, 0.5 to the left and right of corners that are 3, 4 and 5 apart."""
    corners = torch.tensor([[0.0, 0], [3, 0], [0, 4]])
    half = torch.tensor([0.5, 0])
    still = Table(torch.cat([corners - half, corners + half]), torch.arange(6) % 3)
    unit = spread(still)
    assert (unit.within, unit.between) == (pytest.approx(0.5), pytest.approx(4.0))
    found = moved(still, still._replace(x=still.x + torch.tensor([0.0, 2])), unit)
    assert found == (pytest.approx(2), pytest.approx(0), pytest.approx(4), pytest.approx(0.5))


def test_centroids_and_their_distances_are_those_of_other_libraries():
    still = table(num=61, width=7, classes=4)
    theirs = NearestCentroid().fit(still.x.double().numpy(), still.y.numpy()).centroids_
    assert centroids(still).numpy() == pytest.approx(theirs, abs=1e-12)
    assert spread(still).between == pytest.approx(pdist(theirs).mean(), rel=1e-12)
    slow = sum(((x.double() - torch.from_numpy(theirs[y])) ** 2).sum() for x, y in zip(*still, strict=True)) / 61
    assert spread(still).within == pytest.approx(math.sqrt(slow), rel=1e-6)


def test_measures_without_a_unit_do_not_feel_a_scale_a_turn_or_an_offset():
    still = table()
    acted = still._replace(x=still.x + table(seed=1).x[:, [1, 0, 3, 4, 2]])
    turn = torch.linalg.qr(table(num=5, seed=2).x)[0]
    other, there = (t._replace(x=7 * t.x @ turn + 11) for t in (still, acted))
    before, after = moved(still, acted, spread(still)), moved(other, there, spread(other))
    assert after[2:] == pytest.approx(before[2:], rel=1e-4)
    assert after[:2] == pytest.approx([7 * number for number in before[:2]], rel=1e-4)


def test_what_chance_makes_of_steps_without_a_direction_is_foretold():
    numbers = torch.Generator().manual_seed(3)
    still = Table(torch.zeros(16, 4), torch.zeros(16, dtype=torch.int64))
    unit = spread(table())
    found = [moved(still, still._replace(x=torch.randn(16, 4, generator=numbers)), unit) for _ in range(400)]
    # E |mean|^2 = D / n = 4 / 16
    assert sum(f.distance**2 for f in found) / 400 == pytest.approx(0.25, rel=0.1)
    assert sum(f.by_chance**2 for f in found) / 400 == pytest.approx(0.25, rel=0.05)


def test_a_collapsed_encoder_has_no_units_and_other_samples_are_refused():
    flat = Table(torch.ones(6, 2), torch.arange(6) % 2)
    found = moved(flat, flat, spread(flat))
    assert found.distance == 0
    assert math.isnan(found.per_within)
    assert math.isnan(found.per_between)
    with pytest.raises(UsageError, match="the same ones, row by row"):
        moved(flat, flat._replace(y=flat.y.flip(0)), spread(flat))


def test_each_part_alone_does_what_it_does_among_all():
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(4))
    shift, double = Shift().sample(KEYS, EXTENT, 0), Double().sample(KEYS, EXTENT, 0)
    only = lines(SPACE)
    assert list(only) == ["shift", "shift: first", "shift: second", "double", "all"]
    assert torch.equal(drawn(plain(SPACE, 1), x), x)
    assert torch.equal(drawn(only["shift"], x), x + shift)
    assert torch.equal(drawn(only["shift: first"], x), x + shift * torch.tensor([1, 0]))
    assert torch.equal(drawn(only["shift: second"], x), x + shift * torch.tensor([0, 1]))
    assert torch.equal(drawn(only["double"], x), x * double)
    assert torch.equal(drawn(only["all"], x), drawn(SPACE, x))
    assert list(lines(Compose({"double": Double()}))) == ["double"]


def test_a_decoder_that_performs_what_cannot_be_still_is_refused():
    with pytest.raises(UsageError, match=r"actions\.double is performed while decoding"):
        plain(Compose({"double": Double(), "shift": Shift()}), 1)


def test_mirrored_alone_is_mirrored_and_nothing_else():
    crop = AffineCrop(size=8)
    space = Compose({"affine_crop": crop})
    only = lines(space)
    assert list(only) == ["affine_crop", "affine_crop: window", "affine_crop: mirrored"]
    x = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    mirrored = crop.sample(KEYS, EXTENT, 0)[:, 4] == 1
    assert mirrored.any()
    assert not mirrored.all()
    assert torch.allclose(drawn(plain(space, 0), x), x, atol=1e-6)
    expected = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    assert torch.allclose(drawn(only["affine_crop: mirrored"], x), expected, atol=1e-6)
    action = only["affine_crop: window"].sample(KEYS, EXTENT, 0)
    assert torch.equal(action[:, :4], crop.sample(KEYS, EXTENT, 0)[:, :4])
    assert not action[:, 4].any()
    assert list(lines(Compose({"affine_crop": AffineCrop(size=8, flip=0.0)}))) == ["affine_crop"]


class Halves(Encoder):
    """pooled: the numbers; layer `half`: half of them. Dropout, so that the mode matters."""

    dims = {"pooled": 2, "half": 2}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.9)

    def forward(self, x):
        return Features(self.dropout(x), layers={"half": x / 2})


def views(x, y):
    return Views((x, x + 100), {}, 2, KEYS[: len(x)], labels=y)


def test_all_outputs_are_read_at_once_of_the_first_view_of_labelled_samples():
    still = table(num=12, width=2)
    y = still.y.clone()
    y[3] = -1
    batches = [views(still.x[:8], y[:8]), views(still.x[8:], y[8:]), None]  # the third is not asked for
    readings = {
        "a": Reading(Halves(), ("half", "pooled", "projector"), nn.Flatten()),
        "b": Reading(Raw(2), ("pooled",)),
    }
    found = read(batches, readings, 10)
    kept = [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert torch.equal(found["a"]["pooled"].x, still.x[kept])
    assert torch.equal(found["a"]["projector"].x, still.x[kept])
    assert torch.equal(found["a"]["half"].x, still.x[kept] / 2)
    assert torch.equal(found["b"]["pooled"].y, still.y[kept])
    assert readings["a"].encoder.training


def test_without_two_classes_or_finite_features_nothing_is_measured():
    for y in (torch.full((4,), -1), torch.zeros(4, dtype=torch.int64)):
        with pytest.raises(UsageError, match="labels of at least two classes"):
            read([views(torch.ones(4, 2), y)], {"raw": Reading(Raw(2), ("pooled",))}, 9)
    with pytest.raises(UsageError, match="labels of at least two classes"):
        read([], {"raw": Reading(Raw(2), ("pooled",))}, 9)
    x = torch.tensor([[0.0], [1], [torch.nan], [2]])
    with pytest.raises(NonFinite, match="of 1 of 4 samples"):
        read([views(x, torch.arange(4))], {"raw": Reading(Raw(1), ("pooled",))}, 9)


def test_the_space_of_one_part_stays_a_space():
    only = Alone(SPACE, {"shift": None})
    assert only.num_params == SPACE.num_params
    assert only.slices == SPACE.slices
