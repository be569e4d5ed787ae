"""The manipulation model without classes: how far, component by component, as a number (the L2 cells of Fig. 3A).

-log q(a | x, x') of a normal law of fixed width around the prediction, up to constants.

Legend: B pairs, C live components, N draws.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from stec.actions import ActionSpace
from stec.copies import OfCopies, moments
from stec.distributed import global_mean
from stec.encoder import Features
from stec.errors import UsageError, at_least
from stec.heads import ManipulationHead, width
from stec.losses import float_of
from stec.objective import Out, tally
from stec.views import Views

SQUASHES = ("none", "tanh")


class Regression(OfCopies):
    """Mean squared error over valid pairs and live components of the efference copy.

    extents int64 [N, d]: sizes of samples of the data, for which actions are drawn. squash: "none": the target is the
    component less its mean, in its standard deviations (both those of the draws), so that the chance level is 1;
    "tanh", as AugSelf does: the head's output goes through tanh, and the target is the component less its mean, divided
    by the largest distance from the mean among the draws, which brings it into [-1, 1].
    hidden, tap, direction, yoked, keep_constant: as in the model `binned`, with whose head this one agrees but for the
    number of outputs. UsageError for a circular component: the distance of two angles is not that of two numbers.
    """

    mean: Tensor
    scale: Tensor
    variance: Tensor

    def __init__(
        self,
        dims: Mapping[str, int],
        space: ActionSpace,
        extents: Tensor,
        *,
        squash: str = "none",
        hidden: int = 512,
        direction: str = "forward",
        yoked: bool = False,
        keep_constant: bool = False,
        tap: str = "pooled",
    ):
        super().__init__()
        where = "manipulation.regression"
        if squash not in SQUASHES:
            raise UsageError(f"{where}.squash={squash!r} is unknown: choose one of {', '.join(SQUASHES)}.")
        at_least(1, where, hidden=hidden)
        drawn = self.fit(where, space, extents, direction=direction, tap=tap, yoked=yoked, keep_constant=keep_constant)
        for component in self.components:
            if component.period > 0:
                raise UsageError(f"{where} cannot regress the circular component {component.name}: choose binned.")
        self.squash = squash
        mean, deviation = moments(drawn)
        apart = torch.where(drawn.valid, drawn.values - mean, 0.0).abs()
        scale = deviation if squash == "none" else apart.amax(dim=0)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.where(scale > 0, scale, 1.0))
        self.register_buffer("variance", (apart / self.scale).square().sum(dim=0) / drawn.valid.sum(dim=0).clamp(min=1))
        self.head = ManipulationHead(width(dims, tap), hidden, len(self.components), 1)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        values, valid = self.given(views)
        predicted = self.head(self.look(features)).squeeze(2)
        with torch.autocast(predicted.device.type, enabled=False):
            predicted = float_of(predicted)
            if self.squash == "tanh":
                predicted = predicted.tanh()
            errors = (predicted - ((values - self.mean) / self.scale).to(predicted)).square()
        errors = torch.where(valid, errors, torch.zeros_like(errors))
        explained = 1 - errors.detach() / self.variance.clamp(min=1e-12)
        sums = {"train/loss_manip": tally(errors, valid)}
        for c, component in enumerate(self.components):
            sums[f"train/action_r2/{component.name}"] = tally(explained[:, c], valid[:, c])
        return Out(global_mean(errors, valid), sums)

    def chance(self, batch_size: int | None = None) -> dict[str, float]:  # noqa: ARG002
        levels = {f"train/action_r2/{component.name}": 0.0 for component in self.components}
        return {"train/loss_manip": float(self.variance.mean())} | levels

    def describe(self) -> str:
        names = ", ".join(c.name for c in self.components)
        unit = "standardised" if self.squash == "none" else "in [-1, 1], read through tanh"
        level = f"chance {self.variance.mean():.3f}"
        return f"mean squared error over {len(self.components)} components ({names}), {unit}, {level}{self.asides()}"
