"""What changes the light of a picture and not its place: performed on some samples and views, as a rule not predicted.

Legend: B samples [B, C, H, W], float in [0, 1]; P parameters of an action.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from stec.actions import Component, Relative
from stec.errors import UsageError
from stec.rng import uniform


class Nuisance:
    """What they share: no component to predict, which samples need work, and in which views.

    views: numbers of the views in which it is performed, from 0; None: in all. (BYOL's blur of p 1 in one view and .1
    in the other is two parts.)

    One that needs no float may have one thing more, `paint(view, action)`, with which a loading process performs it on
    one view: the view uint8 [S, S, 3] (contiguous, to be changed in place if that is convenient) and its action float32
    [P], both numpy's, to the view uint8 [S, S, 3]. An action that changes nothing gives back the view itself.
    """

    components: tuple[Component, ...] = ()
    num_params = 1
    nothing: tuple[float, ...] = (0.0,)
    """The action, [P], that changes nothing."""
    at_once = 2**18
    """On a CPU so many values are changed at a time: what stays in its cache need not be fetched again."""

    def __init__(self, part: str, p: float, views: Sequence[int] | None):
        if not 0 <= p <= 1:
            raise UsageError(f"actions.{part}.p={p} must be a probability in [0, 1].")
        if views is not None and (not views or min(views) < 0 or len(set(views)) < len(views)):
            raise UsageError(
                f"actions.{part}.views={list(views)} must be different numbers of views, each at least 0, or null for"
                " all views."
            )
        self.part, self.p, self.views = part, p, None if views is None else tuple(views)
        self.num_views = 1 if views is None else max(views) + 1

    def sample(self, keys: Tensor, extent: Tensor, view: int) -> Tensor:  # noqa: ARG002
        """float32 [B, P] for keys int64 [B, 3]; nothing in views that are not its own."""
        if self.views is not None and view not in self.views:
            return torch.tensor(self.nothing).expand(len(keys), -1).clone()
        return self.drawn(keys, view)

    def drawn(self, keys: Tensor, view: int) -> Tensor:
        """The actions float32 [B, P] of a view in which it is performed."""
        raise NotImplementedError

    def uniform(self, keys: Tensor, view: int, num: int) -> Tensor:
        """float64 [B, num] in [0, 1): drawn in numpy, whose small arrays cost less; the numbers are the same."""
        return torch.from_numpy(uniform(keys.numpy(), view, self.part, num))

    def still(self, extent: Tensor) -> Tensor:
        """float32 [B, P] for extents int64 [B, 2]: the action that changes nothing."""
        return torch.tensor(self.nothing).expand(len(extent), -1).clone()

    def act(self, x: Tensor, action: Tensor, view: int) -> Tensor:  # noqa: ARG002
        """Perform the actions [B, P] on x float [B, C, H, W] in [0, 1]; x itself stays as it is."""
        with torch.autocast(x.device.type, enabled=False):
            touched = self.touches(action)
            if x.device.type != "cpu":
                # Asking an accelerator which samples are touched would stall it: all are changed, and some dropped.
                return torch.where(touched[:, None, None, None], self.change(x, action), x)
            out = x.clone()
            for rows in filter(len, self.alike(touched, action)):
                for some in rows.split(max(1, self.at_once // x.shape[1:].numel())):
                    out[some] = self.change(x[some], action[some])
            return out

    def touches(self, action: Tensor) -> Tensor:
        """bool [B]: does the action [B, P] change anything?"""
        return action[:, 0] > 0

    def change(self, x: Tensor, action: Tensor) -> Tensor:
        """x changed, as a new tensor. On a CPU all rows come from one entry of `alike`."""
        raise NotImplementedError

    def alike(self, touched: Tensor, action: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG002
        """The numbers of the touched samples, in groups whose work is the same."""
        return (touched.nonzero().squeeze(1),)

    def relative(self, a: Tensor, b: Tensor) -> Relative:  # noqa: ARG002
        """Nothing to predict: values and valid [B, 0]."""
        return Relative(a.new_empty(len(a), 0), torch.empty(len(a), 0, dtype=torch.bool, device=a.device))

    def trusted(self, a: Tensor, b: Tensor) -> Tensor:  # noqa: ARG002
        """bool [B]: the other parts' copies may be learnt from."""
        return torch.ones(len(a), dtype=torch.bool, device=a.device)
