"""The paper's Eq. 2: what a model q(is it the same thing?, what was done? | two views) is taught.

    L = sum_i lambda_id,i L_id,i + sum_j lambda_manip,j L_manip,j     (+ online probes, which the encoder does not feel)

The one convention for weights, throughout the project:
* lambda_id multiplies the identity loss averaged over its anchors (NT-Xent: the 2B anchors of both views). So 2.0 is
  SimCLR's sum of the two directional losses, and what the authors' runs used: their values carry over as they are.
* lambda_manip multiplies the cross-entropy averaged over valid pairs AND over live components. The paper's Eq. 5 writes
  a sum over components: lambda of the sum form = lambda here / number of components.
* L_reg, the third part of Eq. 2, is the optimiser's weight decay.

Legend: B samples of this rank, V views, D width of the pooled features.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from stec.encoder import Encoder, Features, encode
from stec.errors import UsageError
from stec.teacher import teachers
from stec.views import Views

FORWARD_VIEWS = ("joint", "separate")
LOSSES = {"identity": "train/loss_id", "manipulation": "train/loss_manip"}
Sums = dict[str, tuple[Tensor, Tensor]]
T = TypeVar("T")


class Out(NamedTuple):
    """loss: a scalar whose mean over ranks is the global loss; sums {metric: (sum, count)}: this rank's, detached."""

    loss: Tensor
    sums: Sums


def tally(values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(sum, count) of the items whose mask is true (all, if None), detached."""
    values = values.detach().float()
    if mask is None:
        return values.sum(), torch.full((), float(values.numel()), device=values.device)
    return torch.where(mask, values, torch.zeros_like(values)).sum(), mask.sum().float()


class Term(nn.Module):
    """One addend of the objective: an identity model, a manipulation model or a probe.

    needs: outputs of the encoder it reads; couples_batch: whether an item's loss depends on the others of its batch
    (then plain gradient accumulation is not exact); num_views: the fewest views it can do with; reads_group: whether
    it needs to know which samples belong together; pairs: the efference copies it asks for; constant_rate: names of
    its parts that learn at the peak rate from the first step to the last; all_views: whether it makes all views alike,
    not the first two only; keeps: numbers of views that must not be made like the others, since what they differ in is
    what this term reads.
    """

    needs: frozenset[str] = frozenset({"pooled"})
    couples_batch: bool = True
    num_views: int = 1
    reads_group: bool = False
    pairs: tuple[tuple[int, int], ...] = ()
    constant_rate: tuple[str, ...] = ()
    all_views: bool = False
    keeps: frozenset[int] = frozenset()

    def before_step(self, encoder: Encoder, step: int, total: int) -> None:
        """Called before each of `total` optimiser steps (momentum copies, queues, freezes). Nothing by default."""

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        raise NotImplementedError

    def describe(self) -> str:
        """A phrase for the line printed at the start of a run: what is averaged, and its chance level."""
        return type(self).__name__

    def chance(self, batch_size: int | None = None) -> dict[str, float]:  # noqa: ARG002
        """{metric: what a guesser who sees nothing gets}, for those metrics whose chance level is known beforehand.

        batch_size: samples of the global batch; without it, levels that depend on it are left out.
        """
        return {}


Terms = Mapping[str, tuple[float, Term]]


class STEC(nn.Module):
    """An encoder and its objective. Each group of terms is {name: (weight, term)}.

    forward_views: "joint" encodes views of equal size in one call (batch norm sees them together, as the paper's does),
    "separate" one view at a time; so does a teacher's encoder. Heads see the views together either way. UsageError if a
    weight is negative, a term reads what the encoder does not give, or one compares a view that another one keeps.
    """

    def __init__(
        self,
        encoder: Encoder,
        identity: Terms,
        manipulation: Terms,
        probes: Terms,
        *,
        forward_views: str = "joint",
    ):
        super().__init__()
        if forward_views not in FORWARD_VIEWS:
            raise UsageError(f"forward_views={forward_views!r} is unknown: choose one of {', '.join(FORWARD_VIEWS)}.")
        self.forward_views = forward_views
        self.encoder = encoder
        self.weights: dict[str, float] = {}
        self.identity = self._admit("identity", identity)
        self.manipulation = self._admit("manipulation", manipulation)
        self.probes = self._admit("probes", probes)
        if not self.identity and not self.manipulation:
            raise UsageError("the objective is empty: choose an identity or a manipulation model.")
        self._respect_kept_views()
        for teacher in teachers(self):
            teacher.joint = forward_views == "joint"

    def _admit(self, group: str, terms: Terms) -> nn.ModuleDict:
        given = set(self.encoder.dims)
        for name, (weight, term) in terms.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise UsageError(f"{group}.{name}.weight={weight} is out of range: it must be finite, 0 or more.")
            if missing := term.needs - given:
                wanted, offered = ", ".join(sorted(missing)), ", ".join(sorted(given))
                raise UsageError(f"{group}.{name} reads the output {wanted}, but this encoder gives {offered}.")
            self.weights[f"{group}.{name}"] = float(weight)
        return nn.ModuleDict({name: term for name, (_, term) in terms.items()})

    def _respect_kept_views(self) -> None:
        for group, name, term in self._terms():
            for other_group, other, comparing in self._terms():
                if term.keeps and comparing.all_views:
                    views = ", ".join(map(str, sorted(term.keeps)))
                    raise UsageError(
                        f"{other_group}.{other} makes all views alike, but {group}.{name} keeps view {views} apart, to"
                        " read off it what was done: choose a model that compares the first two views only."
                    )

    def _terms(self) -> list[tuple[str, str, Term]]:
        groups = {"identity": self.identity, "manipulation": self.manipulation, "probes": self.probes}
        return [(group, name, term) for group, terms in groups.items() for name, term in terms.items()]  # type: ignore[misc]

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The efference copies (from view, to view) that the terms ask for, in order of appearance."""
        return tuple(dict.fromkeys(pair for _, _, term in self._terms() for pair in term.pairs))

    @property
    def num_views(self) -> int:
        """The fewest views that all terms can do with."""
        paired = [view + 1 for pair in self.pairs for view in pair]
        return max([1, *paired, *(term.num_views for _, _, term in self._terms())])

    @property
    def couples_batch(self) -> bool:
        return any(term.couples_batch for _, _, term in self._terms())

    @property
    def reads_group(self) -> bool:
        return any(term.reads_group for _, _, term in self._terms())

    def chance(self, batch_size: int | None = None) -> dict[str, float]:
        """{metric: chance level} of all terms; those that depend on the global batch only if its size is given."""
        levels: dict[str, float] = {}
        for group, name, term in self._terms():
            levels |= self._named(group, name, term.chance(batch_size), levels)
        return levels

    def _named(self, group: str, name: str, found: Mapping[str, T], taken: Mapping[str, T]) -> dict[str, T]:
        """Several terms of one group report their losses (and what another one reports) under their own names:
        train/loss_id/cpc."""
        shared = {*taken, *(LOSSES.values() if len(getattr(self, group)) > 1 else ())}
        return {(f"{metric}/{name}" if metric in shared else metric): value for metric, value in found.items()}

    def describe(self) -> str:
        """One line for the start of a run: the weights, what each multiplies, and the chance levels."""
        each = [
            f"{self.weights[f'{kind}.{name}']:g} x {name} [{term.describe()}]" for kind, name, term in self._terms()
        ]
        return "loss = " + " + ".join(each)

    def before_step(self, step: int, total: int) -> None:
        for _, _, term in self._terms():
            term.before_step(self.encoder, step, total)

    def encode(self, xs: tuple[Tensor, ...]) -> tuple[Features, ...]:
        """Features of each of V views [B, ...]; neighbours of one shape share a call if forward_views is "joint"."""
        return encode(self.encoder, xs, joint=self.forward_views == "joint")

    def score(self, features: tuple[Features, ...], views: Views, grad_share: bool = False) -> Out:
        """Eq. 2 on encoded views. Out.loss is what to differentiate, probes included; train/loss leaves the probes out.

        grad_share: also measure train/grad_share_manip = |g_manip| / (|g_manip| + |g_id|), the norms of the weighted
        losses' gradients at the encoder's outputs (all ranks must ask at the same step).
        """
        if len(features) < self.num_views:
            raise UsageError(f"this objective compares {self.num_views} views, but the batch has {len(features)}.")
        losses: dict[str, Tensor] = {}
        sums: Sums = {}
        for group, name, term in self._terms():
            out: Out = term(features, views)
            weighted = self.weights[f"{group}.{name}"] * out.loss
            losses[group] = losses[group] + weighted if group in losses else weighted
            sums |= self._named(group, name, out.sums, sums)
        for group, metric in LOSSES.items():
            if len(getattr(self, group)) > 1:
                sums[metric] = tally(losses[group])
        objective = torch.stack([losses[group] for group in LOSSES if group in losses]).sum()
        sums["train/loss"] = tally(objective)
        felt = [t for f in features for t in _felt(f)]
        if grad_share and felt and LOSSES.keys() <= losses.keys():
            mine, theirs = _gradient_norm(losses["manipulation"], felt), _gradient_norm(losses["identity"], felt)
            sums["train/grad_share_manip"] = tally(mine / (mine + theirs).clamp(min=1e-30))
        return Out(objective + losses["probes"] if "probes" in losses else objective, sums)

    def forward(self, views: Views, grad_share: bool = False) -> Out:
        return self.score(self.encode(views.x), views, grad_share)


def _felt(features: Features) -> list[Tensor]:
    """All outputs that a gradient goes back to the encoder by."""
    outputs = [features.pooled, features.local, features.context, *(features.layers or {}).values()]
    return [t for t in outputs if t is not None and t.requires_grad]


def _gradient_norm(loss: Tensor, features: list[Tensor]) -> Tensor:
    # Autocast is that of the forward pass around: backward, which trains, has none. allow_unused: a term may read one
    # view only, or an inner layer.
    with torch.autocast(loss.device.type, enabled=False):
        gradients = torch.autograd.grad(loss, features, retain_graph=True, allow_unused=True)
    found = [g.float().square().sum() for g in gradients if g is not None]
    return torch.stack(found).sum().sqrt() if found else torch.zeros((), device=loss.device)
