"""The frame of AugSelf (Lee et al., NeurIPS 2021): differences of centre and size, as shares of the whole sample.

Facts about their code: a view is the centre and the size of its window in fractions of the sample, and the target is
view 1 minus view 2. Where view 1 is mirrored, the first axis of *both* centres is mirrored before, so that a move is
told in the handedness of view 1 (but neither in its place nor in its scale: this frame is allocentric). Whether the two
views share their handedness is a target of its own.

Ours differs in two points: `mirrored` is 1 where handedness *differs* (their flag is 1 where it is shared), so that
0 is "nothing was done" in each component; and the first axis comes first (they tell the vertical one before).
"""

import torch
from torch import Tensor

from stec.actions import Component


def components(axes: str) -> tuple[Component, ...]:
    """centre_* and size_* of each axis, then `mirrored`."""
    differences = [f"{what}_{axis}" for what in ("centre", "size") for axis in axes]
    mirrored = Component("mirrored", "yes or no", low=0.0, high=1.0, levels=(0.0, 1.0))
    return (*(Component(name, "extents", low=-1.0, high=1.0) for name in differences), mirrored)


def relate(first: Tensor, second: Tensor) -> Tensor:
    """[..., d+1, d+1] x 2 -> [..., 2d+1]: view 1 minus view 2 of centres and of sizes, and whether one is mirrored.

    The size of a window that is turned or slanted is that of the box around it, at most all of the sample.
    """
    hand = _handedness(first)
    # Coordinates run from -1 to 1, fractions from 0 to 1.
    centre = (first[..., :-1, -1] - second[..., :-1, -1]) / 2
    centre = torch.cat([centre[..., :1] * hand, centre[..., 1:]], dim=-1)
    size = _box(first) - _box(second)
    return torch.cat([centre, size, (hand != _handedness(second)).to(size)], dim=-1)


def _box(window: Tensor) -> Tensor:
    """[..., d]: size of the upright box around a window, as a share of the sample."""
    return window[..., :-1, :-1].abs().sum(-1).clamp(max=1)


def _handedness(window: Tensor) -> Tensor:
    """[..., 1]: -1 where the view is mirrored, else 1."""
    turned = torch.linalg.det(window[..., :-1, :-1]) < 0
    return torch.where(turned, -1.0, 1.0).to(window)[..., None]
