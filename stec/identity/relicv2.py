"""ReLICv2 (Tomasev et al., "Pushing the limits of self-supervised ResNets", 2022): ReLIC among many views.

q(a_id = 0 | x, x') is ReLIC's, a softmax times a confidence, with a slow copy of the network as the comparator, a
few random samples to be told from instead of the whole batch, and large views that any other view is compared with.
"""

import torch
from torch import Tensor

from stec.distributed import gather, global_mean, rank, world_size
from stec.encoder import Encoder, Features
from stec.errors import UsageError, at_least
from stec.heads import MLP, Projector
from stec.identity.relic import Judged, check
from stec.losses import divergence, unit
from stec.objective import Out, Term, tally
from stec.rng import bits
from stec.teacher import Teacher
from stec.views import Views


def relicv2(
    online: tuple[Tensor, ...], targets: tuple[Tensor, ...], others: Tensor, temperature: float, alpha: float
) -> Judged:
    """Mean over pairs of views of CE(p_ij) + alpha KL(sg p_ref || p_ij), one value per sample.

    p_ij = softmax over own target and negatives of <q_i, t_j> / temperature: an anchor in view i, candidates in large
    view j. online: projections q [B, D] of V views, the L large ones first; targets: projections t [B, D] of those L,
    to which no gradient flows; both are normalised here to length 1. others int64 [B, N]: places in the global batch of
    the N negatives of each sample, the same ones for all pairs. The P pairs are all i != j, in order of j and then i
    (the paper's pseudo-code also counts the L comparisons of a large view with itself). The reference p_ref, to which
    no gradient flows (sg), is

    * of two large views: p_ji, as in ReLIC. So two views alone give CE(p12) + CE(p21) + alpha (KL(p12 || p21) +
      KL(p21 || p12)), halved: both directions of the KL, where ReLIC has one;
    * of a small view i, which the target network does not see: p_kj of the large view k that follows j.

    Computed in float32 (float64 if given), whatever the autocast precision.
    """
    num_large = len(targets)
    log_p: dict[tuple[int, int], Tensor] = {}
    with torch.autocast(online[0].device.type, enabled=False):
        anchors = [unit(q) / temperature for q in online]
        for j, target in enumerate(targets):
            own = unit(target.detach())
            candidates = torch.cat([own[:, None], gather(own)[others]], dim=1)
            seen = [i for i in range(len(online)) if i != j]
            scores = torch.einsum("ibd,bcd->ibc", torch.stack([anchors[i] for i in seen]), candidates)
            log_p |= {(i, j): p for i, p in zip(seen, scores.log_softmax(2), strict=True)}
        references = [(j, i) if i < num_large else ((j + 1) % num_large, j) for i, j in log_p]
        judged = torch.stack(list(log_p.values()))
        kl = divergence(torch.stack([log_p[pair] for pair in references]).detach(), judged)
        right = judged.detach()[..., 0] > judged.detach()[..., 1:].amax(2)
        return Judged((alpha * kl - judged[..., 0]).mean(0), kl, right)


def draw_others(keys: Tensor, num: int, device: torch.device) -> Tensor:
    """int64 [B, num]: places in the global batch of samples other than oneself, uniform, with replacement.

    A function of the samples' keys int64 [B, 3] and of their places: ranks draw what one rank on the whole draws. B
    must be the same on all ranks; UsageError if there is nobody else.
    """
    total = len(keys) * world_size()
    if total < 2:
        raise UsageError("identity.relicv2 tells samples from others: it needs 2 or more in a batch, not 1.")
    words = bits(keys.to(device, non_blocking=True), 0, "relicv2", num)
    drawn = (words * (total - 1)) >> 32  # as good as even: the batch is far below 2^32
    myself = torch.arange(len(keys), device=device)[:, None] + rank() * len(keys)
    return drawn + (drawn >= myself)


class ReLICv2(Term):
    """ReLICv2 on projections of all views, averaged over samples and over pairs of views (i, j), where j is large and
    i != j: large are the first view and those that follow in its size, at least two. Small views (multi-crop) are never
    targets.

    temperature: divides the cosines; alpha: weight of the KL beside the cross-entropy; momentum: of the target network,
    a slow copy of encoder and projector (rises to 1 by a cosine); num_negatives: random samples of the global batch
    that each sample is told from; hidden, out, predictor_hidden: widths of projector and of the anchors' predictor.
    """

    num_views = 2
    all_views = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.1,
        alpha: float = 1.0,
        momentum: float = 0.996,
        num_negatives: int = 10,
        hidden: int = 4096,
        out: int = 256,
        predictor_hidden: int = 4096,
    ):
        super().__init__()
        where = "identity.relicv2"
        check(where, temperature, alpha)
        at_least(1, where, num_negatives=num_negatives, hidden=hidden, out=out, predictor_hidden=predictor_hidden)
        self.temperature, self.alpha, self.num_negatives = temperature, alpha, num_negatives
        self.projector = Projector(encoder.dims["pooled"], hidden, out)
        self.predictor = MLP(out, predictor_hidden, out)
        self.teacher = Teacher(encoder, self.projector, momentum=momentum, where=where)

    def before_step(self, encoder: Encoder, step: int, total: int) -> None:
        self.teacher.follow(encoder, self.projector, step, total)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        if views.num_global < 2:
            raise UsageError("identity.relicv2 compares two or more large views, but only the first has its size.")
        # One call for all views: the batch norms see large and small ones together.
        online = self.predictor(self.projector(torch.cat([f.pooled for f in features]))).chunk(len(features))
        targets = self.teacher(views.x[: views.num_global])
        others = draw_others(views.keys, self.num_negatives, online[0].device)
        losses, kl, right = relicv2(online, targets, others, self.temperature, self.alpha)
        sums = {"train/loss_id": tally(losses), "train/relic_kl": tally(kl), "train/contrast_acc": tally(right)}
        return Out(global_mean(losses), sums)

    def chance(self, batch_size: int | None = None) -> dict[str, float]:  # noqa: ARG002
        return {"train/contrast_acc": 1 / (1 + self.num_negatives)}

    def describe(self) -> str:
        details = f"temperature {self.temperature:g}, target network of momentum {self.teacher.momentum:g}"
        what = f"InfoNCE with {self.num_negatives} negatives + {self.alpha:g} KL, averaged over pairs of views"
        return f"{what} ({details}, chance ln {1 + self.num_negatives})"
