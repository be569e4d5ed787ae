"""Allocentric frame: plain differences of the two windows in world coordinates, A2 - A1 (the frame of AugSelf)."""

from torch import Tensor

from stec import affine


def relate(first: Tensor, second: Tensor) -> Tensor:
    """[..., d+1, d+1] x 2 -> [..., d+1, d+1]: difference of size (linear part) and of centre (translation), world half-extents.

    The homogeneous last row stays (0, ..., 0, 1) so that every frame returns the same shape and form.
    """
    difference = second - first
    return affine.homogeneous(difference[..., :-1, :-1], difference[..., :-1, -1])
