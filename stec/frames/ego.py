"""Egocentric frame (default): the action as the first view would feel it, E12 = inv(A1) A2.

Warping view 1 with E12 gives view 2; E13 = E12 E23; E21 = inv(E12); re-coordinatising the world changes nothing.
"""

from torch import Tensor

from stec import affine
from stec.actions import Component


def components(axes: str) -> tuple[Component, ...]:
    """The entries of the matrix, row by row."""
    names = affine.entry_names(axes)
    return tuple(Component(n, "half-windows" if n.startswith("translation") else "ratio") for n in names)


def relate(first: Tensor, second: Tensor) -> Tensor:
    """[..., d+1, d+1] x 2 -> [..., d+1, d+1]: size in units of the first window, move in its half-windows."""
    return affine.compose(affine.invert(first), second)
