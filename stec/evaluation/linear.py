"""Linear readers of frozen features: logistic regression by L-BFGS, and the paper's SGD protocol.

Legend: N samples, D width of the features, C classes.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stec.errors import UsageError
from stec.evaluation.features import Table, standardise

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

# scikit-learn is imported where it is used: with it, a run would begin two seconds later.

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""scikit-learn's C (weight of the summed loss against |w|^2 / 2), a decade apart; in BYOL D.2 the grid is finer."""

# Largest entry of the mean loss's gradient at which a fit counts as converged: to choose C by, and for the final one.
_COARSE, _FINE = 3e-4, 1e-4
_HELD_OUT = 10


class Linear(NamedTuple):
    """top1 on the test table; the C that the held-out tenth chose, and its top1 there; did all fits converge?"""

    top1: float
    c: float
    held_out_top1: float
    converged: bool


def lbfgs(train: Table, test: Table, *, grid: Sequence[float] = GRID, max_iter: int = 1000, seed: int = 0) -> Linear:
    """Multinomial logistic regression (scikit-learn, L2) on standardised features.

    C is the one of `grid` that does best on a stratified, seeded tenth of train (the smallest, if several do); then all
    of train is fitted. Rows without a label are left out; test classes that train lacks count as errors.
    """
    from sklearn.linear_model import LogisticRegression

    train, test = train.labelled(), test.labelled()
    if not len(test.y) or len(train.y.unique()) < 2:
        raise UsageError("the linear probe needs labelled test data and train labels of at least 2 classes.")
    y, fitted, held = train.y.numpy(), *split(train.y.numpy(), seed)
    inner, outer = (x.numpy() for x in standardise(train.x[fitted], train.x[held]))
    path = LogisticRegression(max_iter=max_iter, tol=_COARSE, warm_start=True)  # ascending C: each fit starts near
    best, converged = (-1.0, 0.0), True
    for c in sorted(grid):
        converged &= _fit(path.set_params(C=c), inner, y[fitted])
        top1 = float((path.predict(outer) == y[held]).mean())
        best = (top1, c) if top1 > best[0] else best
    x, x_test = (x.numpy() for x in standardise(train.x, test.x))
    final = LogisticRegression(C=best[1], max_iter=max_iter, tol=_FINE)
    converged &= _fit(final, x, y)
    return Linear(float((final.predict(x_test) == test.y.numpy()).mean()), best[1], best[0], converged)


def split(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows to fit and of a stratified tenth to hold out; no class loses its only row."""
    order = np.random.default_rng(seed).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    spare = order[np.bincount(y)[y[order]] > 1]
    held = spare[min(_HELD_OUT, len(spare)) // 2 :: _HELD_OUT]
    if not len(held):
        raise UsageError("the linear probe needs at least 2 labelled train samples of some class, to choose C by.")
    return np.setdiff1d(order, held), np.sort(held)


def _fit(model: "LogisticRegression", x: np.ndarray, y: np.ndarray) -> bool:
    """Fit; False if scikit-learn says that it stopped before convergence. Other warnings go where they went."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, y)
    for warning in caught:
        # Some BLAS raise the floating-point flag for what lies beyond their vectors: harmless if the fit is finite.
        flagged = issubclass(warning.category, RuntimeWarning) and np.isfinite(model.coef_).all()
        if not flagged and not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


class Logistic:
    """The L-BFGS protocol as configured. grid: values of C; max_iter: of each fit."""

    def __init__(self, *, grid: list[float] | None = None, max_iter: int = 1000):
        self.grid = tuple(GRID if grid is None else grid)
        if not self.grid or not all(math.isfinite(c) and c > 0 for c in self.grid):
            raise UsageError(f"evaluation.linear.grid={list(self.grid)} must hold at least one C, all of them above 0.")
        if max_iter < 1:
            raise UsageError(f"evaluation.linear.max_iter={max_iter} must be at least 1.")
        self.max_iter = max_iter

    def __call__(self, train: Table, test: Table) -> Linear:
        return lbfgs(train, test, grid=self.grid, max_iter=self.max_iter)

    def describe(self) -> str:
        values = " ".join(f"{c:g}" for c in self.grid)
        return f"logistic regression (L-BFGS) on standardised features, C of {values} chosen on a tenth of train"


def sgd(
    features: Callable[[int], Table],
    test: Table,
    *,
    epochs: int = 100,
    lr: float = 0.04,
    momentum: float = 0.9,
    weight_decay: float = 1e-6,
    batch_size: int = 1024,
    warmup_epochs: float = 10.0,
    seed: int = 0,
) -> float:
    """Top-1 accuracy of the paper's separate linear fit (its STL-10 protocol, whose numbers the defaults are, but for
    the length: an epoch here is one pass over the labelled samples, and the paper's 100 "epochs" are 2,000 such passes:
    epochs=2000 with warmup_epochs=200 is as long).

    features(epoch): the frozen encoder's table of that epoch's augmented samples. Nesterov SGD on weights N(0, .01),
    bias 0; the learning rate climbs from 0 over warmup_epochs and falls to 0 by a cosine. `lr` is not scaled.
    """
    for key, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise UsageError(f"sgd.{key}={value} must be at least 1.")
    if not (lr > 0 and 0 < momentum < 1 and weight_decay >= 0):
        raise UsageError(
            f"sgd.lr={lr} must be above 0, sgd.momentum={momentum} between 0 and 1, sgd.weight_decay={weight_decay} "
            "at least 0."
        )
    if not 0 <= warmup_epochs < epochs:
        raise UsageError(f"sgd.warmup_epochs={warmup_epochs:g} must be 0 or more and less than sgd.epochs={epochs}.")
    test = test.labelled()
    if not len(test.y):
        raise UsageError("the linear probe needs labelled test data.")
    generator = torch.Generator().manual_seed(seed)
    head: nn.Linear | None = None
    for epoch in range(epochs):
        table = features(epoch).labelled()
        if head is None:
            num_classes = int(max(table.y.max(), test.y.max())) + 1
            head = nn.Linear(table.x.shape[1], num_classes)
            nn.init.normal_(head.weight, std=0.01, generator=generator)
            nn.init.zeros_(head.bias)
            optimizer = torch.optim.SGD(
                head.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=True
            )
        batches = torch.randperm(len(table.y), generator=generator).split(batch_size)
        for number, rows in enumerate(batches):
            optimizer.param_groups[0]["lr"] = lr * _factor(epoch + number / len(batches), epochs, warmup_epochs)
            optimizer.zero_grad()
            F.cross_entropy(head(table.x[rows]), table.y[rows]).backward()
            optimizer.step()
    assert head is not None
    with torch.no_grad():
        right: Tensor = head(test.x).argmax(dim=1) == test.y
    return float(right.float().mean())


def _factor(epoch: float, epochs: int, warmup: float) -> float:
    """Of the learning rate, after so many (broken) epochs."""
    if epoch < warmup:
        return epoch / warmup
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / max(epochs - warmup, 1e-9)))
