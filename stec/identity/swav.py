"""SwAV (Caron et al., NeurIPS 2020): two views of one thing belong to the same prototype.

q(a_id = 0 | x, x') is categorical over prototypes: what x is, softmax of its scores, is compared with the code of x',
whose balance over the batch (each prototype gets an equal share) keeps all things from being the same.

Legend: V views, of which the first G are global (the codes are theirs); B samples of this rank, N of all ranks; K
prototypes, D dimensions of an embedding, L embeddings in a queue.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stec.distributed import gather, global_mean, rank, world_size
from stec.encoder import Encoder, Features
from stec.errors import UsageError, at_least
from stec.heads import MLP
from stec.losses import float_of
from stec.objective import Out, Term, tally
from stec.views import Views


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Codes [N, K] of scores [N, K]: exp(scores / epsilon), scaled in turn to equal column and equal row sums.

    After each turn the rows are distributions over prototypes; the columns' sums come near N / K (SwAV's Eq. 3, Cuturi
    2013). In logarithms, so that no epsilon overflows; float32, or float64 if given.
    """
    with torch.autocast(scores.device.type, enabled=False):
        log_codes = float_of(scores) / epsilon
        for _ in range(iterations):
            log_codes = log_codes - log_codes.logsumexp(dim=0, keepdim=True)
            log_codes = log_codes.log_softmax(dim=1)
        return log_codes.exp()


def swapped_prediction(scores: Sequence[Tensor], codes: Sequence[Tensor], temperature: float) -> Tensor:
    """SwAV's Eq. 1 and 6: -sum_k code_i,k log softmax_k(scores_j / temperature), a mean over ordered pairs of views
    i < G, j != i: [B]. scores: V of [B, K]; codes: of the first G of these views, [B, K]."""
    with torch.autocast(scores[0].device.type, enabled=False):
        log_probs = [(float_of(s) / temperature).log_softmax(dim=1) for s in scores]
        pairs = [(code, lp) for i, code in enumerate(codes) for j, lp in enumerate(log_probs) if i != j]
        return torch.stack([-(code * lp).sum(dim=1) for code, lp in pairs]).mean(dim=0)


class SwAV(Term):
    """Cross-entropy between the codes of each global view and the predictions from all other views, all ways averaged.

    num_prototypes: K; freeze_steps: for so many steps the prototypes stay (their gradient is 0); temperature: divides
    the cosines of the prediction, epsilon those of the codes; iterations: of Sinkhorn. queue: how many earlier
    embeddings of each of the first two views stand beside the batch while its codes are balanced (0: none), collected
    from step queue_start on and used once there are so many. hidden, out: widths of the projector.
    """

    num_views = 2
    all_views = True
    queued: Tensor

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        num_prototypes: int = 3000,
        freeze_steps: int = 313,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        queue: int = 0,
        queue_start: int = 0,
        hidden: int = 2048,
        out: int = 128,
    ):
        super().__init__()
        for name, share in (("temperature", temperature), ("epsilon", epsilon)):
            if not 0 < share < math.inf:
                raise UsageError(f"identity.swav.{name}={share} must be finite and above 0.")
        at_least(2, "identity.swav", num_prototypes=num_prototypes)
        at_least(1, "identity.swav", iterations=iterations, hidden=hidden, out=out)
        at_least(0, "identity.swav", freeze_steps=freeze_steps, queue=queue, queue_start=queue_start)
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.freeze_steps, self.queue_start, self.step = freeze_steps, queue_start, 0
        self.projector = MLP(dims["pooled"], hidden, out)
        self.prototypes = nn.Linear(out, num_prototypes, bias=False)
        self.register_buffer("queued", torch.zeros(2, queue, out))
        self._normalise()

    @torch.no_grad()
    def _normalise(self) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def before_step(self, encoder: Encoder, step: int, total: int) -> None:  # noqa: ARG002
        self.step = step
        self._normalise()

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        projected = self.projector(torch.cat([f.pooled for f in features]))
        weight = self.prototypes.weight
        if self.step < self.freeze_steps:
            weight = weight.detach() + 0 * weight  # on the graph still: DDP waits for every parameter's gradient
        with torch.autocast(projected.device.type, enabled=False):
            z = F.normalize(float_of(projected), dim=1).chunk(len(features))
            scores = [each @ weight.to(each).T for each in z]
        codes = self._codes(z[: views.num_global], scores[: views.num_global])
        losses = swapped_prediction(scores, codes, self.temperature)
        return Out(global_mean(losses), {"train/loss_id": tally(losses)})

    @torch.no_grad()
    def _codes(self, z: Sequence[Tensor], scores: Sequence[Tensor]) -> list[Tensor]:
        """Codes [B, K] of each of G views, balanced over the samples of all ranks and, beside them, of the queue."""
        num, length = len(z[0]), self.queued.shape[1]
        collected = (self.step - self.queue_start) * num * world_size()
        codes = []
        for view, own in enumerate(scores):
            all_scores = gather(own.detach())
            if view < 2 and 0 < length <= collected:
                with torch.autocast(own.device.type, enabled=False):
                    queued = self.queued[view].to(own) @ self.prototypes.weight.to(own).T
                all_scores = torch.cat([all_scores, queued])
            balanced = sinkhorn(all_scores, epsilon=self.epsilon, iterations=self.iterations)
            codes.append(balanced[rank() * num : (rank() + 1) * num])
        if self.training and length and self.step >= self.queue_start:
            # The same on all ranks: the newest embeddings of the global batch come first.
            for view, own in enumerate(z[:2]):
                self.queued[view] = torch.cat([gather(own.detach()).to(self.queued), self.queued[view]])[:length]
        return codes

    def chance(self, batch_size: int | None = None) -> dict[str, float]:  # noqa: ARG002
        return {"train/loss_id": math.log(self.prototypes.out_features)}

    def describe(self) -> str:
        num = self.prototypes.out_features
        frozen = f", frozen for {self.freeze_steps} steps" if self.freeze_steps else ""
        queue = f", queue of {self.queued.shape[1]} a view" if self.queued.shape[1] else ""
        level = f"chance ln {num} = {math.log(num):.2f}"
        details = f"{num} prototypes{frozen}{queue}, {level}"
        return f"swapped prediction, averaged over samples and ordered pairs of views ({details})"
