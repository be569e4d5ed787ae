"""In whose coordinates an action is told. One frame, one file; each offers `relate(first, second)`."""

from collections.abc import Callable

from torch import Tensor

from stec.errors import UsageError
from stec.frames import allocentric, ego, published

FRAMES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ego": ego.relate,
    "allocentric": allocentric.relate,
    "published": published.relate,
}


def frame(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The `relate` function of a named frame; UsageError lists the names there are."""
    if name not in FRAMES:
        raise UsageError(f"frame={name!r} is unknown: choose one of {', '.join(FRAMES)}.")
    return FRAMES[name]
