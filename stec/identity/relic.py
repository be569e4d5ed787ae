"""ReLIC (Mitrovic et al., "Representation Learning via Invariant Causal Mechanisms", ICLR 2021).

q(a_id = 0 | x, x') = p12(x' | x) exp(-alpha/2 KL(p12 || p21)): a softmax over the batch, as SimCLR's, times a
confidence: how far the judgement is the same, whichever view is the one that is asked about.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from stec.distributed import gather, global_mean, rank
from stec.encoder import Encoder, Features
from stec.errors import UsageError, at_least
from stec.heads import MLP, Projector
from stec.losses import NEGATIVES, divergence, num_compared, unit
from stec.objective import Out, Term, tally
from stec.teacher import Teacher
from stec.views import Views


class Judged(NamedTuple):
    """losses [B]; kl [B] or [P, B], of P pairs: what alpha multiplies; right bool [P, B]: whether an anchor is nearer
    to its own target than to all others (a tie is no win)."""

    losses: Tensor
    kl: Tensor
    right: Tensor


def relic(
    q1: Tensor, q2: Tensor, t1: Tensor, t2: Tensor, temperature: float, alpha: float, negatives: str = "global"
) -> Judged:
    """(CE(p12) + CE(p21) + alpha KL(p12 || p21)) / 2, one value per sample.

    p12[i, j] = softmax_j(<q1_i, t2_j> / temperature) and p21[i, j] = softmax_j(<q2_i, t1_j> / temperature), where the
    anchors q1, q2 and the targets t1, t2 are projections [B, D] of two views of the same B samples, normalised here to
    length 1; CE(p)[i] = -ln p[i, i]. The candidates of an anchor are the targets in the other view of all samples of
    all ranks ("global": W B for W ranks, B equal on all, with gradient) or of this rank ("local"). So p21 is anchored
    at online view 2: it is made of p12's logits, transposed, only if the targets are the anchors themselves.

    alpha is the paper's: twice this loss is its sum of both directions and of alpha times one KL. Memory O(W B^2).
    Computed in float32 (float64 if given), whatever the autocast precision.
    """
    with torch.autocast(q1.device.type, enabled=False):
        q1, q2, t1, t2 = (unit(z) for z in (q1, q2, t1, t2))
        myself = torch.arange(len(q1), device=q1.device)
        if negatives == "global":
            t1, t2, myself = gather(t1), gather(t2), myself + rank() * len(q1)
        log_p12, log_p21 = (((q / temperature) @ t.T).log_softmax(1) for q, t in ((q1, t2), (q2, t1)))
        kl = divergence(log_p12, log_p21)
        both = torch.stack([log_p12, log_p21])
        own = myself.expand(2, -1)[..., None]
        positive = both.gather(2, own)
        right = positive.detach() > both.detach().scatter(2, own, -torch.inf).amax(2, keepdim=True)
        return Judged((alpha * kl - positive.squeeze(2).sum(0)) / 2, kl, right.squeeze(2))


class ReLIC(Term):
    """ReLIC on projections of the first two views, averaged over the 2B anchors of all ranks.

    temperature: divides the cosines; alpha: the paper's weight of the KL (0: SimCLR with candidates of the other view
    only); momentum: of the target network that makes the targets, a slow copy of encoder and projector (rises to 1 by a
    cosine; None: no such network, the targets are the projections themselves, with gradient); predictor: whether the
    anchors go through BYOL's predictor; hidden, out, predictor_hidden: widths of projector and predictor; negatives:
    "global" (all ranks) or "local". The projector is the one that SimCLR has here, so that the two can be compared.
    """

    num_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.5,
        alpha: float = 1.0,
        momentum: float | None = 0.99,
        predictor: bool = False,
        hidden: int = 512,
        out: int = 64,
        predictor_hidden: int = 512,
        negatives: str = "global",
    ):
        super().__init__()
        check("identity.relic", temperature, alpha)
        at_least(1, "identity.relic", hidden=hidden, out=out, predictor_hidden=predictor_hidden)
        if negatives not in NEGATIVES:
            raise UsageError(
                f"identity.relic.negatives={negatives!r} is unknown: choose one of {', '.join(NEGATIVES)}."
            )
        self.temperature, self.alpha, self.negatives = temperature, alpha, negatives
        self.projector = Projector(encoder.dims["pooled"], hidden, out)
        self.predictor = MLP(out, predictor_hidden, out) if predictor else None
        self.teacher: Teacher | None = None
        if momentum is not None:
            self.teacher = Teacher(encoder, self.projector, momentum=momentum, where="identity.relic")

    def before_step(self, encoder: Encoder, step: int, total: int) -> None:
        if self.teacher is not None:
            self.teacher.follow(encoder, self.projector, step, total)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        # One call for both views: the batch norms see 2B samples, as SimCLR's do.
        projected = self.projector(torch.cat([features[0].pooled, features[1].pooled]))
        q1, q2 = (projected if self.predictor is None else self.predictor(projected)).chunk(2)
        t1, t2 = projected.chunk(2) if self.teacher is None else self.teacher(views.x[:2])
        losses, kl, right = relic(q1, q2, t1, t2, self.temperature, self.alpha, self.negatives)
        sums = {"train/loss_id": tally(losses), "train/relic_kl": tally(kl), "train/contrast_acc": tally(right)}
        return Out(global_mean(losses), sums)

    def chance(self, batch_size: int | None = None) -> dict[str, float]:
        if batch_size is None:
            return {}
        return {"train/loss_id": math.log(num_compared(self.negatives, batch_size))}

    def describe(self) -> str:
        target = (
            "no target network" if self.teacher is None else f"target network of momentum {self.teacher.momentum:g}"
        )
        details = f"temperature {self.temperature:g}, {self.negatives} negatives, {target}, chance ln B"
        return f"cross-view InfoNCE averaged over 2B anchors + {self.alpha / 2:g} KL(p12 || p21) ({details})"


def check(where: str, temperature: float, alpha: float) -> None:
    """UsageError for the first of these options, whose YAML keys are `where`.NAME, that is out of range."""
    if not temperature > 0:
        raise UsageError(f"{where}.temperature={temperature} must be above 0.")
    if not 0 <= alpha < float("inf"):
        raise UsageError(f"{where}.alpha={alpha} must be finite, 0 or more.")
