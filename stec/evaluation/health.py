"""The health of a representation, without labels: is it spread out, how many dimensions does it use?

Legend: N pairs, D width of the features.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stec.errors import UsageError

_SLAB = 2**25


def health(a: Tensor, b: Tensor) -> dict[str, float]:
    """std, rankme, alignment and uniformity of features a, b [N, D] of two views of N samples (N at least 2)."""
    if a.shape != b.shape or a.dim() != 2 or len(a) < 2:
        raise UsageError(f"health takes two [N, D] with N of at least 2, not {list(a.shape)} and {list(b.shape)}.")
    return {
        "std": (std(a) + std(b)) / 2,
        "rankme": rankme(a),
        "alignment": alignment(a, b),
        "uniformity": (uniformity(a) + uniformity(b)) / 2,
    }


def std(x: Tensor) -> float:
    """Mean over dimensions of the standard deviation of x / |x|, times sqrt(D): 1 if isotropic, 0 if collapsed."""
    return float(F.normalize(x.double(), dim=1).std(dim=0, unbiased=False).mean()) * math.sqrt(x.shape[1])


def rankme(x: Tensor) -> float:
    """exp of the entropy of the singular values of x [N, D], normalised to sum 1 (Garrido et al., ICML 2023, Eq. 1).

    Between 1 (a line) and min(N, D). The values are the roots of the smaller Gram matrix's eigenvalues, in float64.
    """
    x = x.double()
    gram = x.T @ x if x.shape[1] <= len(x) else x @ x.T
    values = torch.linalg.eigvalsh(gram).clamp(min=0)
    # Below the rounding of the largest eigenvalue there is noise, not rank.
    values = torch.where(values > values.max() * len(values) * torch.finfo(torch.float64).eps, values, 0).sqrt()
    total = values.sum()
    return float(torch.special.entr(values / total).sum().exp()) if total > 0 else 1.0


def alignment(a: Tensor, b: Tensor) -> float:
    """Mean squared distance of the two views' normalised features (Wang & Isola, ICML 2020): 0 if equal, at most 4."""
    return float((F.normalize(a.double(), dim=1) - F.normalize(b.double(), dim=1)).square().sum(dim=1).mean())


def uniformity(x: Tensor) -> float:
    """log mean exp(-2 d^2) over pairs of different samples, normalised features (Wang & Isola): 0 if all are one."""
    z = F.normalize(x.double(), dim=1)
    # d^2 = 2 - 2 cos; a sample's distance to itself, exp(0) = 1, is taken out again.
    rows = max(1, _SLAB // len(z))
    total = sum(float((4 * (part @ z.T) - 4).clamp(max=0).exp().sum()) for part in z.split(rows)) - len(z)
    return math.log(max(total, 1e-300) / (len(z) * (len(z) - 1)))
