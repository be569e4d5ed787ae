"""What belongs to the thing and what to its background, where samples say so in their alpha channel."""

import torch
from torch import Tensor

from stec.errors import UsageError
from stec_vision.nuisance import Nuisance


class Background(Nuisance):
    """The background replaced by grey with probability p: x alpha + fill (1 - alpha) (ReLICv2, Tomasev et al. 2022).

    The fourth channel of views that `image_crop` with saliency=true cut is alpha, 1 on the thing and 0 around it; it is
    dropped from every view, touched or not. A view of three channels is all thing. fill: the grey, in [0, 1]. views:
    as in Nuisance; ReLICv2 does it in the large views only.

    Parameter [B, 1]: 1 if replaced. It stands right after the crop, since colours are those of three channels.
    """

    def __init__(self, *, p: float = 0.1, fill: float = 0.5, views: list[int] | None = None):
        super().__init__("background", p, views)
        if not 0 <= fill <= 1:
            raise UsageError(f"actions.background.fill={fill} must be in [0, 1].")
        self.fill = fill

    def drawn(self, keys: Tensor, view: int) -> Tensor:
        return (self.uniform(keys, view, 1) < self.p).float()

    def act(self, x: Tensor, action: Tensor, view: int) -> Tensor:
        """Views [B, 3, H, W] of x float [B, 4, H, W] (or [B, 3, H, W], which comes back as it is)."""
        return super().act(x, action, view)[:, :3]

    def change(self, x: Tensor, action: Tensor) -> Tensor:  # noqa: ARG002
        return torch.cat([self.fill + (x[:, :3] - self.fill) * x[:, 3:], x[:, 3:]], dim=1) if x.shape[1] == 4 else x
