"""What moves a picture: a window cut out of it, mirrored, turned and sheared, and resized to the network's square.

Legend: B samples, C channels, S side of a view, H x W the source, all in pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stec import affine
from stec.actions import Relative
from stec.errors import UsageError
from stec.frames import frame
from stec.rng import uniform

_TRIES = 10
_STEEPEST = 1.2
# Windows that merely touch do not overlap, whatever float64 makes of it; pixels are much larger than this.
_TOUCH = 1e-9
# On a CPU so many values of the sources are resized at a time: fresh memory costs more than the arithmetic done in it.
_AT_ONCE = 2**18


class AffineCrop:
    """RandomResizedCrop and horizontal flip with torchvision's law and pixels; optionally rotation and shear.

    size: side of a view in pixels. scale: range of the window's share of the area (uniform). ratio: range of width over
    height (log-uniform). flip: probability of mirroring. rotation, shear: the window is turned about its centre by an
    angle, and its upright edges are slanted by one, each uniform within +- so many radians. frame: in whose coordinates
    a relative action is told. require_overlap: pairs whose windows have no area in common are not to be learnt from.

    Multi-crop (Caron et al., SwAV, 2020): with num_global, only so many first views are as told; those after them are
    windows of small_scale, resized to small_size.

    Parameters [B, 9]: top, left, height, width (whole pixels), mirrored (0 or 1), H, W, angle, shear.
    """

    num_params = 9

    def __init__(
        self,
        *,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        rotation: float = 0.0,
        shear: float = 0.0,
        frame: str = "ego",
        require_overlap: bool = False,
        num_global: int | None = None,
        small_size: int | None = None,
        small_scale: tuple[float, float] = (0.05, 0.14),
    ):
        if size < 1:
            raise UsageError(f"actions.affine_crop.size={size} must be at least 1 pixel.")
        for name, shares in (("scale", scale), ("small_scale", small_scale)):
            if len(shares) != 2 or not 0 < shares[0] <= shares[1] <= 1:
                raise UsageError(
                    f"actions.affine_crop.{name}={list(shares)} must be two rising shares of the area in (0, 1]."
                )
        if num_global is not None and num_global < 1:
            raise UsageError(f"actions.affine_crop.num_global={num_global} must be at least 1, or null: all views.")
        if (num_global is None) != (small_size is None):
            raise UsageError("actions.affine_crop: num_global and small_size go together: set both, or neither.")
        if small_size is not None and not 1 <= small_size < size:
            raise UsageError(f"actions.affine_crop.small_size={small_size} must be at least 1 and below size={size}.")
        if len(ratio) != 2 or not 0 < ratio[0] <= ratio[1] < math.inf:
            raise UsageError(f"actions.affine_crop.ratio={list(ratio)} must be two rising ratios above 0.")
        if not 0 <= flip <= 1:
            raise UsageError(f"actions.affine_crop.flip={flip} must be a probability in [0, 1].")
        if not 0 <= rotation <= math.pi:
            raise UsageError(f"actions.affine_crop.rotation={rotation} must be in [0, pi] radians.")
        if not 0 <= shear <= _STEEPEST:
            raise UsageError(f"actions.affine_crop.shear={shear} must be in [0, {_STEEPEST}] radians.")
        self.size, self.scale, self.ratio = size, (scale[0], scale[1]), (ratio[0], ratio[1])
        self.num_global, self.small_size, self.small_scale = num_global, small_size, (small_scale[0], small_scale[1])
        self.flip, self.rotation, self.shear, self.require_overlap = flip, rotation, shear, require_overlap
        self._relate, components = _frame(frame)
        self.components = components("xy")

    def side(self, view: int) -> int:
        """The side of view number `view`, in pixels."""
        return self.size if self.small_size is None or self._is_global(view) else self.small_size

    @property
    def num_views(self) -> int:
        """The fewest views of a sample with which there is a small one, if there is to be any."""
        return 1 if self.num_global is None else self.num_global + 1

    def _is_global(self, view: int) -> bool:
        return self.num_global is None or view < self.num_global

    def sample(self, keys: Tensor, extent: Tensor, view: int) -> Tensor:
        """float32 [B, 9] for keys int64 [B, 3] and extents int64 [B, 2] = (H, W), by torchvision's
        RandomResizedCrop.get_params: the first of ten windows that fits, else the largest central one."""
        # In numpy, whose small arrays cost less; the numbers are the same.
        draws = torch.from_numpy(uniform(keys.numpy(), view, "affine_crop", 4 * _TRIES + 3))
        area, aspect, down, right = draws[:, : 4 * _TRIES].view(-1, _TRIES, 4).unbind(2)
        tall, wide = extent.double().T[:, :, None]
        low, high = self.scale if self._is_global(view) else self.small_scale
        area = (low + (high - low) * area) * tall * wide
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        aspect = torch.exp(low + (high - low) * aspect)
        width, height = torch.round((area * aspect).sqrt()), torch.round((area / aspect).sqrt())
        fits = (width >= 1) & (width <= wide) & (height >= 1) & (height <= tall)
        top, left = torch.floor(down * (tall - height + 1)), torch.floor(right * (wide - width + 1))
        first = fits.int().argmax(dim=1, keepdim=True)
        box = torch.stack([top, left, height, width], dim=2)
        box = box.gather(1, first[:, :, None].expand(-1, 1, 4)).squeeze(1)
        box = torch.where(fits.any(dim=1, keepdim=True), box, self._largest(tall, wide))
        mirrored, angle, shear = draws[:, 4 * _TRIES :].T
        angle, shear = (2 * angle - 1) * self.rotation, (2 * shear - 1) * self.shear
        rest = torch.stack([(mirrored < self.flip).double(), tall[:, 0], wide[:, 0], angle, shear], dim=1)
        return torch.cat([box, rest], dim=1).float()

    def _largest(self, tall: Tensor, wide: Tensor) -> Tensor:
        """The largest central window of an allowed ratio, [B, 4], for sources [B, 1] x [B, 1]."""
        height = torch.minimum(tall, torch.round(wide / self.ratio[0]).clamp(min=1))
        width = torch.minimum(wide, torch.round(tall * self.ratio[1]).clamp(min=1))
        top, left = torch.floor((tall - height) / 2), torch.floor((wide - width) / 2)
        return torch.cat([top, left, height, width], dim=1)

    @property
    def aspects(self) -> dict[str, tuple[int, ...]]:
        """What an action does, taken apart: {name: its columns}, of all that varies."""
        found = {"window": (0, 1, 2, 3), "mirrored": (4,), "turned": (7,), "slanted": (8,)}
        live = {"window": True, "mirrored": self.flip > 0, "turned": self.rotation > 0, "slanted": self.shear > 0}
        return {name: columns for name, columns in found.items() if live[name]}

    def still(self, extent: Tensor) -> Tensor:
        """float32 [B, 9] for extents int64 [B, 2]: the window that is all of the source, as it is."""
        nothing, size = torch.zeros(len(extent), 2), extent.float()
        return torch.cat([nothing, size, nothing[:, :1], size, nothing], dim=1)

    def act(self, x: Tensor, action: Tensor, view: int) -> Tensor:
        """Views [B, C, S, S] of sources x float [B, C, H, W] (H and W those the actions were drawn for).

        An upright window is resized by torchvision's antialiased bilinear filter, which sees nothing beyond the window
        (to about 1e-6; a matrix product, so 1e-3 if TF32 is allowed). With rotation or shear in use, views are sampled
        bilinearly from the whole source, edge pixels continued: that does not antialias where it shrinks.
        """
        size = self.side(view)
        with torch.autocast(x.device.type, enabled=False):
            if self.rotation or self.shear:
                theta = self.matrix(action)[:, :2].to(x.dtype)
                grid = F.affine_grid(theta, [*x.shape[:2], size, size], align_corners=False)
                return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
            num = max(1, _AT_ONCE // x.shape[1:].numel()) if x.device.type == "cpu" else max(1, len(x))
            pieces = zip(x.split(num), action[:, :5].to(x.dtype).split(num), strict=True)
            return torch.cat([_resized(some, boxes, size) for some, boxes in pieces])

    def matrix(self, action: Tensor) -> Tensor:
        """A_v float64 [B, 3, 3]: a view samples its source at p = A_v u (coordinates in [-1, 1], x right, y down)."""
        top, left, height, width, mirrored, tall, wide, angle, shear = action.double().unbind(1)
        cos, sin, slant = angle.cos(), angle.sin(), shear.tan()
        width, sign = width / wide, 1 - 2 * mirrored
        # A turn is one in pixels; in coordinates of a source that is not square it squeezes.
        high, longer = height / tall, tall / wide
        rows = [
            [sign * width * cos, high * longer * (cos * slant - sin)],
            [sign * width * sin / longer, high * (sin * slant + cos)],
        ]
        linear = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
        centre = torch.stack([2 * left / wide + width - 1, 2 * top / tall + high - 1], dim=1)
        return affine.homogeneous(linear, centre)

    def relative(self, a: Tensor, b: Tensor) -> Relative:
        """The action that leads from a to b, [B, 9] each, as its frame tells it: [B, K]; valid where trusted."""
        values = self._relate(self.matrix(a), self.matrix(b))
        return Relative(values.float(), self.trusted(a, b)[:, None].expand_as(values))

    def trusted(self, a: Tensor, b: Tensor) -> Tensor:
        """bool [B]: everywhere, or with require_overlap where the two windows have some area in common."""
        if not self.require_overlap:
            return torch.ones(len(a), dtype=torch.bool, device=a.device)
        first, second = self.matrix(a), self.matrix(b)
        return _reaches(first, second) & _reaches(second, first)


# The constructor's keyword `frame` hides the function of that name.
_frame = frame


def _reaches(first: Tensor, second: Tensor) -> Tensor:
    """bool [B]: in the first window's coordinates, does the box around the second window overlap the first?

    Two parallelograms overlap if and only if this holds both ways (the separating axes are normals of their sides).
    """
    seen = affine.compose(affine.invert(first), second)
    half = seen[:, :2, :2].abs().sum(dim=2)
    return (seen[:, :2, 2].abs() < 1 + half - _TOUCH).all(dim=1)


def _resized(x: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Views [B, C, size, size] of sources x [B, C, H, W]: boxes [B, 5] of (top, left, height, width, mirrored)."""
    top, left, height, width, mirrored = boxes.unbind(1)
    across = _resizing(left, width, mirrored, x.shape[3], size)
    along = _resizing(top, height, torch.zeros_like(mirrored), x.shape[2], size)
    batch, channels, rows, columns = x.shape
    narrow = torch.bmm(x.reshape(batch, channels * rows, columns), across.mT)
    each = along[:, None].expand(-1, channels, -1, -1).reshape(batch * channels, size, rows)
    return torch.bmm(each, narrow.view(batch * channels, rows, -1)).view(batch, channels, size, -1)


def _resizing(start: Tensor, length: Tensor, mirrored: Tensor, source: int, size: int) -> Tensor:
    """Weights [B, size, source] that resize the pixels start .. start + length (each [B]) of a line to `size` pixels.

    The triangle filter of PIL and torchvision, as wide as an output pixel (at least one source pixel to either side of
    its centre), cut off at the window's edges and normalised; `mirrored` [B] reverses the order of the outputs.
    """
    scale = (length / size)[:, None]
    reach = scale.clamp(min=1)
    output = torch.arange(size, device=start.device, dtype=start.dtype)
    output = torch.where(mirrored[:, None] > 0.5, size - 1 - output, output)
    centre = (output + 0.5) * (scale / reach)
    pixel = torch.arange(source, device=start.device, dtype=start.dtype) + 0.5 - start[:, None]
    outside = (pixel < 0) | (pixel > length[:, None])
    # A pixel at infinity weighs nothing; both weights and their sum are negative here, which cancels.
    pixel = (pixel / reach).masked_fill_(outside, torch.inf)
    weights = (pixel[:, None] - centre[:, :, None]).abs_().clamp_(max=1).sub_(1)
    return weights.div_(weights.sum(dim=2, keepdim=True))
