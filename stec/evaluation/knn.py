"""k nearest neighbours: what the geometry of the features tells of the labels, without any training.

Legend: N train samples, M test samples, D width of the features, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stec.errors import UsageError
from stec.evaluation.features import Table

_SLAB = 2**25  # numbers in one slab of similarities (128 MiB)


def knn(
    train: Table, test: Table, *, k: int = 20, temperature: float = 0.1, device: torch.device | str = "cpu"
) -> float:
    """Top-1 accuracy of weighted cosine k-NN (Wu et al., CVPR 2018): a neighbour votes with exp(cosine / temperature).

    Rows without a label are left out. Memory: N x D and one slab of M' x N. UsageError if a table is empty or k > N.
    """
    train, test = train.labelled(), test.labelled()
    if not len(train.x) or not len(test.x):
        raise UsageError("k-NN needs labels: none are known in the train or in the test data.")
    if k > len(train.x):
        raise UsageError(f"evaluation.knn.k={k} must be at most the number of labelled train samples, {len(train.x)}.")
    known, labels = F.normalize(train.x.to(device), dim=1), train.y.to(device)
    num_classes = int(torch.maximum(train.y.max(), test.y.max())) + 1
    right = 0
    rows = max(1, _SLAB // len(known))
    for x, y in zip(test.x.split(rows), test.y.split(rows), strict=True):
        cosines, nearest = (F.normalize(x.to(device), dim=1) @ known.T).topk(k, dim=1)
        right += int((_vote(cosines / temperature, labels[nearest], num_classes) == y.to(device)).sum())
    return right / len(test.y)


def _vote(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The class [M] with most weight among neighbours with logits [M, k]; weights relative to the nearest one's."""
    weights = (logits - logits[:, :1]).exp()
    votes = torch.zeros(len(logits), num_classes, device=logits.device).scatter_add_(1, labels, weights)
    return votes.argmax(dim=1)


class Knn:
    """The protocol as configured. k: neighbours; temperature: of their votes."""

    def __init__(self, *, k: int = 20, temperature: float = 0.1):
        if k < 1:
            raise UsageError(f"evaluation.knn.k={k} must be at least 1.")
        if not temperature > 0:
            raise UsageError(f"evaluation.knn.temperature={temperature} must be above 0.")
        self.k, self.temperature = k, temperature

    def __call__(self, train: Table, test: Table, device: torch.device | str = "cpu") -> float:
        """Top-1 accuracy; a train set smaller than k votes as a whole."""
        k = min(self.k, int((train.y >= 0).sum()))
        return knn(train, test, k=k, temperature=self.temperature, device=device)

    def describe(self) -> str:
        return f"weighted cosine k-NN, k={self.k}, T={self.temperature:g}"
