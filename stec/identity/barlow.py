"""Barlow Twins (Zbontar et al., ICML 2021): two views of one thing agree coordinate by coordinate, and in no other way.

q(a_id = 0 | x, x') is a Gaussian in standardised coordinates: the mean over samples of (u_i - u'_i)^2 is 2 (1 - C_ii),
which the diagonal asks to vanish; no other thing is looked at, and the coordinates off the diagonal (L_reg) stand in.

Legend: B samples of this rank, N samples of all ranks, D dimensions of an embedding.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from stec.distributed import gather
from stec.encoder import Features
from stec.errors import UsageError, at_least
from stec.heads import MLP
from stec.losses import float_of
from stec.objective import Out, Term, tally
from stec.views import Views


def barlow_twins(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
    """Both sums of Barlow Twins' Eq. 1, unweighted, of embeddings z1, z2 [B, D] of two views: two scalars.

    (sum_i (1 - C_ii)^2, sum_{i != j} C_ij^2), C [D, D] = u1^T u2 / N, where u is z standardised over the samples of all
    ranks, with gradient (a batch norm without gain and shift, eps 1e-5). The same on all ranks. UsageError if shapes
    differ or N = 1.
    """
    if z1.shape != z2.shape or z1.dim() != 2:
        raise UsageError(f"barlow_twins takes two [B, D] of one shape, not {list(z1.shape)} and {list(z2.shape)}.")
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = (gather(float_of(z)) for z in (z1, z2))
        if len(z1) < 2:
            raise UsageError("identity.barlow correlates over samples: a batch needs at least 2 of them.")
        u1, u2 = (F.batch_norm(z, None, None, training=True) for z in (z1, z2))
        correlation = u1.T @ u2 / len(u1)
        diagonal = correlation.diagonal()
        return (1 - diagonal).square().sum(), (correlation - diagonal.diag()).square().sum()


class BarlowTwins(Term):
    """sum_i (1 - C_ii)^2 + redundancy * sum_{i != j} C_ij^2 of projections of the first two views.

    redundancy: the paper's lambda, 0 or more. hidden, out: widths of the projector: three linear layers, the last
    without bias.
    """

    num_views = 2

    def __init__(self, dims: Mapping[str, int], *, redundancy: float = 0.0051, hidden: int = 2048, out: int = 2048):
        super().__init__()
        if not 0 <= redundancy < float("inf"):
            raise UsageError(f"identity.barlow.redundancy={redundancy} must be finite, 0 or more.")
        at_least(1, "identity.barlow", hidden=hidden, out=out)
        self.redundancy, self.out = redundancy, out
        self.projector = MLP(dims["pooled"], hidden, out, num_layers=3, last_bias=False)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:  # noqa: ARG002
        z1, z2 = self.projector(torch.cat([features[0].pooled, features[1].pooled])).chunk(2)
        invariance, redundancy = barlow_twins(z1, z2)
        loss = invariance + self.redundancy * redundancy
        sums = {"train/barlow_invariance": tally(invariance), "train/barlow_redundancy": tally(redundancy)}
        return Out(loss, {"train/loss_id": tally(loss), **sums})

    def describe(self) -> str:
        details = f"redundancy {self.redundancy:g}, over the batch of all ranks; unrelated views: about {self.out}"
        return f"Barlow Twins, summed over {self.out} coordinates ({details})"
