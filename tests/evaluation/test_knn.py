import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from stec.errors import UsageError
from stec.evaluation import knn as module
from stec.evaluation.features import Table
from stec.evaluation.knn import Knn, knn


def clouds(num: int, seed: int, width: int = 12, classes: int = 5) -> Table:
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (num,), generator=generator)
    return Table(centres[y] + 2.0 * torch.randn(num, width, generator=generator), y)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (20, 0.1), (50, 0.07), (400, 0.5)])
def test_accuracy_is_scikit_learns(k, temperature):
    train, test = clouds(400, 0), clouds(201, 1)
    theirs = KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.exp((1 - d) / temperature))
    theirs.fit(train.x.double().numpy(), train.y.numpy())
    expected = (theirs.predict(test.x.double().numpy()) == test.y.numpy()).mean()
    assert 0.25 < expected < 0.95
    assert knn(train, test, k=k, temperature=temperature) == pytest.approx(expected)


def test_chunks_do_not_matter(monkeypatch):
    train, test = clouds(100, 0), clouds(57, 1)
    whole = knn(train, test, k=7)
    monkeypatch.setattr(module, "_SLAB", 450)  # four rows at a time
    assert knn(train, test, k=7) == whole


def test_a_tiny_temperature_asks_the_nearest_neighbour_alone():
    train, test = clouds(100, 0), clouds(57, 1)
    assert knn(train, test, k=20, temperature=1e-5) == knn(train, test, k=1)


def test_unknown_labels_are_left_out():
    train, test = clouds(100, 0), clouds(50, 1)
    holes = Table(torch.cat([train.x, test.x]), torch.cat([train.y, torch.full((50,), -1)]))
    assert knn(holes, test, k=9) == knn(train, test, k=9)
    with pytest.raises(UsageError, match="labels"):
        knn(train, Table(test.x, torch.full((50,), -1)))


def test_options():
    train, test = clouds(10, 0), clouds(50, 1)
    with pytest.raises(UsageError, match="k=20"):
        knn(train, test)
    assert Knn(k=20)(train, test) == knn(train, test, k=10)
    assert "k=200" in Knn(k=200).describe()
    with pytest.raises(UsageError, match=r"evaluation\.knn\.k=0"):
        Knn(k=0)
    with pytest.raises(UsageError, match=r"evaluation\.knn\.temperature"):
        Knn(temperature=0.0)
