"""MoCo v2 (He et al., CVPR 2020; Chen et al., 2020): a softmax over the other view and a queue of what came before.

The identity model is q(a_id = 0 | x, x') = softmax over {x'} and the queue, at x'. Keys come from a teacher, which
changes so slowly that those of past batches can still be compared with.

The original shuffles samples between GPUs before its batch norms, lest the statistics of a few samples tell which key
is the right one. Here the statistics are those of the whole batch of all GPUs (SyncBatchNorm), which serves the same
end; it is lost if the batch is small.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stec.distributed import gather, global_mean
from stec.encoder import Encoder, Features
from stec.errors import UsageError, at_least
from stec.heads import MLP
from stec.losses import unit
from stec.objective import Out, Term, tally
from stec.teacher import Teacher
from stec.views import Views


def moco_logits(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """[q . k, q . queue] / temperature of N queries, the right key in column 0: [N, 1 + Q].

    q [N, D]: queries, k [N, D]: the key of each, both normalised here to length 1; queue [Q, D]: other keys, of
    length 1. Only q gets a gradient. In float32 (float64 if given), whatever the autocast precision.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k = (unit(z) for z in (q, k.detach()))
        return torch.cat([(q * k).sum(1, keepdim=True), q @ queue.to(q.dtype).T], dim=1) / temperature


def moco(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """-log softmax([q . k, q . queue] / temperature) at the key, for each of N queries: [N] (MoCo, Eq. 1).

    Arguments as those of moco_logits.
    """
    return _losses(moco_logits(q, k, queue, temperature))


def _losses(logits: Tensor) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64), reduction="none")


class MoCo(Term):
    """InfoNCE of the first view's query against the second view's key and a queue, averaged over the queries.

    momentum: that of the key encoder; final_momentum: what it rises to over the run, along half a cosine (None: it
    stays). queue: how many keys are kept, of all ranks; the keys of a batch join after its loss, the oldest leave.
    symmetric: both views are queries as well as keys (2B queries, and 2B keys join); if not, the encoder is given the
    second view all the same, but only other terms read what it makes of it. hidden, out: widths of the head, Linear -
    ReLU - Linear.
    """

    num_views = 2
    queue: Tensor
    oldest: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        momentum: float = 0.999,
        final_momentum: float | None = None,
        queue: int = 65536,
        temperature: float = 0.2,
        symmetric: bool = False,
        hidden: int = 2048,
        out: int = 128,
    ):
        super().__init__()
        at_least(1, "identity.moco", queue=queue, hidden=hidden, out=out)
        if not temperature > 0:
            raise UsageError(f"identity.moco.temperature={temperature} must be above 0.")
        self.temperature, self.symmetric = temperature, symmetric
        self.projector = MLP(encoder.dims["pooled"], hidden, out, norm=False)
        self.teacher = Teacher(
            encoder,
            self.projector,
            momentum=momentum,
            rises=final_momentum is not None,
            final=1.0 if final_momentum is None else final_momentum,
            where="identity.moco",
        )
        # Random points of the sphere: all ranks take those of the first one (stec.training.prepare sees to it).
        self.register_buffer("queue", F.normalize(torch.randn(queue, out), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))

    def before_step(self, encoder: Encoder, step: int, total: int) -> None:
        self.teacher.follow(encoder, self.projector, step, total)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        if self.symmetric:
            queries = self.projector(torch.cat([features[0].pooled, features[1].pooled]))
            k1, k2 = self.teacher(views.x[:2])
            keys = (k2, k1)
        else:
            queries, keys = self.projector(features[0].pooled), self.teacher((views.x[1],))
        # A copy of the queue: backward wants it as it is now.
        logits = moco_logits(queries, torch.cat(keys), self.queue.clone(), self.temperature)
        losses = _losses(logits)
        right = logits[:, 0] > logits[:, 1:].amax(1)
        if self.training:
            self._enqueue(keys)
        return Out(global_mean(losses), {"train/loss_id": tally(losses), "train/moco_acc": tally(right)})

    @torch.no_grad()
    def _enqueue(self, keys: tuple[Tensor, ...]) -> None:
        """The keys [B, D] of each view and all ranks, in one order whatever the number of ranks, replace the oldest."""
        joining = torch.cat([gather(F.normalize(k.to(self.queue.dtype), dim=1)) for k in keys])
        if len(joining) > len(self.queue):
            raise UsageError(
                f"identity.moco.queue={len(self.queue)} must be at least the {len(joining)} keys that a batch adds."
            )
        places = (self.oldest + torch.arange(len(joining), device=joining.device)) % len(self.queue)
        self.queue[places] = joining
        self.oldest.copy_((places[-1] + 1) % len(self.queue))

    def chance(self, batch_size: int | None = None) -> dict[str, float]:  # noqa: ARG002
        return {"train/loss_id": math.log1p(len(self.queue)), "train/moco_acc": 1 / (1 + len(self.queue))}

    def describe(self) -> str:
        anchors = "2B queries of both views" if self.symmetric else "B queries of the first view"
        rises = f" rising to {self.teacher.final:g}" if self.teacher.rises else ""
        return (
            f"InfoNCE against a queue of {len(self.queue)}, averaged over {anchors} (temperature {self.temperature:g}, "
            f"teacher with momentum {self.teacher.momentum:g}{rises}, chance ln(1 + queue))"
        )
