"""Colour, grey, blur and inversion: what changes the light of a picture and not its place. torchvision's arithmetic,
batched. Performed and never predicted, but for the colour jitter if wanted.

Every sample has its own parameters, drawn with its keys; performing them draws nothing.

Legend: B samples [B, 3, H, W], float in [0, 1]; N = H * W pixels; P parameters; S side of a view in 8 bits.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stec.actions import Component, Relative
from stec.errors import UsageError
from stec_vision.colour_matrix import GREY, matrices, matrix
from stec_vision.nuisance import Nuisance
from stec_vision.opencv import cv2

# The weights of grey (ITU-R BT.601 rounded as PIL and torchvision do).
_LUMA = (0.2989, 0.587, 0.114)
# The side of the views for which a blur is told in pixels.
_BLUR_SIDE = 224
# So many standard deviations of a Gaussian are summed: what is left out of it (3e-3 of the whole; 4e-8) is a third of
# a level between black and white in 8 bits, and nothing in float32.
_BLUR_REACH_8_BITS, _BLUR_REACH = 3.0, 5.5
# What a colour jitter does: name and unit.
_NAMES = [("brightness", "factor"), ("contrast", "factor"), ("saturation", "factor"), ("hue", "turns")]


class ColorJitter(Nuisance):
    """Brightness, contrast, saturation and hue, in an order drawn for each sample, with probability p.

    brightness, contrast, saturation: the factor is uniform in [max(0, 1 - it), 1 + it], and the result clamped to
    [0, 1]. hue: the shift is uniform within +- it, in turns of the colour circle, at most .5. predict: what varies is
    told as an action to be learnt: the second view's factor (or shift) minus the first one's (AugSelf's difference, Lee
    et al. 2021, not divided by its range). views: as in Nuisance. augment: "exact" is torchvision's law, clamped after
    each of the four; "fast" performs them as one matrix and clamps once (see stec_vision.colour_matrix), as `paint`
    does in any case.

    Parameters [B, 8]: the factors of brightness, contrast and saturation and the shift of hue, then their places in the
    order, 0 to 3 (where p says no: 1, 1, 1, 0, which changes nothing).
    """

    num_params = 8
    nothing = (1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 2.0, 3.0)

    def __init__(
        self,
        *,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        p: float = 0.8,
        predict: bool = False,
        views: list[int] | None = None,
        augment: str = "exact",
    ):
        if augment not in ("exact", "fast"):
            raise UsageError(f"actions.color_jitter.augment={augment!r} is unknown: choose exact or fast.")
        for name, strength in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            if not 0 <= strength < math.inf:
                raise UsageError(f"actions.color_jitter.{name}={strength} must be at least 0.")
        if not 0 <= hue <= 0.5:
            raise UsageError(f"actions.color_jitter.hue={hue} must be in [0, 0.5] turns.")
        super().__init__("color_jitter", p, views)
        self.augment = augment
        self.ranges = [(max(0.0, 1 - s), 1 + s) for s in (brightness, contrast, saturation)] + [(-hue, hue)]
        widths = [high - low for low, high in self.ranges]
        self._told = [i for i, width in enumerate(widths) if predict and width > 0]
        if predict and not (self._told and p):
            raise UsageError("actions.color_jitter.predict=true, but nothing varies: there is nothing to predict.")
        self.components = tuple(Component(*_NAMES[i], -widths[i], widths[i]) for i in self._told)

    def drawn(self, keys: Tensor, view: int) -> Tensor:
        draws, ranges = self.uniform(keys, view, 9), self.ranges
        values = torch.stack([low + (high - low) * draws[:, i] for i, (low, high) in enumerate(ranges)], dim=1)
        nothing = torch.tensor([1.0, 1, 1, 0], dtype=torch.float64)
        values = torch.where(draws[:, 8:] < self.p, values, nothing)
        places = draws[:, 4:8].argsort(dim=1, stable=True).argsort(dim=1)
        return torch.cat([values, places], dim=1).float()

    def relative(self, a: Tensor, b: Tensor) -> Relative:
        """How much more [B, K] the jitter of b [B, 8] does than that of a [B, 8]; K components that vary, or none."""
        if not self._told:
            return super().relative(a, b)
        values = torch.stack([b[:, i] - a[:, i] for i in self._told], dim=1)
        return Relative(values, torch.ones_like(values, dtype=torch.bool))

    def touches(self, action: Tensor) -> Tensor:
        return (action[:, :3] != 1).any(dim=1) | (action[:, 3] != 0)

    def alike(self, touched: Tensor, action: Tensor) -> tuple[Tensor, ...]:
        return tuple((touched & (action[:, 7] == place)).nonzero().squeeze(1) for place in range(4))

    def act(self, x: Tensor, action: Tensor, view: int) -> Tensor:
        """As in Nuisance; on an accelerator to 1e-3 if TF32 is allowed, since colours meet matrices."""
        if self.augment == "exact":
            return super().act(x, action, view)
        # The matrix of an action that changes nothing is the identity: there is no need to sort the samples.
        with torch.autocast(x.device.type, enabled=False):
            return self.change(x, action)

    def change(self, x: Tensor, action: Tensor) -> Tensor:
        flat, action = x.flatten(2), action.to(x.dtype)
        if self.augment == "fast":
            own, mean = matrices(action)
            return torch.baddbmm(mean @ flat.mean(dim=2, keepdim=True), own, flat).clamp_(0, 1).view(x.shape)
        hue_at = {int(action[0, 7])} if x.device.type == "cpu" else set(range(4))
        return _jitter(flat, action, hue_at).view(x.shape)

    def paint(self, view: np.ndarray, action: np.ndarray) -> np.ndarray:
        """As in Nuisance: the one matrix whatever `augment` says, summed in fixed point and rounded to 8 bits once."""
        if tuple(action[:4].tolist()) == self.nothing[:4]:
            return view
        own, mean = matrix(action)
        grey = mean * np.dot(cv2.mean(view)[:3], GREY) if mean else 0.0
        return cv2.transform(view, np.column_stack([own, np.full(3, grey)]))


def _jitter(x: Tensor, action: Tensor, hue_at: set[int]) -> Tensor:
    """ColorJitter's actions [B, 8] on x [B, 3, N]; hue_at: the places at which any of the samples turns its hue.

    Each sample has its own order. Brightness, contrast and saturation are one formula with different numbers, so at
    each place all samples take it together, those that turn their hue there with numbers that change nothing.
    """
    factors, shift, places = action[:, :3, None], action[:, 3], action[:, 4:, None]
    here = places == torch.arange(4, device=x.device)
    factor = torch.where(here[:, :3], factors, torch.ones_like(factors)).prod(dim=1)
    # Contrast adds the mean grey of the picture, saturation the grey of the pixel, each with weight 1 - factor.
    mean, grey = here[:, 1] * (1 - factor), here[:, 2] * (1 - factor)
    colours = torch.eye(3, device=x.device, dtype=x.dtype)[None]
    own = factor[:, :, None, None] * colours + grey[:, :, None, None] * _luma(colours)
    turn = _turn_by_opencv if x.dtype == torch.float32 and _plain(x) else _turn
    for place in range(4):
        if hue_at != {place}:
            pivot = mean[:, place, None, None] * _luma(x.mean(dim=2, keepdim=True))
            x = torch.baddbmm(pivot, own[:, place], x).clamp_(0, 1)
        if place in hue_at:
            x = turn(x, shift * here[:, 3, place])
    return x


def _plain(x: Tensor) -> bool:
    """Can OpenCV do it? It knows CPUs and no gradients."""
    return x.device.type == "cpu" and not x.requires_grad


def _luma(x: Tensor) -> Tensor:
    """Grey [B, 1, ...] of colours [B, 3, ...]."""
    red, green, blue = x.split(1, dim=1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def _turn(x: Tensor, shift: Tensor) -> Tensor:
    """Colours x [B, 3, N] turned on the colour circle by shift [B] turns: hue changes, HSV's value and saturation stay.

    With hue, value (the largest channel) and chroma (largest minus least) a channel is value + chroma - 6 * chroma * d:
    d, clamped to [1/6, 1/3], is the distance on the circle, in turns, of the hue from the channel's (0, 1/3 or 2/3).
    """
    red, green, blue = x.unbind(dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    sextants = 6 * chroma
    per_turn = sextants.clamp(min=torch.finfo(x.dtype).tiny).reciprocal_()
    # Which channel is largest, as numbers: on a CPU, choosing by booleans takes ten times as long.
    is_red, is_green = (torch.eq(one, value, out=torch.empty_like(value)) for one in (red, green))
    from_red = (green - blue).mul_(per_turn)
    from_green = (blue - red).mul_(per_turn).add_(1 / 3)
    from_blue = (red - green).mul_(per_turn).add_(2 / 3)
    hue = from_blue.lerp_(from_green, is_green).lerp_(from_red, is_red).add_(shift[:, None])
    channel = torch.arange(3, device=x.device, dtype=x.dtype)[:, None] / 3
    distance = hue[:, None] - channel
    distance = distance.sub_(distance.round()).abs_().clamp_(1 / 6, 1 / 3)
    return torch.addcmul(value.add_(chroma)[:, None], distance, sextants[:, None], value=-1)


def _turn_by_opencv(x: Tensor, shift: Tensor) -> Tensor:
    """The same as `_turn`, of float32 on a CPU, in half the time: to HSV and back."""
    hsv = cv2.cvtColor(x.mT.contiguous().numpy(), cv2.COLOR_RGB2HSV)
    # In degrees. The way back takes hues above a full circle, but none below 0.
    hsv[:, :, 0] += (360 * shift.remainder(1))[:, None].numpy()
    return torch.from_numpy(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).mT


class Grayscale(Nuisance):
    """Three equal channels of grey, with probability p. Parameter [B, 1]: 1 if grey."""

    def __init__(self, *, p: float = 0.2, views: list[int] | None = None):
        super().__init__("grayscale", p, views)

    def drawn(self, keys: Tensor, view: int) -> Tensor:
        return (self.uniform(keys, view, 1) < self.p).float()

    def change(self, x: Tensor, action: Tensor) -> Tensor:  # noqa: ARG002
        return _luma(x).expand_as(x)

    def paint(self, view: np.ndarray, action: np.ndarray) -> np.ndarray:
        """As in Nuisance: grey in fixed point, rounded to 8 bits."""
        return cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) if action[0] > 0 else view


class GaussianBlur(Nuisance):
    """Blur with a sampled Gaussian, edges reflected, with probability p; both numbers follow the size of the view.

    kernel: share of the view's side that the kernel spans, rounded down to whole pixels, then up to an odd number.
    sigma: range of the standard deviation (uniform), in pixels of a view of side 224; side S has S / 224 of it.
    Parameter [B, 1]: sigma at side 224, 0 if not blurred.
    """

    def __init__(
        self,
        *,
        p: float = 0.5,
        kernel: float = 0.1,
        sigma: tuple[float, float] = (0.1, 2.0),
        views: list[int] | None = None,
    ):
        super().__init__("gaussian_blur", p, views)
        if not 0 < kernel <= 1:
            raise UsageError(f"actions.gaussian_blur.kernel={kernel} must be a share of the view's side in (0, 1].")
        if len(sigma) != 2 or not 0 < sigma[0] <= sigma[1] < math.inf:
            raise UsageError(f"actions.gaussian_blur.sigma={list(sigma)} must be two rising numbers above 0.")
        self.kernel, self.sigma = kernel, (sigma[0], sigma[1])

    def drawn(self, keys: Tensor, view: int) -> Tensor:
        chosen, where = self.uniform(keys, view, 2).split(1, dim=1)
        low, high = self.sigma
        return torch.where(chosen < self.p, low + (high - low) * where, 0.0).float()

    def change(self, x: Tensor, action: Tensor) -> Tensor:
        batch, channels, rows, columns = x.shape
        if x.dtype in (torch.float32, torch.float64) and _plain(x):
            out = torch.empty(x.shape, dtype=x.dtype)
            for view, sigma, blurred in zip(x.numpy(), action[:, 0].tolist(), out.numpy(), strict=True):
                weights = self._weights(sigma, columns, _BLUR_REACH)
                for channel, place in zip(view, blurred, strict=True):
                    cv2.sepFilter2D(channel, -1, weights, weights, dst=place, borderType=cv2.BORDER_REFLECT_101)
            return out
        reach = int(self.kernel * columns) // 2
        # 0, of those not touched, must not be divided by.
        sigma = (action.to(x.dtype) * (columns / _BLUR_SIDE)).clamp(min=1e-3)
        steps = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
        each = torch.softmax(-0.5 * (steps / sigma) ** 2, dim=1)
        kernels = each.repeat_interleave(channels, dim=0)[:, None, :, None]
        padded = F.pad(x, (reach, reach, reach, reach), mode="reflect").flatten(0, 1)[None]
        tall = F.conv2d(padded, kernels, groups=batch * channels)
        return F.conv2d(tall, kernels.mT, groups=batch * channels).view(batch, channels, rows, columns)

    def paint(self, view: np.ndarray, action: np.ndarray) -> np.ndarray:
        """As in Nuisance: sums in float32, rounded to 8 bits once."""
        if not action[0] > 0:
            return view
        weights = self._weights(float(action[0]), view.shape[1], _BLUR_REACH_8_BITS)
        return cv2.sepFilter2D(view, -1, weights, weights, borderType=cv2.BORDER_REFLECT_101)

    def _weights(self, sigma: float, side: int, deviations: float) -> np.ndarray:
        """The kernel float64 [taps] for views of this side, no longer than so many standard deviations need."""
        sigma = max(sigma * side / _BLUR_SIDE, 1e-3)
        reach = min(int(self.kernel * side) // 2, math.ceil(deviations * sigma - 0.5))
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        return weights / weights.sum()


class Solarize(Nuisance):
    """Values of .5 and above inverted, with probability p. Parameter [B, 1]: 1 if solarised.

    A pair with a solarised view is not learnt from, as in the authors' code: none of its copies is trusted.
    """

    def __init__(self, *, p: float = 0.2, views: list[int] | None = None):
        super().__init__("solarize", p, views)

    def drawn(self, keys: Tensor, view: int) -> Tensor:
        return (self.uniform(keys, view, 1) < self.p).float()

    def change(self, x: Tensor, action: Tensor) -> Tensor:  # noqa: ARG002
        return torch.minimum(x, 1 - x)

    def paint(self, view: np.ndarray, action: np.ndarray) -> np.ndarray:
        """As in Nuisance: exact."""
        return np.minimum(view, ~view, out=view) if action[0] > 0 else view

    def trusted(self, a: Tensor, b: Tensor) -> Tensor:
        """bool [B]: neither view is solarised."""
        return ~(self.touches(a) | self.touches(b))
