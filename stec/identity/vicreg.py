"""VICReg (Bardes, Ponce and LeCun, ICLR 2022): the same thing lies at the same place, and the places are spread out.

q(a_id = 0 | x, x') is a Gaussian around t(x) at t(x') with one network t and 1 / sigma^2 = 2 * invariance / D, so that
-log q is the invariance term; no other thing is looked at, and variance and covariance (L_reg) stand in for it.

Legend: B samples of this rank, N samples of all ranks, D dimensions of an embedding.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from stec.distributed import gather, global_mean
from stec.encoder import Features
from stec.errors import UsageError, at_least
from stec.heads import MLP
from stec.losses import float_of
from stec.objective import Out, Term, tally
from stec.views import Views

_EPSILON = 1e-4


def vicreg(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three terms of VICReg's Eq. 6, unweighted, of embeddings z1, z2 [B, D] of two views: three scalars.

    invariance: mean over B and D of (z1 - z2)^2; variance: mean over D (and views) of max(0, 1 - sqrt(Var + 1e-4));
    covariance: sum of the squares off the diagonal of Cov, divided by D, summed over the two views. Var and Cov divide
    by N - 1 and are those of the samples of all ranks, with gradient. The mean over ranks is the global value.
    UsageError if shapes differ or N = 1.
    """
    if z1.shape != z2.shape or z1.dim() != 2:
        raise UsageError(f"vicreg takes two [B, D] of one shape, not {list(z1.shape)} and {list(z2.shape)}.")
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = (float_of(z) for z in (z1, z2))
        invariance = global_mean((z1 - z2).square())
        spreads, covariances = zip(*(_spread(gather(z)) for z in (z1, z2)), strict=True)
        return invariance, torch.stack(spreads).mean(), torch.stack(covariances).sum()


def _spread(z: Tensor) -> tuple[Tensor, Tensor]:
    """The variance and the covariance term of z [N, D]."""
    if len(z) < 2:
        raise UsageError("identity.vicreg measures how samples vary: a batch needs at least 2 of them.")
    z = z - z.mean(dim=0)
    covariance = z.T @ z / (len(z) - 1)  # torch.cov would ask the device for numbers, twice
    variances = covariance.diagonal()
    hinge = torch.relu(1 - (variances + _EPSILON).sqrt()).mean()
    return hinge, (covariance - variances.diag()).square().sum() / z.shape[1]


class VICReg(Term):
    """invariance, variance and covariance terms of projections of the first two views, each with a weight.

    invariance, variance, covariance: the weights, 0 or more (variance=0 covariance=0: without its safeguards).
    hidden, out: widths of the projector (the paper's expander): three linear layers, the last without bias.
    """

    num_views = 2

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        hidden: int = 2048,
        out: int = 2048,
    ):
        super().__init__()
        weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
        for name, weight in weights.items():
            if not 0 <= weight < float("inf"):
                raise UsageError(f"identity.vicreg.{name}={weight} must be finite, 0 or more.")
        at_least(1, "identity.vicreg", hidden=hidden, out=out)
        self.weights = weights
        self.projector = MLP(dims["pooled"], hidden, out, num_layers=3, last_bias=False)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:  # noqa: ARG002
        z1, z2 = self.projector(torch.cat([features[0].pooled, features[1].pooled])).chunk(2)
        parts = dict(zip(self.weights, vicreg(z1, z2), strict=True))
        loss = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        each = {f"train/vicreg_{name}": tally(part) for name, part in parts.items()}
        return Out(loss, {"train/loss_id": tally(loss), **each})

    def describe(self) -> str:
        weighted = " + ".join(f"{weight:g} x {name}" for name, weight in self.weights.items())
        collapsed = self.weights["variance"] * (1 - _EPSILON**0.5)
        return f"VICReg, {weighted}, over the batch of all ranks (all in one point: {collapsed:g})"
