"""Quarter turns: how far a picture is turned, an action of four values (what E-SSL, Dangovski et al. 2022, predicts).

Legend: B samples [B, C, S, S].
"""

import torch
from torch import Tensor

from stec.actions import Component, Relative
from stec.errors import UsageError
from stec.rng import uniform


class QuarterTurn:
    """A square view turned anticlockwise by 0, 1, 2 or 3 quarters, each as likely; exactly, pixel by pixel.

    first_view: views before it are not turned (with 2, the default, the first pair of views stays as it is, and a third
    one is there to be told how far it was turned: num_views=3). In a turned view right is no longer right, while a crop
    tells its action as if nobody had been turned: from pairs with a turned view only the turn is learnt.

    Parameter [B, 1]: the number of quarter turns. It stands after a crop, which makes views square.
    """

    num_params = 1
    components = (Component("quarter_turn", "quarter turns", 0.0, 3.0, (0.0, 1.0, 2.0, 3.0), 4.0),)

    def __init__(self, *, first_view: int = 2):
        if first_view < 0:
            raise UsageError(f"actions.quarter_turn.first_view={first_view} must be at least 0.")
        self.first_view = first_view
        self.num_views = first_view + 1

    def sample(self, keys: Tensor, extent: Tensor, view: int) -> Tensor:
        """float32 [B, 1] for keys int64 [B, 3]."""
        if view < self.first_view:
            return self.still(extent)
        return torch.from_numpy(uniform(keys.numpy(), view, "quarter_turn", 1)).mul(4).floor().float()

    def still(self, extent: Tensor) -> Tensor:
        """float32 [B, 1] for extents int64 [B, 2]: not turned."""
        return torch.zeros(len(extent), 1)

    def act(self, x: Tensor, action: Tensor, view: int) -> Tensor:
        """x [B, C, S, S] turned; a new tensor. UsageError if it is not square."""
        if x.shape[-1] != x.shape[-2]:
            raise UsageError(
                f"actions.quarter_turn: a view of {x.shape[-2]}x{x.shape[-1]} pixels cannot be turned in its place: put"
                " the part after affine_crop, which makes squares."
            )
        if view < self.first_view:
            return x.clone()
        number, turned = action[:, 0, None, None, None], x
        for quarters in (1, 2, 3):  # on an accelerator, asking which samples are turned would stall it
            turned = torch.where(number == quarters, x.rot90(quarters, (2, 3)), turned)
        return turned

    def relative(self, a: Tensor, b: Tensor) -> Relative:
        """Quarter turns [B, 1] that lead from a to b, [B, 1] each: their difference on the circle of four."""
        values = (b - a).remainder(4)
        return Relative(values, torch.ones_like(values, dtype=torch.bool))

    def disturbs(self, a: Tensor, b: Tensor) -> Tensor:
        """bool [B]: is either view turned? Then the other parts' copies are told in axes that are not the view's."""
        return ((a != 0) | (b != 0))[:, 0]

    def trusted(self, a: Tensor, b: Tensor) -> Tensor:  # noqa: ARG002
        """bool [B]: everywhere."""
        return torch.ones(len(a), dtype=torch.bool, device=a.device)
