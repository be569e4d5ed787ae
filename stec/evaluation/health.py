"""The health of a representation, without labels: is it spread out, how many dimensions does it use?

Legend: N pairs, D width of the features.
"""

import math

import torch.nn.functional as F
from torch import Tensor

from stec.errors import UsageError
from stec.spectrum import rankme, std

_SLAB = 2**25


def health(a: Tensor, b: Tensor) -> dict[str, float]:
    """std, rankme, alignment and uniformity of features a, b [N, D] of two views of N samples (N at least 2)."""
    if a.shape != b.shape or a.dim() != 2 or len(a) < 2:
        raise UsageError(f"health takes two [N, D] with N of at least 2, not {list(a.shape)} and {list(b.shape)}.")
    return {
        "std": float(std(a) + std(b)) / 2,
        "rankme": float(rankme(a)),
        "alignment": alignment(a, b),
        "uniformity": (uniformity(a) + uniformity(b)) / 2,
    }


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
