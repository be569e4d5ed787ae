"""Plain samples and those under an action in one plane, by an independent projection; and the figure of it."""

import sys

import numpy as np
import pytest

from stec.errors import UsageError
from stec.report.figure import COLOURS, NONE
from stec.report.scatter import MOST, Panel, Plane, by_pca, by_umap, draw

PUSH = np.array([5, 0])


def features(num=40, width=6, seed=0):
    return np.random.default_rng(seed).normal(size=(num, width)) * [9, 4, 1, 1, 1, 1][:width]


def test_both_are_projected_on_the_directions_of_both_together():
    plain = features()
    acted = plain + 3
    flat = by_pca(plain, acted)
    both = np.concatenate([plain, acted])
    _, sizes, directions = np.linalg.svd(both - both.mean(axis=0), full_matrices=False)
    theirs = (both - both.mean(axis=0)) @ directions[:2].T
    ours = np.concatenate([flat.plain, flat.acted])
    assert np.abs(ours) == pytest.approx(np.abs(theirs), abs=1e-9)  # the signs are anybody's
    share = (sizes[:2] ** 2).sum() / (sizes**2).sum()
    assert flat.method == f"2 principal components, {share:.0%} of the variance"


def test_features_of_one_number_or_of_no_spread_have_a_plane_too():
    flat = by_pca(features(width=1), features(width=1))
    assert flat.plain.shape == (40, 2)
    assert not flat.plain[:, 1].any()
    assert not by_pca(np.ones((5, 3)), np.ones((5, 3))).acted.any()


def test_without_the_package_umap_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UsageError, match=r"pip install 'stec\[umap\]'"):
        by_umap(features(), features())


def panel(labels):
    plain = features(len(labels), 2)
    return Panel("pooled", Plane(plain, plain + PUSH, "by hand"), labels)


def test_a_line_leads_from_the_plain_centroid_to_the_acted_one():
    labels = np.arange(60) % 3
    one = panel(labels)
    figure = draw([one], ("a", "b"), "under a push")
    left, right = figure.axes
    assert (left.get_title(loc="left"), right.get_title(loc="left")) == ("plain", "under a push")
    steps = [line for line in right.lines if len(line.get_xdata()) == 2]
    for label, step in enumerate(steps):
        start = one.plane.plain[labels == label].mean(axis=0)
        assert step.get_xydata() == pytest.approx(np.stack([start, start + PUSH]))
        assert step.get_color() == COLOURS[label]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "class 2"]


def test_the_commonest_ten_classes_have_colours_and_spots_are_thinned():
    labels = np.concatenate([np.arange(12), np.arange(2, 12), np.zeros(2 * MOST, int)])
    figure = draw([panel(labels)], (), "acted")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    # 0 and 2..11 occur twice or more: the tenth colour goes to the smaller label, 10.
    assert names == ["class 0", *(f"class {label}" for label in range(2, 11)), "2 others"]
    assert figure.legends[0].legend_handles[-1].get_color() == NONE
    assert sum(len(spots.get_offsets()) for spots in figure.axes[0].collections) == MOST
