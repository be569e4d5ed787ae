import inspect
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from stec.errors import UsageError
from stec.evaluation.features import Table
from stec.evaluation.linear import Logistic, _factor, lbfgs, sgd, split


def clouds(num: int, seed: int, noise: float = 2.0, width: int = 10, classes: int = 4) -> Table:
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (num,), generator=generator)
    return Table(3 + 10 * (centres[y] + noise * torch.randn(num, width, generator=generator)), y)


def test_accuracy_is_scikit_learns_at_the_chosen_c():
    train, test = clouds(300, 0), clouds(500, 1)
    found = lbfgs(train, test)
    scaler = StandardScaler().fit(train.x.double().numpy())
    theirs = LogisticRegression(C=found.c, max_iter=1000, tol=1e-8).fit(
        scaler.transform(train.x.double().numpy()), train.y.numpy()
    )
    expected = theirs.score(scaler.transform(test.x.double().numpy()), test.y.numpy())
    assert 0.4 < expected < 0.95
    assert found.top1 == pytest.approx(expected, abs=0.003)
    assert found.converged


def test_c_is_the_best_on_the_held_out_tenth():
    train, test = clouds(200, 0, noise=3.0, width=60), clouds(300, 1, noise=3.0, width=60)
    y = train.y.numpy()
    fitted, held = split(y, 0)
    scores = {}
    for c in (1e-5, 1e-2, 1e2):
        scaler = StandardScaler().fit(train.x[fitted].numpy())
        model = LogisticRegression(C=c, max_iter=1000).fit(scaler.transform(train.x[fitted].numpy()), y[fitted])
        scores[c] = model.score(scaler.transform(train.x[held].numpy()), y[held])
    found = lbfgs(train, test, grid=[1e2, 1e-5, 1e-2], max_iter=1000)
    assert found.held_out_top1 == pytest.approx(max(scores.values()))
    assert found.c == min(c for c, score in scores.items() if score == max(scores.values()))


@pytest.mark.parametrize("counts", [[50, 30, 20], [5, 5, 5], [40, 1], [1, 2]])
def test_the_held_out_tenth_is_stratified_and_leaves_every_class_a_row(counts):
    y = np.repeat(np.arange(len(counts)), counts)
    fitted, held = split(y, 3)
    assert sorted([*fitted, *held]) == list(range(len(y)))
    assert set(y[fitted]) == set(y)
    kept = np.bincount(y[held], minlength=len(counts))
    assert all(abs(k - n / 10) < 1 for k, n in zip(kept, counts, strict=True))
    assert not np.array_equal(split(y, 4)[1], held) or len(y) < 20


def test_labels_need_not_be_dense_nor_all_be_known():
    train, test = clouds(200, 0), clouds(200, 1)
    plain = lbfgs(train, test)
    sparse = lbfgs(train._replace(y=train.y * 7), test._replace(y=test.y * 7))
    assert sparse == plain
    holes = Table(torch.cat([train.x, test.x]), torch.cat([train.y, torch.full((200,), -1)]))
    assert lbfgs(holes, test) == plain


def test_without_convergence_it_says_so_and_nothing_else_is_hidden(monkeypatch):
    train, test = clouds(200, 0), clouds(100, 1)
    assert not lbfgs(train, test, max_iter=1).converged
    original = LogisticRegression.fit

    def fit(self, *args):
        warnings.warn("something else", UserWarning, stacklevel=1)
        return original(self, *args)

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    with pytest.warns(UserWarning, match="something else"):
        lbfgs(train, test)


def test_refusals():
    train, test = clouds(100, 0), clouds(50, 1)
    for bad in (train._replace(y=torch.zeros_like(train.y)), train._replace(y=torch.full_like(train.y, -1))):
        with pytest.raises(UsageError, match="2 classes"):
            lbfgs(bad, test)
    with pytest.raises(UsageError, match="choose C"):
        lbfgs(Table(train.x[:4], torch.arange(4)), test)
    with pytest.raises(UsageError, match=r"evaluation\.linear\.grid"):
        Logistic(grid=[0.1, -1.0])
    with pytest.raises(UsageError, match=r"evaluation\.linear\.grid"):
        Logistic(grid=[])
    with pytest.raises(UsageError, match=r"evaluation\.linear\.max_iter=0"):
        Logistic(max_iter=0)
    assert Logistic()(train, test) == lbfgs(train, test)


def test_sgd_reaches_what_lbfgs_reaches_and_asks_for_every_epoch_once():
    train, test = clouds(300, 0), clouds(500, 1)
    asked = []

    def features(epoch: int) -> Table:
        asked.append(epoch)
        noise = torch.randn(train.x.shape, generator=torch.Generator().manual_seed(epoch))
        return Table((train.x + noise - 3) / 20, train.y)

    shrunk = Table((test.x - 3) / 20, test.y)
    top1 = sgd(features, shrunk, epochs=30, batch_size=100, lr=0.3, warmup_epochs=3)
    assert asked == list(range(30))
    assert top1 == pytest.approx(lbfgs(train, test).top1, abs=0.04)
    assert sgd(features, shrunk, epochs=30, batch_size=100, lr=0.3, warmup_epochs=3) == top1


def test_schedule_of_the_papers_protocol():
    assert [_factor(e, 100, 10) for e in (0, 5, 10, 55, 100)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert _factor(0, 5, 0) == 1


def test_sgds_defaults_are_the_papers():
    defaults = {name: p.default for name, p in inspect.signature(sgd).parameters.items()}
    paper = {"lr": 0.04, "momentum": 0.9, "weight_decay": 1e-6, "batch_size": 1024, "epochs": 100, "warmup_epochs": 10}
    assert {name: defaults[name] for name in paper} == paper


def test_sgd_without_epochs_or_labels():
    test = clouds(50, 1)
    for options in ({"epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"warmup_epochs": 100.0}, {"momentum": 0.0}):
        with pytest.raises(UsageError, match=next(iter(options))):
            sgd(lambda epoch: test, test, **options)
    with pytest.raises(UsageError, match="labelled"):
        sgd(lambda epoch: test, test._replace(y=torch.full_like(test.y, -1)))
