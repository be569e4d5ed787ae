"""Allocentric frame: the difference of the two windows in the world's coordinates, A2 - A1, as a bystander sees it.

The frame `augself` tells differences of the same kind as that method's authors do.
"""

from torch import Tensor

from stec import affine
from stec.actions import Component


def components(axes: str) -> tuple[Component, ...]:
    """The entries of the matrix, row by row."""
    return tuple(Component(name, "half-extents") for name in affine.entry_names(axes))


def relate(first: Tensor, second: Tensor) -> Tensor:
    """[..., d+1, d+1] x 2 -> [..., d+1, d+1]: change of signed size (linear part) and of centre, in world half-extents.

    The last row stays (0, ..., 0, 1), so that all frames of matrices return one form.
    """
    difference = second - first
    return affine.homogeneous(difference[..., :-1, :-1], difference[..., :-1, -1])
