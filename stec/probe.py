"""The online probe: a linear reader that trains along with the encoder and never disturbs it."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from stec.distributed import global_mean
from stec.encoder import Features, tap
from stec.errors import UsageError
from stec.heads import width
from stec.objective import Out, Term, tally
from stec.views import Views


class OnlineProbe(Term):
    """Linear classifier on detached features of every view (the paper trains it on both, augmentations and all).

    tap: which features. Labels -1 are unknown and ignored; a batch without labels gives loss 0 and no accuracy.
    """

    couples_batch = False

    def __init__(self, dims: Mapping[str, int], num_classes: int, *, tap: str = "pooled"):
        super().__init__()
        if num_classes < 2:
            raise UsageError(f"the online probe needs labels of at least 2 classes, but the data has {num_classes}.")
        self.needs = frozenset({tap})
        self.tap = tap
        self.linear = nn.Linear(width(dims, tap), num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        logits = self.linear(torch.cat([tap(f, self.tap).detach() for f in features])).float()
        if views.labels is None:
            labels = torch.full((len(logits),), -1, device=logits.device)
        else:
            labels = views.labels.repeat(len(features))
        losses = F.cross_entropy(logits, labels, ignore_index=-1, reduction="none")
        known = labels >= 0
        loss = global_mean(losses, known)  # also without labels: every parameter stays on the graph, as DDP wants it
        if views.labels is None:
            return Out(loss, {})
        right = (logits.argmax(dim=1) == labels).float()
        return Out(loss, {"probe/online/top1": tally(right, known), "probe/online/loss": tally(losses, known)})

    def chance(self, batch_size: int | None = None) -> dict[str, float]:  # noqa: ARG002
        """Of a guesser who takes all classes for equally likely."""
        num = self.linear.out_features
        return {"probe/online/top1": 1 / num, "probe/online/loss": math.log(num)}

    def describe(self) -> str:
        chance = 1 / self.linear.out_features
        return f"linear probe on detached features ({self.linear.out_features} classes, chance {chance:.3f})"
