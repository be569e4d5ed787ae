"""The linear reader of published code for sequences: a softmax trained by Adam on features as they are.

Legend: N rows, D width of the features, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stec.errors import UsageError
from stec.evaluation.features import Table


def adam(
    train: Table, test: Table, *, lr: float = 1e-4, epochs: int = 20, batch_size: int = 1024, seed: int = 0
) -> float:
    """Top-1 accuracy of a linear softmax on features that are not standardised: Adam at a constant rate, weights
    Xavier-normal, bias 0, rows in a new order each epoch.

    The defaults are those of Greedy InfoMax (lr 1e-4, 20 epochs, one sequence of about 1,250 frames a step); the code
    of Riviere et al. (ICASSP 2020) takes 2e-4 and 10 epochs. On fewer rows than theirs these are fewer steps: the
    reader is then not at its optimum, and features on a small scale look worse than they are. Rows without a label are
    left out; test classes that train lacks count as errors. UsageError if either table has no label.
    """
    train, test = train.labelled(), test.labelled()
    if not len(train.y) or not len(test.y):
        raise UsageError("the linear reader needs labels, and there are none in the train or in the test rows.")
    weight, bias = fit(train, lr=lr, epochs=epochs, batch_size=batch_size, seed=seed)
    return float((F.linear(test.x, weight, bias).argmax(dim=1) == test.y).double().mean())


def fit(train: Table, *, lr: float, epochs: int, batch_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weights [C, D] and bias [C] after the last step; all rows have labels."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.empty(int(train.y.max()) + 1, train.x.shape[1])
    nn.init.xavier_normal_(weight, generator=generator)
    bias = torch.zeros(len(weight))
    optimizer = torch.optim.Adam([weight.requires_grad_(), bias.requires_grad_()], lr=lr)
    for _ in range(epochs):
        for rows in torch.randperm(len(train.y), generator=generator).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(F.linear(train.x[rows], weight, bias), train.y[rows]).backward()
            optimizer.step()
    return weight.detach(), bias.detach()


class Adam:
    """The protocol as configured. lr: constant; epochs: passes over the rows; batch_size: rows of a step."""

    def __init__(self, *, lr: float = 1e-4, epochs: int = 20, batch_size: int = 1024, seed: int = 0):
        if not 0 < lr < float("inf"):
            raise UsageError(f"reader.lr={lr} must be above 0.")
        for key, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
            if value < least:
                raise UsageError(f"reader.{key}={value} must be at least {least}.")
        self.lr, self.epochs, self.batch_size, self.seed = lr, epochs, batch_size, seed

    def accuracy(self, train: Table, test: Table) -> float:
        return adam(train, test, lr=self.lr, epochs=self.epochs, batch_size=self.batch_size, seed=self.seed)

    def describe(self) -> str:
        return (
            f"linear softmax by Adam on features as they are (lr {self.lr:g}, {self.epochs} epochs, {self.batch_size}"
            " rows a step)"
        )
