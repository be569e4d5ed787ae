"""CPC (van den Oord et al., 2018): the identity model of sequences, told the action "go k frames ahead".

q(this is the frame | context up to t, k) is a softmax over one frame that is there at t + k, and others that are not.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stec.distributed import gather, global_mean, rank, world_size
from stec.encoder import Features
from stec.errors import UsageError, at_least
from stec.losses import float_of
from stec.negatives import MODES, Negatives, draw
from stec.objective import Out, Term, tally
from stec.views import Views

SCORES = ("dot", "mean")

# Negatives are looked up for so many anchors at a time that they are about so many numbers: 64 MiB of float32 keep a
# GPU busy, 4 MiB stay in a CPU's cache (four times faster).
_SLAB, _CPU_SLAB = 2**24, 2**20


class CPC(Term):
    """InfoNCE of the frames 1 ... `steps` ahead, mean over steps and anchors, in float32; each view apart.

    steps: K of the paper; one matrix W_k each. negatives: where they come from, see stec.negatives.MODES;
    num_negatives: how many an anchor has, the same ones for all its steps, as in Riviere et al.'s code (ICASSP 2020).
    score: z' W_k c, "dot", or that divided by the width of z, "mean" (theirs).

    The anchors are t = 0 ... T - steps - 1, those that have all their positives: so each step is judged at the same
    anchors, with the same negatives. Memory of a view: T - steps anchors of B sequences with `steps` predictions (width
    of z) and steps x num_negatives scores each; negatives themselves never take more than 64 MiB (or one anchor's).
    """

    needs = frozenset({"local", "context"})
    num_views = 1

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        steps: int = 12,
        negatives: str = "uniform",
        num_negatives: int = 128,
        score: str = "dot",
    ):
        super().__init__()
        at_least(1, "identity.cpc", steps=steps, num_negatives=num_negatives)
        for name, choice, known in (("negatives", negatives, MODES), ("score", score, SCORES)):
            if choice not in known:
                raise UsageError(f"identity.cpc.{name}={choice!r} is unknown: choose one of {', '.join(known)}.")
        if missing := self.needs - dims.keys():
            raise UsageError(f"identity.cpc reads the output {', '.join(sorted(missing))}, which this encoder lacks.")
        self.steps, self.negatives, self.num_negatives, self.score = steps, negatives, num_negatives, score
        self.reads_group = negatives == "same_group"
        self.predict = nn.Linear(dims["context"], steps * dims["local"], bias=False)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        outs = [self._judge(f, views, number) for number, f in enumerate(features)]
        each = {name: zip(*(out.sums[name] for out in outs), strict=True) for name in outs[0].sums}
        sums = {name: (sum(totals), sum(counts)) for name, (totals, counts) in each.items()}
        return Out(torch.stack([out.loss for out in outs]).mean(), sums)

    def _judge(self, features: Features, views: Views, view: int) -> Out:
        """One view: candidates are the frames of this view only."""
        assert features.local is not None
        assert features.context is not None
        local = float_of(features.local)
        length = local.shape[1]
        self._check(len(local) * world_size(), length, views.group)
        anchors = length - self.steps
        negatives = draw(
            self.negatives,
            self.num_negatives,
            self.steps,
            keys=views.keys,
            view=view,
            length=length,
            frames=features.frames,
            group=views.group,
            device=local.device,
        )
        predicted = self.predict(features.context[:, :anchors]).unflatten(2, (self.steps, -1))
        with torch.autocast(local.device.type, enabled=False):
            predicted = predicted.to(local.dtype) / (local.shape[2] if self.score == "mean" else 1)
            pairs = ((w, local[:, k : k + anchors]) for k, w in enumerate(predicted.unbind(2), start=1))
            positive = torch.stack([(w * z).sum(2) for w, z in pairs], dim=2)
            others: Tensor = _Scores.apply(
                predicted.flatten(0, 1), gather(local.flatten(0, 1)), negatives.frames.flatten(0, 1)
            )
            others = others.view(*positive.shape, -1)
            losses = F.softplus(others.logsumexp(3) - positive)
        valid = negatives.valid[..., None].expand_as(losses)
        # An equal score is no win: of a network that tells nothing apart, the accuracy is 0.
        right = positive.detach() > others.detach().amax(3)
        sums = {"train/loss_id": tally(losses, valid), "train/cpc_acc": tally(right, valid)}
        for k in sorted({1, self.steps}):
            sums[f"train/cpc_acc/{k}"] = tally(right[..., k - 1], negatives.valid)
        sums["train/cpc_collisions"] = self._collisions(negatives, length)
        return Out(global_mean(losses, valid), sums)

    def _collisions(self, negatives: Negatives, length: int) -> tuple[Tensor, Tensor]:
        """Of all the times a negative stands beside a positive, how often it is that same frame."""
        batch, anchors, _ = negatives.frames.shape
        device = negatives.frames.device
        sequence = torch.arange(batch, device=device)[:, None] + rank() * batch
        distance = negatives.frames - (sequence * length + torch.arange(anchors, device=device))[..., None]
        hits, count = tally((distance >= 1) & (distance <= self.steps), negatives.valid[..., None].expand_as(distance))
        return hits, count * self.steps

    def _check(self, batch: int, length: int, group: Tensor | None) -> None:
        """UsageError if a global batch of so many sequences of this length has no positives or no negatives."""
        ahead = self.steps + (self.negatives == "same_sequence")
        if length <= ahead:
            raise UsageError(
                f"identity.cpc.steps={self.steps} with negatives={self.negatives} needs sequences of more than {ahead}"
                f" frames, but the encoder gives {length}: choose fewer steps or longer views."
            )
        if self.negatives == "other_sequences" and batch < 2:
            raise UsageError("identity.cpc.negatives=other_sequences needs 2 or more sequences in a batch, not 1.")
        if self.negatives == "same_group" and group is None:
            raise UsageError("identity.cpc.negatives=same_group needs samples with a member `group`: these have none.")

    def chance(self, batch_size: int | None = None) -> dict[str, float]:  # noqa: ARG002
        candidates = 1 + self.num_negatives
        names = ("train/cpc_acc", *(f"train/cpc_acc/{k}" for k in sorted({1, self.steps})))
        return {"train/loss_id": math.log(candidates)} | dict.fromkeys(names, 1 / candidates)

    def describe(self) -> str:
        what = f"InfoNCE averaged over {self.steps} steps ahead and all anchors, {self.score} scores"
        return f"{what}, {self.num_negatives} {self.negatives} negatives, chance {math.log(1 + self.num_negatives):.2f}"


class _Scores(torch.autograd.Function):
    """predictions [A, K, E], candidates [M, E], numbers int64 [A, N] -> their products [A, K, N].

    The N candidates of an anchor are looked up slab by slab, and again on the way back: [A, N, E] never exists.
    """

    @staticmethod
    def forward(ctx: Any, predictions: Tensor, candidates: Tensor, numbers: Tensor) -> Tensor:
        ctx.save_for_backward(predictions, candidates, numbers)
        scores = predictions.new_empty(*predictions.shape[:2], numbers.shape[1])
        for s in _slabs(numbers, candidates):
            torch.bmm(predictions[s], F.embedding(numbers[s], candidates).mT, out=scores[s])
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        predictions, candidates, numbers = ctx.saved_tensors
        to_predictions = torch.empty_like(predictions)
        to_candidates = torch.zeros_like(candidates)
        with torch.autocast(gradient.device.type, enabled=False):
            for s in _slabs(numbers, candidates):
                torch.bmm(gradient[s], F.embedding(numbers[s], candidates), out=to_predictions[s])
                each = gradient[s].mT @ predictions[s]
                # The way back of a look-up: it sums in the same order in every run (index_add_ on a GPU does not).
                to_candidates += torch.ops.aten.embedding_dense_backward(each, numbers[s], len(candidates), -1, False)
        return to_predictions, to_candidates, None


def _slabs(numbers: Tensor, candidates: Tensor) -> Iterator[slice]:
    size = _CPU_SLAB if numbers.device.type == "cpu" else _SLAB
    rows = max(1, size // (numbers.shape[1] * candidates.shape[1]))
    return (slice(start, start + rows) for start in range(0, len(numbers), rows))
