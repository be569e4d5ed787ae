"""The manipulation model of the paper (Eq. 5): each component of the action is a class, read off both views' features.

Legend: B pairs, K bins, C live components, A all components of the action space, d dimensions of the signal.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stec.actions import ActionSpace, Component, Relative, sample_views
from stec.bins import Bins, constant
from stec.distributed import global_mean
from stec.encoder import Features, tap
from stec.errors import UsageError
from stec.heads import ManipulationHead, width
from stec.objective import Out, Term, tally
from stec.rng import make_keys
from stec.views import Views

DIRECTIONS: dict[str, tuple[tuple[int, int], ...]] = {"forward": ((0, 1),), "both": ((0, 1), (1, 0))}

# The fit draws its own actions, named by this seed: the same space and extents give the same edges in any run.
_FIT_SEED = 20221015
_FIT_DRAWS = 2**16


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


class Binned(Term):
    """Mean cross-entropy over valid pairs and live components of the binned efference copy.

    extents int64 [N, d]: sizes of samples of the data, on which the bins are fitted by drawing actions. Components that
    are constant in this action space are left out (`dropped`), unless keep_constant.
    bins, num_bins: see Bins. hidden: width of the head. tap: which output of the encoder is read. direction: "forward"
    = view 0 -> view 1 only (as the paper's code), "both" = also 1 -> 0. yoked: the control in which every pair is given
    the efference copy of its neighbour in this rank's batch: same head, same labels, no relation to what was done.
    """

    # The head's batch norm (and the count of valid pairs) ties the pairs of a batch together.
    couples_batch = True
    live: Tensor
    columns: Tensor

    def __init__(
        self,
        dims: Mapping[str, int],
        space: ActionSpace,
        extents: Tensor,
        *,
        bins: str = "equal_mass",
        num_bins: int = 6,
        hidden: int = 512,
        direction: str = "forward",
        yoked: bool = False,
        keep_constant: bool = False,
        tap: str = "pooled",
    ):
        super().__init__()
        if direction not in DIRECTIONS:
            raise UsageError(
                f"manipulation.binned.direction={direction!r} is unknown: choose one of {', '.join(DIRECTIONS)}."
            )
        if hidden < 1:
            raise UsageError(f"manipulation.binned.hidden={hidden} is out of range: it must be at least 1.")
        if not space.components:
            raise UsageError("the manipulation model has nothing to predict: this action space has no components.")
        self.needs = frozenset({tap})
        self.tap, self.yoked, self.pairs = tap, yoked, DIRECTIONS[direction]
        drawn = _draw(space, extents, self.pairs)
        live = ~constant(drawn.values, drawn.valid) | keep_constant
        if not live.any():
            raise UsageError(
                "the manipulation model has nothing to predict: all components of this action space are constant."
            )
        self.register_buffer("live", live)
        self.register_buffer("columns", live.nonzero().squeeze(1), persistent=False)
        self.components = tuple(c for c, alive in zip(space.components, live.tolist(), strict=True) if alive)
        self.dropped = tuple(c.name for c, alive in zip(space.components, live.tolist(), strict=True) if not alive)
        self.bins = Bins(self.components, drawn.values[:, live], drawn.valid[:, live], kind=bins, num_bins=num_bins)
        most = self.bins.edges.shape[1] + 1
        self.head = ManipulationHead(width(dims, tap), hidden, len(self.components), most)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        seen = torch.cat([self._look(features[i], features[j]) for i, j in self.pairs])
        copies = [views.copies[pair] for pair in self.pairs]
        values = torch.cat([self._given(c.values) for c in copies]).index_select(1, self.columns)
        valid = torch.cat([self._given(c.valid) for c in copies]).index_select(1, self.columns)
        # An invalid copy may hold anything, NaN too: it gets some bin, and no weight.
        target = self.bins.assign(torch.where(valid, values, torch.zeros_like(values)))
        log_probs = self._log_probs(seen)
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
        return Posterior(self.components, bins.edges, bins.centres, bins.num_bins, self._log_probs(self._look(a, b)))

    def _look(self, a: Features, b: Features) -> Tensor:
        return torch.cat([tap(a, self.tap), tap(b, self.tap)], dim=1)

    def _given(self, copy: Tensor) -> Tensor:
        return copy.roll(1, dims=0) if self.yoked else copy

    def _log_probs(self, seen: Tensor) -> Tensor:
        logits = self.head(seen)
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits if logits.dtype == torch.float64 else logits.float()
            return F.log_softmax(logits.masked_fill(~self.bins.exists(), -torch.inf), dim=2)

    def chance(self) -> dict[str, float]:
        levels = {"train/loss_manip": float(self.bins.chance.mean())}
        for component, majority in zip(self.components, self.bins.majority.tolist(), strict=True):
            levels |= {f"train/action_acc/{component.name}": majority, f"train/action_bits/{component.name}": 0.0}
        return levels

    def describe(self) -> str:
        names = ", ".join(c.name for c in self.components)
        dropped = f"; constant, so dropped: {', '.join(self.dropped)}" if self.dropped else ""
        yoked = "; YOKED control: copies of other pairs" if self.yoked else ""
        level = f"chance {self.bins.chance.mean():.2f} nats, majority {self.bins.majority.mean():.3f}"
        what = f"mean cross-entropy over {len(self.components)} components ({names})"
        return f"{what}, {self.bins.kind} bins, {level}{dropped}{yoked}"

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Fitted numbers are taken from the state; that the same components are live is a condition, told by name."""
        stored = state_dict.get(prefix + "live")
        if stored is not None and not torch.equal(stored.cpu(), self.live.cpu()):
            raise UsageError(
                f"the stored manipulation model predicts components {stored.int().tolist()} (1: live) of its actions, "
                f"but here they would be {self.live.int().tolist()}: build it with the actions it was trained on."
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _draw(space: ActionSpace, extents: Tensor, pairs: tuple[tuple[int, int], ...]) -> Relative:
    """Relative actions [N, A] of _FIT_DRAWS pairs (in each trained direction), over the given extents in turn."""
    if extents.dim() != 2 or len(extents) == 0:
        raise UsageError(f"extents must be [N, d] with N of at least 1, not {list(extents.shape)}.")
    numbers = torch.arange(max(_FIT_DRAWS, len(extents)))
    actions = sample_views(space, make_keys(_FIT_SEED, 0, numbers), extents[numbers % len(extents)], 2)
    each = [space.relative(actions[i], actions[j]) for i, j in pairs]
    return Relative(torch.cat([r.values for r in each]).double(), torch.cat([r.valid for r in each]))
