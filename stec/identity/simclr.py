"""SimCLR (Chen et al., ICML 2020): the identity model is a softmax over everything else in the batch."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from stec.distributed import global_mean
from stec.encoder import Features
from stec.errors import UsageError
from stec.heads import Projector
from stec.losses import NEGATIVES, nt_xent, num_compared
from stec.objective import Out, Term, tally
from stec.views import Views


class SimCLR(Term):
    """NT-Xent on projections of the first two views, averaged over the 2B anchors of all ranks.

    temperature: divides the cosines; hidden, out: widths of the projector; negatives: "global" (all ranks) or "local".
    """

    num_views = 2

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        temperature: float = 0.5,
        hidden: int = 512,
        out: int = 64,
        negatives: str = "global",
    ):
        super().__init__()
        if not temperature > 0:
            raise UsageError(f"identity.simclr.temperature={temperature} is out of range: it must be above 0.")
        if min(hidden, out) < 1:
            raise UsageError(f"identity.simclr.hidden={hidden} and identity.simclr.out={out} must be at least 1.")
        if negatives not in NEGATIVES:
            raise UsageError(
                f"identity.simclr.negatives={negatives!r} is unknown: choose one of {', '.join(NEGATIVES)}."
            )
        self.temperature, self.negatives = temperature, negatives
        self.projector = Projector(dims["pooled"], hidden, out)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:  # noqa: ARG002
        # One call for both views: the projector's batch norm sees 2B samples, as the paper's does.
        z1, z2 = self.projector(torch.cat([features[0].pooled, features[1].pooled])).chunk(2)
        losses: Tensor = nt_xent(z1, z2, self.temperature, self.negatives)
        return Out(global_mean(losses), {"train/loss_id": tally(losses)})

    def chance(self, batch_size: int | None = None) -> dict[str, float]:
        if batch_size is None:
            return {}
        return {"train/loss_id": math.log(2 * num_compared(self.negatives, batch_size) - 1)}

    def describe(self) -> str:
        details = f"temperature {self.temperature:g}, {self.negatives} negatives, chance ln(2B - 1)"
        return f"NT-Xent averaged over 2B anchors ({details})"
