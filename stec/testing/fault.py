"""How a check ends that does not pass."""

from unittest import SkipTest as Skip

import torch
from torch import Tensor

__all__ = ["Fault", "Skip", "require", "same", "shape"]


class Fault(AssertionError):
    """A part breaks its contract; the sentence says where, how, and what was expected."""


def require(holds: bool, sentence: str) -> None:
    """Fault with the sentence, unless it holds."""
    if not holds:
        raise Fault(sentence)


def shape(found: object, expected: list[int | None], what: str) -> None:
    """Fault unless `found` is a tensor of this shape (None: of any length)."""
    require(isinstance(found, Tensor), f"{what} is a {type(found).__name__}; a tensor was expected.")
    assert isinstance(found, Tensor)
    fits = found.dim() == len(expected) and all(e in (None, f) for f, e in zip(found.shape, expected, strict=True))
    wanted = ", ".join("any" if e is None else str(e) for e in expected)
    require(fits, f"{what} has the shape {list(found.shape)}; [{wanted}] was expected.")


def same(one: Tensor, other: Tensor, tolerance: float = 0.0) -> bool:
    """Equal in type and shape, and in each number (NaN equals NaN) up to `tolerance` of the largest."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not tolerance:
        return (
            torch.equal(one.nan_to_num(1e30), other.nan_to_num(1e30))
            if one.is_floating_point()
            else torch.equal(one, other)
        )
    scale = max(1.0, float(one.detach().double().abs().nan_to_num().max())) if one.numel() else 1.0
    return torch.allclose(one.double(), other.double(), rtol=0, atol=tolerance * scale, equal_nan=True)
