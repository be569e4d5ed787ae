"""The manipulation model of the paper (Eq. 5): each component of the action is a class, read off both views' features.

Legend: B pairs, K bins, C live components, A all components of the action space, d dimensions of the signal.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stec.actions import ActionSpace, Component
from stec.bins import Bins
from stec.copies import OfCopies
from stec.distributed import global_mean
from stec.encoder import Features
from stec.errors import UsageError
from stec.heads import ManipulationHead, width
from stec.losses import float_of
from stec.objective import Out, tally
from stec.views import Views


class Posterior(NamedTuple):
    """q(what was done | two views): for each of C components (with units) its log-probabilities in nats over K bins.

    log_probs [B, C, K] (-inf for bins a component does not have), edges [C, K-1] (+inf likewise), centres [C, K]: a
    typical value of each bin, num_bins [C].
    """

    components: tuple[Component, ...]
    edges: Tensor
    centres: Tensor
    num_bins: Tensor
    log_probs: Tensor


class Binned(OfCopies):
    """Mean cross-entropy over valid pairs and live components of the binned efference copy.

    extents int64 [N, d]: sizes of samples of the data, on which the bins are fitted by drawing actions. Components that
    are constant in this action space are left out (`dropped`), unless keep_constant.
    bins, num_bins, noise: see Bins; with noise the target is not one bin but the probabilities that the noisy copy
    falls into each, bits are those about the noisy copy, and accuracies those of naming the bin of the exact one.
    hidden: width of the head. tap: which output of the encoder is read. direction: "forward" = view 0 -> view 1 only
    (as the paper's code), "both" = also 1 -> 0. yoked: the control in which every pair is given the efference copy of
    its neighbour in this rank's batch: same head, same labels, no relation to what was done.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        space: ActionSpace,
        extents: Tensor,
        *,
        bins: str = "equal_mass",
        num_bins: int = 6,
        noise: float = 0.0,
        hidden: int = 512,
        direction: str = "forward",
        yoked: bool = False,
        keep_constant: bool = False,
        tap: str = "pooled",
    ):
        super().__init__()
        where = "manipulation.binned"
        if hidden < 1:
            raise UsageError(f"{where}.hidden={hidden} is out of range: it must be at least 1.")
        drawn = self.fit(where, space, extents, direction=direction, tap=tap, yoked=yoked, keep_constant=keep_constant)
        self.bins = Bins(self.components, *drawn, kind=bins, num_bins=num_bins, noise=noise)
        most = self.bins.edges.shape[1] + 1
        self.head = ManipulationHead(width(dims, tap), hidden, len(self.components), most)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        values, valid = self.given(views)
        target = self.bins.assign(values)
        log_probs = self._log_probs(self.look(features))
        if self.bins.noise > 0:
            shares = self.bins.masses(values).to(log_probs)
            losses = -(shares * log_probs.masked_fill(~self.bins.exists(), 0)).sum(dim=2)
        else:
            losses = -log_probs.gather(2, target[..., None]).squeeze(2)
        losses = torch.where(valid, losses, torch.zeros_like(losses))
        right = log_probs.detach().argmax(dim=2) == target
        bits = (self.bins.chance - losses.detach()) / math.log(2)
        sums = {"train/loss_manip": tally(losses, valid)}
        for c, component in enumerate(self.components):
            sums[f"train/action_acc/{component.name}"] = tally(right[:, c], valid[:, c])
            sums[f"train/action_bits/{component.name}"] = tally(bits[:, c], valid[:, c])
        return Out(global_mean(losses, valid), sums)

    def posterior(self, a: Features, b: Features) -> Posterior:
        """q(action | a, b) for B pairs, as the head stands (put it in eval mode first: it has batch statistics)."""
        bins = self.bins
        return Posterior(self.components, bins.edges, bins.centres, bins.num_bins, self._log_probs(self.beside(a, b)))

    def _log_probs(self, seen: Tensor) -> Tensor:
        logits = self.head(seen)
        with torch.autocast(logits.device.type, enabled=False):
            return F.log_softmax(float_of(logits).masked_fill(~self.bins.exists(), -torch.inf), dim=2)

    def chance(self, batch_size: int | None = None) -> dict[str, float]:  # noqa: ARG002
        levels = {"train/loss_manip": float(self.bins.chance.mean())}
        for component, majority in zip(self.components, self.bins.majority.tolist(), strict=True):
            levels |= {f"train/action_acc/{component.name}": majority, f"train/action_bits/{component.name}": 0.0}
        return levels

    def describe(self) -> str:
        names = ", ".join(c.name for c in self.components)
        level = f"chance {self.bins.chance.mean():.2f} nats, majority {self.bins.majority.mean():.3f}"
        if self.bins.noise > 0:
            level += f", floor {self.bins.floor.mean():.2f} nats (noisy copies: {self.bins.noise:g} deviations)"
        what = f"mean cross-entropy over {len(self.components)} components ({names})"
        return f"{what}, {self.bins.kind} bins, {level}{self.asides()}"
