"""In whose coordinates an action is told. One frame, one file.

Legend: K components, d dimensions of the signal.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from stec import affine
from stec.actions import Component
from stec.errors import UsageError
from stec.frames import allocentric, augself, ego, published


class Frame(NamedTuple):
    """relate(first, second): the windows A_v [..., d+1, d+1] of two views -> values [..., K] of the action that leads
    from the first to the second. components(axes): what the K values are, for axes such as "xy" or "t"."""

    relate: Callable[[Tensor, Tensor], Tensor]
    components: Callable[[str], tuple[Component, ...]]


def _entries(relate: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor) -> Tensor:
    return affine.entries(relate(first, second))


# Partial functions and not lambdas: an action space travels to the workers, its frame with it.
FRAMES: dict[str, Frame] = {
    "ego": Frame(partial(_entries, ego.relate), ego.components),
    "allocentric": Frame(partial(_entries, allocentric.relate), allocentric.components),
    "augself": Frame(augself.relate, augself.components),
    "published": Frame(partial(_entries, published.relate), published.components),
}


def frame(name: str) -> Frame:
    """A frame by its name; UsageError lists the names there are."""
    if name not in FRAMES:
        raise UsageError(f"frame={name!r} is unknown: choose one of {', '.join(FRAMES)}.")
    return FRAMES[name]
