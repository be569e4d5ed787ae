"""A colour jitter as one matrix: brightness, contrast, saturation and hue of a picture in a single pass over it.

Between its steps the exact law clamps to [0, 1]; without that all four are linear in a pixel x and in the mean colour m
of the picture. Let g be the weights of grey (ITU-R BT.601, which add up to 1) and J = 1 g' the matrix that makes a
colour grey. Brightness b takes x to b x; contrast c to c x + (1 - c) J m; saturation s to s x + (1 - s) J x. Hue is a
rotation about the grey axis: YIQ has grey for its first coordinate, and the angle in its I-Q plane is the hue (red,
yellow, green, ... come at falling angles), so a shift of h turns is

    R = J + cos(2 pi h) (I - J) + sin(2 pi h) W,   W = inv(T) [[0, 0, 0], [0, 0, 1], [0, -1, 0]] T,   T: RGB -> YIQ.

Since J J = J R = R J = J, the four commute, whatever order was drawn, and together they take x to L x + K m:

    L = b c (J + s (R - J)),   K = b (1 - c) J.

Unlike HSV's, this hue keeps the grey of a pixel and not its largest channel, and saturated colours leave the cube and
are clamped. (Rotation in YIQ: as DALI and FFCV-SSL turn hue; Haeberli, "Matrix Operations for Image Processing", 1993.)

Legend: B samples; the actions [B, 8] are ColorJitter's: b, c, s and h, then an order, which changes nothing here.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

GREY = (0.299, 0.587, 0.114)
"""Of red, green and blue: what they weigh in grey."""
_YIQ = np.array([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
_TURN = np.array([(0, 0, 0), (0, 0, 1), (0, -1, 0)])
_J = np.ones((3, 1)) * _YIQ[:1]
_W = np.linalg.inv(_YIQ) @ _TURN @ _YIQ
# L is a sum of these, the identity first; J's share is such that an action that changes nothing gives exactly I.
_BASIS = np.stack([np.eye(3), _J, _W]).reshape(3, 9)


def matrices(action: Tensor) -> tuple[Tensor, Tensor]:
    """L and K, [B, 3, 3] each, of the actions [B, 8]: a picture of mean colour m becomes clamp(L x + K m)."""
    brightness, contrast, saturation, shift = action[:, :4].unbind(1)
    angle, gain = 2 * math.pi * shift, brightness * contrast
    along = saturation * angle.cos()
    shares = gain[:, None] * torch.stack([along, 1 - along, saturation * angle.sin()], dim=1)
    basis = _basis(shares.device, shares.dtype)
    grey = (brightness - gain)[:, None] * basis[1]
    return (shares @ basis).view(-1, 3, 3), grey.view(-1, 3, 3)


@cache
def _basis(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Copied once: an accelerator that is sent a constant in each step keeps the host waiting."""
    return torch.from_numpy(_BASIS).to(device, dtype)


def matrix(action: np.ndarray) -> tuple[np.ndarray, float]:
    """L [3, 3] float64 of one action [8], and how much of the mean grey is added, b (1 - c): in plain numbers, whose
    arithmetic costs less than that of small tensors."""
    brightness, contrast, saturation, shift = action[:4].tolist()
    angle, gain = 2 * math.pi * shift, brightness * contrast
    along = saturation * math.cos(angle)
    shares = np.array([gain * along, gain * (1 - along), gain * saturation * math.sin(angle)])
    return (shares @ _BASIS).reshape(3, 3), brightness - gain
