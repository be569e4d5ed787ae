"""Affine maps of any dimension as homogeneous matrices [..., d+1, d+1].

A view v of a signal samples the source at p = A_v u, where u in [-1, 1]^d are the view's own coordinates and p in
[-1, 1]^d those of the source (edges at +-1; the first coordinate is the fastest axis, as in `affine_grid`).
"""

import torch
from torch import Tensor


def homogeneous(linear: Tensor, translation: Tensor) -> Tensor:
    """Linear part [..., d, d] and translation [..., d] -> [..., d+1, d+1]."""
    d = linear.shape[-1]
    top = torch.cat([linear, translation.unsqueeze(-1)], dim=-1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 0, d] = 1
    return torch.cat([top, bottom], dim=-2)


def identity(dimension: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """[d+1, d+1]: the map that does nothing."""
    return torch.eye(dimension + 1, dtype=dtype)


def _product(a: Tensor, b: Tensor) -> Tensor:
    # Autocast would multiply float32 matrices in 16 bits: three digits are not enough to tell where a window lies.
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """outer o inner, [..., d+1, d+1] each: first inner, then outer."""
    return _product(outer, inner)


def invert(matrix: Tensor) -> Tensor:
    """The inverse map, [..., d+1, d+1]; torch's LinAlgError if the linear part is singular (a window without extent).

    The error is for the CPU: elsewhere the check would make the host wait for the device, in every step.
    """
    linear = torch.linalg.inv_ex(matrix[..., :-1, :-1], check_errors=matrix.device.type == "cpu").inverse
    return homogeneous(linear, -_product(linear, matrix[..., :-1, -1:]).squeeze(-1))


def window(centre: Tensor, half: Tensor) -> Tensor:
    """Axis-aligned window from centre and half-size, [..., d] each, in source coordinates; negative half = mirrored."""
    return homogeneous(torch.diag_embed(half), centre)


def apply(matrix: Tensor, points: Tensor) -> Tensor:
    """Map points [..., N, d] by matrix [..., d+1, d+1] -> [..., N, d]."""
    return _product(points, matrix[..., :-1, :-1].transpose(-1, -2)) + matrix[..., None, :-1, -1]


def entries(matrix: Tensor) -> Tensor:
    """The free entries [..., d * (d+1)] row by row: linear_xx linear_xy ... translation_x | next row."""
    return matrix[..., :-1, :].flatten(-2)


def entry_names(axes: str) -> list[str]:
    """Names of `entries` for axes such as "xy" or "t"."""
    return [n for row in axes for n in [*(f"linear_{row}{column}" for column in axes), f"translation_{row}"]]
