"""What is drawn is what was measured: the numbers are read back from the drawings."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from stec.report.charts import confusion, lines, scatter
from stec.report.facts import Curve, Map, Predicted


def spots(svg):
    """All polylines as arrays [T, 2] of drawing coordinates."""
    return [
        np.array([p.split(",") for p in text.split()], float) for text in re.findall('polyline points="(.*?)"', svg)
    ]


def scale(svg):
    """The value axis, read off the labels of its grid lines: value = a * y + b."""
    ys = [float(y) for y in re.findall('class="grid" x1="40" x2="292" y1="(.*?)"', svg)]
    values = [float(t.replace("−", "-")) for t in re.findall('text-anchor="end">([−0-9.]+)</text>', svg)][: len(ys)]
    return np.polyfit(ys, values, 1)


def test_curve_can_be_read_back_from_its_axes():
    values = np.array([5.5, 4.25, 3.0, 1.5, -2.0])
    svg = lines({"loss": Curve(np.array([0, 10, 20, 30, 40]), values)}, 6.2, "loss")
    (line,) = spots(svg)
    a, b = scale(svg)
    np.testing.assert_allclose(a * line[:, 1] + b, values, atol=0.06)
    np.testing.assert_allclose(np.diff(line[:, 0]), np.diff(line[:, 0])[0], atol=0.11)
    (chance,) = re.findall('class="chance" .*? y1="(.*?)"', svg)
    assert a * float(chance) + b == pytest.approx(6.2, abs=0.06)


def test_gap_parts_a_line_and_a_lonely_point_is_a_dot():
    values = np.array([1.0, 2.0, np.nan, 3.0, np.inf, 4.0, 5.0])
    svg = lines({"x": Curve(np.arange(7), values)}, None, "x")
    assert [len(line) for line in spots(svg)] == [2, 2]
    assert svg.count("<circle") == 1
    assert "nan" not in svg
    assert "inf" not in svg


def test_long_curve_is_drawn_through_the_means_of_neighbours():
    values = np.random.default_rng(0).normal(3, 1, 12_345)
    svg = lines({"x": Curve(np.arange(12_345), values)}, None, "x")
    (line,) = spots(svg)
    a, b = scale(svg)
    size = -(-12_345 // 240)
    slow = [values[i : i + size].mean() for i in range(0, len(values), size)]
    np.testing.assert_allclose(a * line[:, 1] + b, slow, atol=0.02)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=6), st.booleans())
def test_any_finite_values_stay_within_the_drawing(values, chance):
    svg = lines({"x": Curve(np.arange(len(values)), np.array(values))}, values[0] if chance else None, "x")
    places = re.findall('c?x="(-?[0-9.]+)" c?y="(-?[0-9.]+)"', svg) + [p for line in spots(svg) for p in line.tolist()]
    for x, y in np.array(places, float):
        assert -1 <= x <= 301
        assert -1 <= y <= 171


def test_confusion_counts_are_scikit_learns():
    rng = np.random.default_rng(1)
    true, predicted = rng.integers(0, 5, 400), rng.integers(0, 4, 400)
    svg = confusion(Predicted("x", "s", np.array([-1.0, -0.1, 0.2, 3.0]), true, predicted))
    found = re.findall(r"<title>true (.*?), predicted (.*?): (\d+) of (\d+) pairs</title>", svg)
    counts = np.array([int(n) for _, _, n, _ in found]).reshape(5, 5)
    np.testing.assert_array_equal(counts, confusion_matrix(true, predicted, labels=range(5)))
    assert [int(n) for _, _, _, n in found[::5]] == np.bincount(true).tolist()
    assert found[0][:2] == ("up to −1", "up to −1")
    assert found[-1][:2] == ("above 3", "above 3")


def test_confusion_rises_along_the_outlined_diagonal():
    true = np.array([0, 1, 2])
    svg = confusion(Predicted("x", "s", np.array([0.0, 1.0]), true, true))
    full = re.findall(r'class="cell" x="([0-9.]+)" y="([0-9.]+)".{0,60}fill-opacity="1.00"', svg)
    assert full == re.findall(r'class="right" x="([0-9.]+)" y="([0-9.]+)"', svg)
    heights = [float(y) for _, y in full]
    assert heights == sorted(heights, reverse=True)
    # Numbers as small as the noise of a fit are not put beside an axis.
    assert ">0</text>" in confusion(Predicted("x", "s", np.array([-1.0, 1.8e-5, 1.0]), true, true))


def test_map_keeps_proportions_and_colours_classes():
    places = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
    svg = scatter(Map(places, np.array([0, 12, 12, -1]), ("<a>",), "PCA"))
    drawn = {
        name: re.findall('cx="(.*?)" cy="(.*?)"', inside)
        for name, inside in re.findall(r'<g class="spot (.*?)">(.*?)</g>', svg)
    }
    assert {name: len(found) for name, found in drawn.items()} == {"none": 1, "c0": 1, "c2 ring": 2}
    (a,), (b, c), (d,) = (np.array(drawn[name], float) for name in ("c0", "c2 ring", "none"))
    assert np.linalg.norm(b - a) == pytest.approx(3 * np.linalg.norm(c - a), abs=0.5)
    np.testing.assert_allclose(d - a, (b - a) + (c - a), atol=0.2)
    assert "<title>&lt;a&gt;</title>" in svg
    assert "<title>class 12</title>" in svg


def test_labels_without_a_colour_of_their_own_are_grey_and_lie_below():
    flat = Map(np.eye(4, 2), np.array([0, 1, 5, -1]), ("a", "b"), "PCA", coloured=(5, 0))
    drawn = re.findall(r'<g class="spot (\w+)"><title>(.*?)</title>', scatter(flat))
    assert drawn == [("none", "no label"), ("none", "b"), ("c1", "a"), ("c0", "class 5")]
