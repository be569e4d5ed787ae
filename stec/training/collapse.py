"""Is the representation still saying anything? Two numbers, and one sentence if it is not."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS = 512


@torch.no_grad()
def std_and_rank(features: Tensor) -> tuple[Tensor, Tensor]:
    """Of features [B, D] (the first 512 rows): (spread, effective rank), two float32 scalars on their device.

    Spread: the features are normalised to length 1 each; the root mean square distance to their mean, 0 (all alike)
    to 1 (a cloud around the origin). It is sqrt(D) times the standard deviation that SimSiam (Chen & He, 2021) plots.
    Effective rank: RankMe (Garrido et al., 2023, Eq. 1), exp of the entropy of the singular values; 1 to min(B, D).
    """
    with torch.autocast(features.device.type, enabled=False):
        x = features[:_ROWS].detach().float()
        z = F.normalize(x, dim=1)
        spread = (z - z.mean(dim=0)).square().sum(dim=1).mean().sqrt()
        # Singular values through the smaller Gram matrix: cheaper than an SVD, and precise enough for an entropy.
        gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
        values = torch.linalg.eigvalsh(torch.nan_to_num(gram).double()).clamp(min=0).sqrt()
        shares = values / values.sum().clamp(min=1e-30)
        return spread, torch.exp(-torch.xlogy(shares, shares).sum()).float()


class Watch:
    """Compares each measurement with the first of the run; speaks once, when two in a row have fallen far below it.

    Relative to the first, because an untrained network may begin narrow: what matters is that training narrows it.
    """

    FALL, SPREAD, RANK = 0.25, 0.1, 2.0

    def __init__(self) -> None:
        self.first: list[float] | None = None
        self.low, self.told = 0, False

    def look(self, step: int, spread: float, rank: float) -> str | None:
        """A sentence, if this is where the representation is found to collapse."""
        if self.first is None:
            self.first = [spread, rank]
        narrow = spread < min(self.SPREAD, self.FALL * self.first[0])
        flat = rank < min(self.RANK, self.FALL * self.first[1])
        self.low = self.low + 1 if narrow or flat else 0
        if self.told or self.low < 2:
            return None
        self.told = True
        return (
            f"step {step}: the representation is collapsing: z_std {spread:.4f} (at first {self.first[0]:.4f}), "
            f"rankme {rank:.1f} (at first {self.first[1]:.1f}); all samples come to look alike to the encoder"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first, "low": self.low, "told": self.told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first, self.low, self.told = state["first"], state["low"], state["told"]
