"""From a run's files and features to what is drawn."""

import json

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from stec.errors import DataError
from stec.report.curves import read_curves
from stec.report.facts import Map
from stec.report.projection import flat_map, most_frequent


def test_curves_are_read_in_order_and_damage_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    records = [
        {"step": 20, "epoch": 0.4, "train/loss": 2.0},
        {"step": 10, "epoch": 0.2, "train/loss": 3.0, "note": "text", "flag": True},
        {"step": 20, "epoch": 0.4, "train/loss": 1.5, "eval/knn/top1": 0.5},
        {"train/loss": 7.0},
        [1, 2],
    ]
    path.write_bytes("\n".join(json.dumps(r) for r in records).encode() + b'\n\xff\n{"step": 30, "train/lo')
    curves = read_curves(path)
    assert set(curves) == {"epoch", "train/loss", "eval/knn/top1"}
    assert curves["train/loss"].steps.tolist() == [10, 20]
    assert curves["train/loss"].values.tolist() == [3.0, 1.5]
    assert curves["eval/knn/top1"].steps.tolist() == [20]


def test_run_without_metrics_has_no_curves(tmp_path):
    assert read_curves(tmp_path / "metrics.jsonl") == {}


def blobs(num, width=16, classes=3):
    rng = np.random.default_rng(0)
    labels = np.arange(num) % classes
    return rng.normal(size=(classes, width))[labels] + 0.2 * rng.normal(size=(num, width)), labels


def test_map_keeps_neighbours_together_and_is_the_same_again():
    features, labels = blobs(150)
    flat = flat_map(features, labels, ("a", "b", "c"))
    assert flat.places.shape == (150, 2)
    half = KNeighborsClassifier(3).fit(flat.places[::2], labels[::2])
    assert half.score(flat.places[1::2], labels[1::2]) == 1.0
    np.testing.assert_array_equal(flat.places, flat_map(features, labels).places)
    assert flat.method.startswith("t-SNE")
    assert flat.classes == ("a", "b", "c")


def test_map_of_few_samples_is_their_principal_components():
    features, labels = blobs(20)
    flat = flat_map(features, labels)
    expected = PCA(2, svd_solver="full").fit_transform(normalize(features))
    np.testing.assert_allclose(np.abs(flat.places), np.abs(expected), atol=1e-9)
    assert "principal components" in flat.method


@pytest.mark.parametrize("shape", [(1, 4), (2, 1), (60, 1)])
def test_map_has_two_dimensions_even_if_the_features_have_not(shape):
    assert flat_map(np.random.default_rng(0).normal(size=shape), np.zeros(shape[0], int)).places.shape == (shape[0], 2)


def test_map_of_many_samples_shows_some_of_them_and_says_so():
    features, labels = blobs(100)
    flat = flat_map(features, labels, most=60, what="rows", seed=3)
    assert flat.places.shape == (60, 2)
    assert len(flat.labels) == 60
    assert "60 of 100 rows" in flat.method


def test_the_commonest_labels_are_those_with_a_colour():
    flat = Map(np.zeros((9, 2)), np.array([3, 3, 1, 1, 1, 0, 2, 2, -1]))
    assert most_frequent(flat, 3).coloured == (1, 2, 3)
    assert most_frequent(flat, 2).coloured == (1, 2)  # as many of 2 as of 3: the smaller
    assert most_frequent(flat, 4) is flat


def test_features_that_are_not_finite_are_refused():
    features, labels = blobs(10)
    features[3, 2] = np.nan
    with pytest.raises(DataError, match="not finite"):
        flat_map(features, labels)
