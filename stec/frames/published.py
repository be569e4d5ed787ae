"""The authors' release, bit for bit: its frame and its bins live in this file and nowhere else.

Facts about the code published with Scherr, Guo and Moraitis (NeurIPS 2022):
* the vertical axis (the last one of two) points up, so that translation has the opposite sign of ours;
* the "inverse" of a window inverts the linear part but merely negates the translation, hence
  E = [linear(second) linear(first)^-1 | t_second - linear(second) linear(first)... ], which is theta_2 @ pseudo_inverse(theta_1);
* six bins per matrix entry: linear entries over (-2, 2), translations over (-.5, .5), outliers clamped to the edge bins,
  ties rounded half to even. All entries count, the constant ones included.
"""

import torch
from torch import Tensor

from stec import affine

LINEAR_LIMIT = 2.0
TRANSLATION_LIMIT = 0.5


def _upward(matrix: Tensor) -> Tensor:
    """Flip the sign of the second axis' translation (a release quirk: its crop theta has y up, its scale has not)."""
    if matrix.shape[-1] != 3:
        return matrix
    sign = torch.ones_like(matrix)
    sign[..., 1, 2] = -1
    return matrix * sign


def relate(first: Tensor, second: Tensor) -> Tensor:
    """[..., d+1, d+1] x 2 -> [..., d+1, d+1]: theta_2 @ pseudo_inverse(theta_1), translation t_2 - A_2 t_1."""
    first, second = _upward(first), _upward(second)
    linear = affine.invert(first)[..., :-1, :-1]
    pseudo_inverse = affine.homogeneous(linear, -first[..., :-1, -1])
    return affine.compose(second, pseudo_inverse)


def limits(names: list[str]) -> Tensor:
    """[C, 2] the release's supports: entries called translation_* have their own."""
    return torch.tensor(
        [
            [-TRANSLATION_LIMIT, TRANSLATION_LIMIT] if n.startswith("translation") else [-LINEAR_LIMIT, LINEAR_LIMIT]
            for n in names
        ],
        dtype=torch.float64,
    )


def assign(values: Tensor, supports: Tensor, num_bins: int) -> Tensor:
    """Bin numbers int64 [B, C] of values [B, C] over supports [C, 2], by the release's rounding (half to even, clamped)."""
    low, high = supports[:, 0].to(values), supports[:, 1].to(values)
    return torch.round((values - low) / (high - low) * num_bins - 0.5).clamp(0, num_bins - 1).long()
