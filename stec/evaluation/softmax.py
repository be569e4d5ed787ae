"""Multinomial logistic regression on tables of hundreds of thousands of rows, the default reader of probes.

The objective is scikit-learn's, solved in coordinates in which it is nearly round: the features of networks are so
correlated that L-BFGS needs hundreds of passes over the table as they are, and some tens once they are turned to their
principal axes and scaled by the curvature along these. The optimum is the same.

Legend: N rows, D width of the features, C classes.
"""

import logging
import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stec.errors import UsageError
from stec.evaluation.features import Table, standardise
from stec.evaluation.linear import GRID, split

_log = logging.getLogger("stec")

CHOOSE_ON = 20_000
"""Rows, at most and evenly spread, that C is chosen with: the more rows there are, the less it matters."""

# Largest entry of the gradient at which a fit counts as converged: to choose C by, and for the final one.
_COARSE, _FINE = 3e-4, 1e-4


class Softmax(NamedTuple):
    """weight [C, D], bias [C] and labels [C] of a linear softmax; converged: whether the tolerance was reached."""

    weight: Tensor
    bias: Tensor
    labels: Tensor
    converged: bool

    def accuracy(self, table: Table) -> float:
        likeliest = self.labels[F.linear(table.x, self.weight, self.bias).argmax(dim=1)]
        return float((likeliest == table.y).double().mean())


def fit(table: Table, *, c: float, tolerance: float, max_iter: int, start: Softmax | None = None) -> Softmax:
    """The minimum of  mean cross-entropy + |weight|^2 / (2 c N).

    tolerance: of the gradient's largest entry, in the scaled coordinates. start: a fit on the same rows to begin with.
    """
    labels, y = table.y.unique(return_inverse=True)
    num, width = table.x.shape
    variance, axes = torch.linalg.eigh((table.x.T @ table.x).double() / num)
    # Along an axis: the curvature of the loss, about the variance over C, and that of the penalty.
    scale = (variance.clamp(min=0) + len(labels) / (c * num)).sqrt()
    rows = torch.arange(num)
    turned, penalty = table.x @ (axes / scale).float(), 1 / (c * num * scale.square())

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = torch.from_numpy(flat).view(len(labels), -1).split([width, 1], dim=1)
        log_probs = F.log_softmax(torch.addmm(bias[:, 0].float(), turned, weight.float().T), dim=1)
        # Summed in double precision: near the end of the search single rows would round its small steps away.
        loss = (weight.square() * penalty).sum() / 2 - log_probs[rows, y].double().mean()
        excess = log_probs.exp_()
        excess[rows, y] -= 1
        slopes = (excess.T @ turned).double() / num + weight * penalty, excess.double().mean(dim=0)[:, None]
        return float(loss), torch.cat(slopes, dim=1).numpy().ravel()

    from scipy.optimize import minimize  # with it, a run would begin most of a second later

    first = torch.zeros(len(labels), width + 1, dtype=torch.float64)
    if start is not None:
        first = torch.cat([start.weight.double() @ axes * scale, start.bias.double()[:, None]], dim=1)
    options = {"maxiter": max_iter, "maxfun": 2 * max_iter, "gtol": tolerance, "ftol": 0.0, "maxcor": 20}
    found = minimize(objective, first.numpy().ravel(), jac=True, method="L-BFGS-B", options=options)
    weight, bias = torch.from_numpy(found.x).view(len(labels), -1).split([width, 1], dim=1)
    return Softmax((weight / scale @ axes.T).float(), bias[:, 0].float(), labels, bool(found.success))


class Lbfgs:
    """The protocol as configured, on standardised features. grid: values of C, of which the one is taken that does best
    on a stratified tenth of CHOOSE_ON train rows (the smallest, if several do); max_iter: of each fit."""

    def __init__(self, *, grid: list[float] | None = None, max_iter: int = 1000):
        self.grid = tuple(sorted(GRID if grid is None else grid))
        if not self.grid or not all(math.isfinite(c) and c > 0 for c in self.grid):
            raise UsageError(f"reader.grid={list(self.grid)} must hold at least one C, all of them above 0.")
        if max_iter < 1:
            raise UsageError(f"reader.max_iter={max_iter} must be at least 1.")
        self.max_iter = max_iter

    def accuracy(self, train: Table, test: Table) -> float:
        """Of the test rows with a label; classes that train lacks count as errors. UsageError without labels of at
        least 2 classes."""
        train, test = train.labelled(), test.labelled()
        if not len(test.y) or len(train.y.unique()) < 2:
            raise UsageError("the linear reader needs labelled test rows, and train rows of at least 2 classes.")
        best = self.grid[0] if len(self.grid) == 1 else self.choose(train.thinned(CHOOSE_ON))
        x, x_test = standardise(train.x, test.x)
        final = fit(Table(x, train.y), c=best, tolerance=_FINE, max_iter=self.max_iter)
        if not final.converged:
            _log.warning("the reader of a probe: L-BFGS stopped at max_iter=%d before convergence.", self.max_iter)
        return final.accuracy(Table(x_test, test.y))

    def choose(self, table: Table) -> float:
        """The C of the grid."""
        inner, outer = split(table.y.numpy(), seed=0)
        x, x_held = standardise(table.x[inner], table.x[outer])
        path: Softmax | None = None
        found = []
        for c in self.grid:  # ascending: each fit starts near
            path = fit(Table(x, table.y[inner]), c=c, tolerance=_COARSE, max_iter=self.max_iter, start=path)
            found.append(path.accuracy(Table(x_held, table.y[outer])))
        return self.grid[int(np.argmax(found))]

    def describe(self) -> str:
        values = " ".join(f"{c:g}" for c in self.grid)
        chosen = f"C of {values} chosen on a tenth of {CHOOSE_ON:,} train rows" if len(self.grid) > 1 else f"C {values}"
        return f"logistic regression (L-BFGS) on standardised features, {chosen}"
