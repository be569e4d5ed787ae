"""The authors' release: its frame and its bins live in this file and nowhere else.

Facts about the code published with the paper (NeurIPS 2022), all of them kept:
* the second axis points up, so that its translation has the opposite sign of ours (its scale has not);
* the "inverse" of a window inverts the linear part but merely negates the translation, so that the action is
  theta_2 @ [inv(S_1) | -t_1], that is linear part S_2 inv(S_1) and translation t_2 - S_2 t_1 (S: linear part of theta);
* K bins per matrix entry (six in the paper): linear entries over (-2, 2), translations over (-.5, .5), outliers in the
  end bins, ties rounded half to even. All entries count, the constant ones included;
* all of it in float32, which decides on which side of an edge a value on it falls.
"""

import torch
from torch import Tensor

from stec import affine
from stec.actions import Component
from stec.errors import UsageError

LINEAR_LIMIT = 2.0
TRANSLATION_LIMIT = 0.5


def components(axes: str) -> tuple[Component, ...]:
    """The entries of the matrix, row by row."""
    names = affine.entry_names(axes)
    return tuple(Component(n, "half-extents" if n.startswith("translation") else "ratio") for n in names)


def relate(first: Tensor, second: Tensor) -> Tensor:
    """[..., d+1, d+1] x 2 -> [..., d+1, d+1] of the same type: theta_2 @ "inverse"(theta_1)."""
    size_1, move_1 = _parts(first)
    size_2, move_2 = _parts(second)
    inverse = torch.linalg.inv_ex(size_1).inverse
    # Sums of products instead of `@`, which autocast would carry out in 16 bits.
    size = (size_2.unsqueeze(-1) * inverse.unsqueeze(-3)).sum(-2)
    move = move_2 - (size_2 * move_1.unsqueeze(-2)).sum(-1)
    return affine.homogeneous(size, move).to(first)


def _parts(window: Tensor) -> tuple[Tensor, Tensor]:
    """Linear part [..., d, d] and translation [..., d] in float32, the second axis' translation upwards."""
    size, move = window[..., :-1, :-1].float(), window[..., :-1, -1].float()
    if move.shape[-1] == 2:
        move = move * torch.arange(1, -2, -2, device=move.device)  # 1, -1, made there
    return size, move


def limits(names: list[str]) -> Tensor:
    """[C, 2] the release's supports: entries called translation_* have their own. UsageError if there is any but these
    and linear_*."""
    if unknown := [n for n in names if not n.startswith(("linear_", "translation_"))]:
        raise UsageError(
            f"manipulation.binned.bins=published has no support for the component {unknown[0]}, only for linear_* and"
            " translation_*, the entries of a matrix: choose other bins, or actions without it."
        )
    return torch.tensor(
        [
            [-TRANSLATION_LIMIT, TRANSLATION_LIMIT] if n.startswith("translation") else [-LINEAR_LIMIT, LINEAR_LIMIT]
            for n in names
        ],
        dtype=torch.float64,
    )


def assign(values: Tensor, supports: Tensor, num_bins: int) -> Tensor:
    """Bin numbers int64 [B, C] of values [B, C] over supports [C, 2], rounded half to even and clamped."""
    values = values.float()
    low, high = supports[:, 0].to(values), supports[:, 1].to(values)
    return torch.round((values - low) / (high - low) * num_bins - 0.5).clamp(0, num_bins - 1).long()
