"""How far features spread and how many dimensions they use: the same two numbers while training and in the evaluation.

A leaf. Float64 scalars on the features' device, without waiting for it; not a number if the features are not.
Legend: N samples, D width of the features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def std(x: Tensor) -> Tensor:
    """Of x [N, D]: the mean over dimensions of the standard deviation of x / |x|, times sqrt(D).

    1 if isotropic, 0 if collapsed: what SimSiam (Chen & He, CVPR 2021) plots, times sqrt(D).
    """
    return F.normalize(x.double(), dim=1).std(dim=0, unbiased=False).mean() * x.shape[1] ** 0.5


@torch.no_grad()
def rankme(x: Tensor) -> Tensor:
    """exp of the entropy of the singular values of x [N, D], normalised to sum 1 (Garrido et al., ICML 2023, Eq. 1).

    Between 1 (a line) and min(N, D). The values are the roots of the smaller Gram matrix's eigenvalues.
    """
    x = x.double()
    gram = x.T @ x if x.shape[1] <= len(x) else x @ x.T
    # The solver refuses what is not finite, with an error of its own.
    values = torch.linalg.eigvalsh(gram.nan_to_num(0, 0, 0)).clamp(min=0)
    # Below the rounding of the largest eigenvalue there is noise, not rank.
    values = torch.where(values > values.max() * len(values) * torch.finfo(torch.float64).eps, values, 0).sqrt()
    rank = torch.special.entr(values / values.sum().clamp(min=1e-300)).sum().exp()
    return torch.where(gram.isfinite().all(), rank, torch.nan)
