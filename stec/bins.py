"""Bins: a relative action, component by component, as classes. Fitted once on drawn actions, then fixed numbers.

Legend: B pairs, C components, K bins of the component that has most, N draws.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stec.actions import Component
from stec.errors import UsageError
from stec.frames import published

KINDS = ("equal_mass", "uniform", "published", "log")

# An atom that lies on a quantile must fall on one side of it in any precision: edges stand this much above, in units of
# the component's spread (float32 noise is a hundred times smaller, the distance of neighbouring atoms much larger).
_NUDGE = 1e-5
# A quantile this near (in mass) to a real gap of the distribution belongs into the middle of the gap.
_NEAR_GAP = 0.01
_WIDE_GAP = 0.05


class Bins(nn.Module):
    """Bin edges of C components, and what a guesser knows of them. All that is fitted is a buffer, part of the state.

    components: C of them; values float64 [N, C] with valid bool [N, C]: draws from the action space; kind: "equal_mass"
    (edges at quantiles: chance is ln K), "uniform" (equal widths over [low, high], or between the .5 % and 99.5 %
    quantiles where those are infinite), "published" (the authors' release), "log" (widths grow in proportion to the
    distance from 0: fine steps between near values, coarse ones between far). Except for "published", discrete
    components get one bin per level and circular ones num_bins equal arcs.

    "log" divides the magnitudes, from the .5 % to the 99.5 % quantile of those above 0, into parts of equal ratio. If
    the draws take one sign, these are the bins. If they take both, either side has the same parts, mirrored: with an
    even num_bins there is an edge at 0, with an odd one the innermost parts of the two sides are one bin around 0.

    noise: the efference copy is not to be trusted to the last digit, but its value + N(0, sigma^2), sigma being `noise`
    times the component's standard deviation among the draws; discrete components and constant ones have none.

    edges [C, K-1], +inf where a component has fewer bins; centres [C, K]: the median draw of each bin; num_bins
    int64 [C]; chance [C]: entropy in nats of the bins (with noise: of where the noisy copies fall), the loss of who
    knows their masses alone; floor [C]: the loss of who knows the values, 0 without noise; majority [C]: the accuracy
    of always naming the fullest bin; sigma [C].
    """

    edges: Tensor
    centres: Tensor
    num_bins: Tensor
    chance: Tensor
    majority: Tensor
    sigma: Tensor
    floor: Tensor
    supports: Tensor

    def __init__(
        self,
        components: Sequence[Component],
        values: Tensor,
        valid: Tensor,
        *,
        kind: str,
        num_bins: int,
        noise: float = 0.0,
    ):
        super().__init__()
        if kind not in KINDS:
            raise UsageError(f"manipulation.binned.bins={kind!r} is unknown: choose one of {', '.join(KINDS)}.")
        if num_bins < 2:
            raise UsageError(f"manipulation.binned.num_bins={num_bins} must be at least 2.")
        if not 0 <= noise < math.inf:
            raise UsageError(f"manipulation.binned.noise={noise} must be 0 or more standard deviations, and finite.")
        self.components, self.kind, self.noise = tuple(components), kind, noise
        drawn = [_drawn(c, values[:, i], valid[:, i]) for i, c in enumerate(self.components)]
        if kind == "published":
            supports = published.limits([c.name for c in self.components])
            self.register_buffer("supports", supports, persistent=False)
            fractions = torch.arange(1, num_bins, dtype=torch.float64) / num_bins
            each = [low + (high - low) * fractions for low, high in supports.tolist()]
        else:
            each = [_fit(c, v, kind, num_bins) for c, v in zip(self.components, drawn, strict=True)]
        most = max(len(e) for e in each)
        num_components = len(self.components)
        self.register_buffer("edges", torch.full((num_components, most), torch.inf, dtype=torch.float64))
        self.register_buffer("num_bins", torch.tensor([len(e) + 1 for e in each]))
        self.register_buffer("centres", torch.zeros(num_components, most + 1, dtype=torch.float64))
        self.register_buffer("chance", torch.zeros(num_components, dtype=torch.float64))
        self.register_buffer("majority", torch.zeros(num_components, dtype=torch.float64))
        # Without noise these two are 0 and no part of the state.
        self.register_buffer("sigma", torch.zeros(num_components, dtype=torch.float64), persistent=noise > 0)
        self.register_buffer("floor", torch.zeros(num_components, dtype=torch.float64), persistent=noise > 0)
        for i, e in enumerate(each):
            self.edges[i, : len(e)] = e
        for i, v in enumerate(drawn):
            self._know(i, v)

    def _know(self, i: int, drawn: Tensor) -> None:
        """What the draws [N] of component i tell: the mass of its bins, and a typical value of each."""
        number = self.assign(drawn[:, None].expand(-1, len(self.components)))[:, i]
        mass = torch.bincount(number, minlength=self.edges.shape[1] + 1).double() / len(drawn)
        self.majority[i] = mass.max()
        exact = bool(self.components[i].levels) or bool(constant(drawn[:, None], torch.ones_like(drawn[:, None]) > 0))
        if self.noise > 0 and not exact:
            self.sigma[i] = self.noise * drawn.std(correction=0)
            if self._is_circular(i):  # twice around, and all of the circle is equally likely to 1e-30
                self.sigma[i].clamp_(max=2 * self.components[i].period)
            smeared = self._smeared(i, drawn)
            mass = smeared.mean(dim=0)
            self.floor[i] = torch.special.entr(smeared).sum(dim=1).mean()
        self.chance[i] = torch.special.entr(mass).sum()
        inner = self.edges[i, : self.num_bins[i] - 1]
        low, high = drawn.min(), drawn.max()
        bounds = torch.cat([torch.minimum(low, inner[:1]), inner, torch.maximum(high, inner[-1:])])
        for k in range(int(self.num_bins[i])):
            here = drawn[number == k]
            self.centres[i, k] = here.median() if len(here) else bounds[k : k + 2].mean()

    def assign(self, values: Tensor) -> Tensor:
        """Bin numbers int64 [B, C] of values [B, C]: edge k-1 < value <= edge k means bin k; outliers: end bins."""
        if self.kind == "published":
            return published.assign(values, self.supports, self.edges.shape[1] + 1)
        columns = values.to(self.edges).unbind(dim=1)
        wrapped = torch.stack([_wrap(c, column) for c, column in zip(self.components, columns, strict=True)])
        return torch.searchsorted(self.edges, wrapped).T

    def masses(self, values: Tensor) -> Tensor:
        """p_EC(b), float64 [B, C, K]: the probabilities that values [B, C], noise added, fall into each of the bins."""
        hard = F.one_hot(self.assign(values), self.edges.shape[1] + 1).to(self.edges)
        if self.noise == 0:
            return hard
        soft = torch.stack([self._smeared(i, c) for i, c in enumerate(values.to(self.edges).unbind(dim=1))], dim=1)
        return torch.where(self.sigma[:, None] > 0, soft, hard)

    def _smeared(self, i: int, values: Tensor) -> Tensor:
        """[B, K] for values [B] of component i alone: differences of the normal law's distribution function."""
        component, inner = self.components[i], self.edges[i]
        low, high, turns, period = -math.inf, math.inf, 0, 0.0
        if self._is_circular(i):
            values, period = _wrap(component, values), component.period
            # Enough for 8 sigma: a standard deviation within one period is at most half of it.
            low, turns = _origin(component), 1 + math.ceil(min(4 * self.noise, 16))
            high = low + period
        lower = torch.cat([inner.new_full((1,), low), inner]).clamp(max=high)
        upper = torch.cat([inner, inner.new_full((1,), high)]).clamp(max=high)
        mass = values.new_zeros(len(values), len(lower))
        for turn in range(-turns, turns + 1):
            below, above = (
                torch.special.ndtr((bound + turn * period - values[:, None]) / self.sigma[i])
                for bound in (lower, upper)
            )
            mass += above - below
        return mass

    def _is_circular(self, i: int) -> bool:
        return self.components[i].period > 0 and self.kind != "published"

    def exists(self) -> Tensor:
        """bool [C, K]: which bins each component has."""
        return torch.arange(self.edges.shape[1] + 1, device=self.edges.device) < self.num_bins[:, None]


def constant(values: Tensor, valid: Tensor) -> Tensor:
    """bool [C]: components that take one value only (to 1e-6) among the valid ones of the draws [N, C]."""
    low = torch.where(valid, values, torch.inf).amin(dim=0)
    high = torch.where(valid, values, -torch.inf).amax(dim=0)
    return high - low <= 1e-6 * torch.maximum(low.abs(), high.abs()).clamp(min=1)


def _origin(component: Component) -> float:
    return component.low if component.low > float("-inf") else -component.period / 2


def _wrap(component: Component, values: Tensor) -> Tensor:
    """A circular component's values, brought into one period from its origin on; others as they are."""
    origin = _origin(component)
    return origin + (values - origin).remainder(component.period) if component.period > 0 else values


def _drawn(component: Component, values: Tensor, valid: Tensor) -> Tensor:
    values = values[valid].double()
    if len(values) == 0:
        raise UsageError(f"no valid draw of the action component {component.name}: nothing to fit bins to.")
    return _wrap(component, values)


def _fit(component: Component, drawn: Tensor, kind: str, num_bins: int) -> Tensor:
    """The inner edges of one component, ascending, float64; fewer than num_bins - 1 where the draws have few atoms."""
    fractions = torch.arange(1, num_bins, dtype=torch.float64) / num_bins
    if component.levels:
        levels = torch.tensor(sorted(component.levels), dtype=torch.float64)
        return (levels[1:] + levels[:-1]) / 2
    if component.period > 0:
        return _origin(component) + component.period * fractions
    if kind == "log":
        return _log_edges(drawn, num_bins)
    drawn = drawn.sort().values
    if kind == "uniform":
        low = component.low if component.low > float("-inf") else _at(drawn, 0.005)
        high = component.high if component.high < float("inf") else _at(drawn, 0.995)
        return low + (high - low) * fractions
    edges = torch.tensor([_quantile_edge(drawn, float(f)) for f in fractions], dtype=torch.float64)
    # A quantile on the topmost atom has nothing above it: what is rarer is told apart below the atom.
    top, lower = drawn[-1], drawn[drawn < drawn[-1] - _NUDGE * (drawn[-1] - drawn[0])]
    if len(lower):
        edges = torch.where(edges > top, (lower[-1] + top) / 2, edges)
    edges = edges.unique()
    # Atoms heavier than a bin pull several quantiles onto one value: an edge stays only if no bin is empty for it.
    below = torch.searchsorted(drawn, edges, right=True)
    keep = (below < len(drawn)) & (torch.diff(below, prepend=torch.zeros(1, dtype=torch.long)) > 0)
    return edges[keep]


def _log_edges(drawn: Tensor, num_bins: int) -> Tensor:
    """num_bins - 1 ascending edges whose magnitudes are a geometric series."""
    sizes = drawn.abs()[drawn != 0].sort().values
    if len(sizes) == 0:
        sizes = torch.ones(1, dtype=torch.float64)  # draws of nothing but 0: any edges will do
    low, high = _at(sizes, 0.005), _at(sizes, 0.995)
    both = bool(drawn.min() < 0 < drawn.max())
    parts = -(-num_bins // 2) if both else num_bins
    outer = low * (high / low) ** (torch.arange(1, parts, dtype=torch.float64) / parts)
    if not both:
        return outer if drawn.max() > 0 else -outer.flip(0)
    inner = outer.new_zeros(1 - num_bins % 2)
    return torch.cat([-outer.flip(0), inner, outer])


def _at(ordered: Tensor, fraction: float) -> float:
    return float(ordered[round(fraction * (len(ordered) - 1))])


def _quantile_edge(ordered: Tensor, fraction: float) -> float:
    """The quantile of ascending draws [N], a hair above; or the middle of a real gap that lies within reach of it."""
    spread = _at(ordered, 0.99) - _at(ordered, 0.01)
    last = len(ordered) - 1
    near = ordered[max(0, round((fraction - _NEAR_GAP) * last)) : round((fraction + _NEAR_GAP) * last) + 1]
    gaps = near.diff()
    if len(gaps) and gaps.max() > _WIDE_GAP * spread:
        return float(near[gaps.argmax()] + near[gaps.argmax() + 1]) / 2
    return _at(ordered, fraction) + _NUDGE * spread
