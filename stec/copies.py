"""What all models of efference copies share: which components are live, found by drawing, and the copies of a batch.

Legend: B pairs in a batch, N drawn pairs, A all components of the action space, C live ones.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stec.actions import ActionSpace, Component, Relative, sample_views
from stec.bins import constant
from stec.encoder import Features, tap
from stec.errors import UsageError
from stec.objective import Term
from stec.rng import make_keys
from stec.views import Views

DIRECTIONS: dict[str, tuple[tuple[int, int], ...]] = {"forward": ((0, 1),), "both": ((0, 1), (1, 0))}
YOKED = "; YOKED control: copies of other pairs"

# The fit draws its own actions, named by this seed: the same space and extents give the same numbers in any run.
_FIT_SEED = 20221015
_FIT_DRAWS = 2**16


def draw(space: ActionSpace, extents: Tensor, pairs: tuple[tuple[int, int], ...]) -> Relative:
    """Relative actions [N, A] of _FIT_DRAWS pairs (in each trained direction), over the given extents in turn."""
    if extents.dim() != 2 or len(extents) == 0:
        raise UsageError(f"extents must be [N, d] with N of at least 1, not {list(extents.shape)}.")
    numbers = torch.arange(max(_FIT_DRAWS, len(extents)))
    num_views = 1 + max(view for pair in pairs for view in pair)
    actions = sample_views(space, make_keys(_FIT_SEED, 0, numbers), extents[numbers % len(extents)], num_views)
    each = [space.relative(actions[i], actions[j]) for i, j in pairs]
    return Relative(torch.cat([r.values for r in each]).double(), torch.cat([r.valid for r in each]))


def moments(drawn: Relative) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C], float64, of the valid ones of draws [N, C]; 0 and 1 are those of no draw."""
    values, count = torch.where(drawn.valid, drawn.values, 0.0), drawn.valid.sum(dim=0).clamp(min=1)
    mean = values.sum(dim=0) / count
    variance = torch.where(drawn.valid, (drawn.values - mean).square(), 0.0).sum(dim=0) / count
    # Of a constant, rounding errors are not to be magnified.
    return mean, torch.where(constant(drawn.values, drawn.valid), 1.0, variance.sqrt())


def level(component: Component, values: Tensor) -> Tensor:
    """int64 [N]: the number of the level, of a discrete component, that each of the values [N] is nearest to."""
    # One by one: a tensor of the levels would have to be sent to the device in every step.
    return torch.stack([(values - each).abs() for each in component.levels], dim=1).argmin(dim=1)


def level_shares(component: Component, values: Tensor, valid: Tensor) -> Tensor:
    """[L]: how often each level of a discrete component occurs among the valid ones of draws [N]."""
    return level(component, values[valid]).bincount(minlength=len(component.levels)).double() / valid.sum()


def told(copy: Tensor, yoked: bool) -> Tensor:
    """The values or validity [B, ...] of the copies that the pairs of a batch are told: their own, or, in the yoked
    control, those of their neighbours."""
    return copy.roll(1, dims=0) if yoked else copy


class OfCopies(Term):
    """A term about efference copies between the first two views, of all components that are not constant.

    components, dropped: the live ones, and the names of the others. pairs: the directions in use. tap: the output of
    the encoder that is read. yoked: the control in which every pair is given the copy of its neighbour in this rank's
    batch: same head, same targets, no relation to what was done.
    """

    # The count of valid pairs (and the heads' batch norm) ties the pairs of a batch together.
    couples_batch = True
    live: Tensor
    columns: Tensor

    def fit(
        self,
        where: str,
        space: ActionSpace,
        extents: Tensor,
        *,
        direction: str,
        tap: str,
        yoked: bool = False,
        keep_constant: bool = False,
    ) -> Relative:
        """Set up, for a term whose YAML key is `where`; returns draws [N, C] of the live components, float64, for the
        extents int64 [., d] of samples. UsageError if there is nothing to learn, or direction is unknown."""
        if direction not in DIRECTIONS:
            raise UsageError(f"{where}.direction={direction!r} is unknown: choose one of {', '.join(DIRECTIONS)}.")
        if not space.components:
            raise UsageError("the manipulation model has nothing to predict: this action space has no components.")
        self.needs = frozenset({tap})
        self.tap, self.yoked, self.pairs = tap, yoked, DIRECTIONS[direction]
        drawn = draw(space, extents, self.pairs)
        live = ~constant(drawn.values, drawn.valid) | keep_constant
        if not live.any():
            raise UsageError(
                "the manipulation model has nothing to predict: all components of this action space are constant."
            )
        self.register_buffer("live", live)
        self.register_buffer("columns", live.nonzero().squeeze(1), persistent=False)
        self.components = tuple(c for c, alive in zip(space.components, live.tolist(), strict=True) if alive)
        self.dropped = tuple(c.name for c, alive in zip(space.components, live.tolist(), strict=True) if not alive)
        return Relative(drawn.values[:, live], drawn.valid[:, live])

    def given(self, views: Views) -> Relative:
        """The copies [P * B, C] of the live components, one of P directions after the other; invalid values are 0."""
        copies = [views.copies[pair] for pair in self.pairs]
        values = torch.cat([told(c.values, self.yoked) for c in copies]).index_select(1, self.columns)
        valid = torch.cat([told(c.valid, self.yoked) for c in copies]).index_select(1, self.columns)
        # An invalid copy may hold anything, NaN too.
        return Relative(torch.where(valid, values, torch.zeros_like(values)), valid)

    def look(self, features: tuple[Features, ...]) -> Tensor:
        """Both views of each pair side by side, [P * B, 2E], in the order of `given`."""
        return torch.cat([self.beside(features[i], features[j]) for i, j in self.pairs])

    def beside(self, a: Features, b: Features) -> Tensor:
        """[B, 2E]: what is read of a, then of b."""
        return torch.cat([tap(a, self.tap), tap(b, self.tap)], dim=1)

    def asides(self) -> str:
        """What `describe` adds of components left out, and of the control."""
        dropped = f"; constant, so dropped: {', '.join(self.dropped)}" if self.dropped else ""
        return dropped + (YOKED if self.yoked else "")

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Fitted numbers are taken from the state; that the same components are live is a condition, told by name."""
        stored = state_dict.get(prefix + "live")
        if stored is not None and not torch.equal(stored.cpu(), self.live.cpu()):
            raise UsageError(
                f"the stored manipulation model predicts components {stored.int().tolist()} (1: live) of its actions, "
                f"but here they would be {self.live.int().tolist()}: build it with the actions it was trained on."
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)
