"""The same optimum as scikit-learn's, found in other coordinates."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from stec.errors import UsageError
from stec.evaluation import softmax
from stec.evaluation.features import Table, standardise
from stec.evaluation.linear import lbfgs
from stec.evaluation.softmax import Lbfgs, fit


def correlated(num: int, seed: int = 0, classes: int = 4, width: int = 12) -> Table:
    """Overlapping classes in features that are nearly multiples of each other, as those of networks are; one of them is
    the sum of two others."""
    generator = torch.Generator().manual_seed(seed)
    mixing = (
        torch.randn(width, width, generator=torch.Generator().manual_seed(9)) * torch.logspace(0, -3, width)[:, None]
    )
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(8))
    y = torch.randint(classes, (num,), generator=generator)
    x = (centres[y] + torch.randn(num, width, generator=generator)) @ mixing
    x[:, 0] = x[:, 1] + x[:, 2]
    return Table(x, y)


@pytest.mark.parametrize("c", [1e-4, 1e-2, 1.0, 100.0])
def test_weights_are_scikit_learns(c):
    table = correlated(400)
    table = Table(*standardise(table.x), 3 * table.y + 2)
    found = fit(table, c=c, tolerance=1e-5, max_iter=5000)
    best = LogisticRegression(C=c, tol=1e-10, max_iter=100_000)
    best.fit(table.x.double().numpy(), table.y.numpy())
    assert found.converged
    assert found.labels.tolist() == best.classes_.tolist() == [2, 5, 8, 11]
    torch.testing.assert_close(found.weight, torch.from_numpy(best.coef_).float(), atol=5e-3, rtol=5e-3)
    expected = torch.from_numpy(best.predict_log_proba(table.x.double().numpy())).float()
    log_probs = F.log_softmax(F.linear(table.x, found.weight, found.bias), dim=1)
    torch.testing.assert_close(log_probs, expected, atol=2e-3, rtol=0)
    assert found.accuracy(table) == pytest.approx(best.score(table.x.double().numpy(), table.y.numpy()), abs=0.003)


def test_a_start_changes_the_way_and_not_the_end():
    table = correlated(300)
    table = Table(*standardise(table.x), table.y)
    options = {"tolerance": 1e-5, "max_iter": 5000}
    cold, near = fit(table, c=0.1, **options), fit(table, c=0.09, **options)
    warm = fit(table, c=0.1, start=near, **options)
    torch.testing.assert_close(warm.weight, cold.weight, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(near.weight, cold.weight, atol=1e-3)
    stays = fit(table, c=0.1, tolerance=1.0, max_iter=9, start=near)  # which is good enough as it is
    torch.testing.assert_close(stays.weight, near.weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(stays.bias, near.bias)
    assert not fit(table, c=0.1, tolerance=1e-7, max_iter=1).converged


def test_the_protocol_chooses_as_the_one_for_classes_does():
    train, test = correlated(500), correlated(300, seed=1)
    grid = [1e-3, 1e-1]
    expected = lbfgs(train, test, grid=grid)
    assert Lbfgs(grid=grid).choose(train) == expected.c
    assert Lbfgs(grid=grid).accuracy(train, test) == pytest.approx(expected.top1, abs=0.01)
    assert Lbfgs(grid=[0.1]).accuracy(train, test) == Lbfgs(grid=[0.1]).accuracy(train, test)


def test_c_is_chosen_with_some_rows_of_a_large_table_and_all_of_them_are_fitted(monkeypatch):
    seen = []
    monkeypatch.setattr(softmax, "CHOOSE_ON", 100)
    monkeypatch.setattr(softmax, "fit", lambda table, **options: seen.append(len(table.y)) or fit(table, **options))
    Lbfgs(grid=[0.01, 0.1]).accuracy(correlated(500), correlated(50, seed=1))
    assert len(seen) == 3
    assert max(seen[:2]) < 100
    assert seen[2] == 500
    seen.clear()
    Lbfgs(grid=[0.1]).accuracy(correlated(500), correlated(50, seed=1))
    assert seen == [500]  # nothing to choose from


def test_rows_without_a_label_are_left_out_and_unheard_of_classes_are_errors():
    train, test = correlated(300), correlated(200, seed=1)
    noise = Table(torch.full((40, 12), 1e3), torch.full((40,), -1))
    known = Lbfgs().accuracy(train, test)
    both = (Table(torch.cat([t.x, noise.x]), torch.cat([t.y, noise.y])) for t in (train, test))
    assert Lbfgs().accuracy(*both) == known > 0.5
    strangers = Table(torch.cat([test.x, test.x]), torch.cat([test.y, torch.full_like(test.y, 9)]))
    assert Lbfgs().accuracy(train, strangers) == known / 2
    for pair in ((train, noise), (noise, test), (Table(train.x, torch.zeros(300, dtype=torch.int64)), test)):
        with pytest.raises(UsageError, match="at least 2 classes"):
            Lbfgs().accuracy(*pair)


def test_constant_features_and_more_features_than_rows_do_no_harm():
    generator = np.random.default_rng(0)
    x = torch.from_numpy(generator.normal(size=(20, 50))).float()
    x[:, :5] = 3.0
    y = (x[:, 7] > 0).long()
    found = fit(Table(*standardise(x), y), c=1.0, tolerance=1e-6, max_iter=1000)
    assert found.weight.isfinite().all()
    assert found.weight[:, :5].abs().max() < 1e-5
    assert found.accuracy(Table(*standardise(x), y)) == 1.0


def test_no_convergence_is_logged_and_slips_are_told(caplog):
    Lbfgs(max_iter=1).accuracy(correlated(200), correlated(50, seed=1))
    assert "max_iter=1" in caplog.text
    for options, sentence in (({"grid": []}, r"grid=\[\]"), ({"grid": [0.0]}, "grid"), ({"max_iter": 0}, "max_iter=0")):
        with pytest.raises(UsageError, match=rf"^reader\.{sentence}"):
            Lbfgs(**options)
    assert "C 0.5" in Lbfgs(grid=[0.5]).describe()
