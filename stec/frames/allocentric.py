"""Allocentric frame: the difference of the two windows in the world's coordinates, A2 - A1, as a bystander sees it.

The targets of AugSelf (Lee et al., 2021) are differences of this kind: of centre and size, in their own units and sign.
"""

from torch import Tensor

from stec import affine


def relate(first: Tensor, second: Tensor) -> Tensor:
    """[..., d+1, d+1] x 2 -> [..., d+1, d+1]: change of signed size (linear part) and of centre, in world half-extents.

    The last row stays (0, ..., 0, 1), so that every frame returns one form.
    """
    difference = second - first
    return affine.homogeneous(difference[..., :-1, :-1], difference[..., :-1, -1])
