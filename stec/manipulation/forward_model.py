"""EquiMod (Devillers and Lefort, ICLR 2023): predict where the embedding goes from the first view and the action.

The other way round than q(a | x, x'): of all embeddings in the batch, which is that of the second view, given the first
and what was done? Both ways bound the same information between action and views; world models, too, ask so.

Legend: B samples, P pairs of this rank (B for each direction), W ranks, C live components, D dimensions.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stec.actions import ActionSpace
from stec.copies import OfCopies, moments
from stec.distributed import gather, global_mean, rank
from stec.encoder import Features, tap
from stec.errors import UsageError, at_least
from stec.heads import MLP, width
from stec.losses import float_of, info_nce
from stec.objective import Out, tally
from stec.views import Views

SIMILARITIES = ("cosine", "dot")


def forward_loss(true: Tensor, predicted: Tensor, temperature: float, similarity: str = "cosine") -> Tensor:
    """NT-Xent of EquiMod between embeddings and their predictions, [P, D] each: one value for each pair, [P].

    The mean of -log softmax of s(true, predicted) / temperature and of s(predicted, true) / temperature, among both
    kinds of embeddings of all ranks but the anchor itself (2P * W - 1, P equal on all ranks), with gradient to all.
    similarity s: "cosine", theirs, or "dot", of the embeddings as they are.
    """
    with torch.autocast(true.device.type, enabled=False):
        anchors = torch.cat([float_of(true), float_of(predicted)])
        if similarity == "cosine":
            anchors = F.normalize(anchors, dim=1)
        myself = torch.arange(len(anchors), device=anchors.device) + rank() * len(anchors)
        losses = info_nce(anchors, gather(anchors), myself.roll(len(true)), temperature, excluded=myself)
        return losses.view(2, -1).mean(dim=0)


class ForwardModel(OfCopies):
    """NT-Xent between the projection of the second view and its prediction from the first view's and the action.

    The action is told as its live components in standard deviations from their means (those of draws for the extents
    int64 [., d]), an invalid component as its mean; a pair of which no component is valid is not averaged over, though
    its embeddings are candidates for the others.

    temperature: divides similarities. similarity: "cosine" or "dot". hidden, out: widths of the projector (three
    layers). tap, direction, yoked: as in the model `binned`. The defaults are those of EquiMod's CIFAR-10 runs; its
    authors start from a third view, which is the sample as it is, where here each view starts from the other one.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        dims: Mapping[str, int],
        space: ActionSpace,
        extents: Tensor,
        *,
        temperature: float = 0.2,
        similarity: str = "cosine",
        hidden: int = 2048,
        out: int = 128,
        direction: str = "both",
        yoked: bool = False,
        tap: str = "pooled",
    ):
        super().__init__()
        where = "manipulation.forward_model"
        if not temperature > 0:
            raise UsageError(f"{where}.temperature={temperature} must be above 0.")
        if similarity not in SIMILARITIES:
            raise UsageError(f"{where}.similarity={similarity!r} is unknown: choose one of {', '.join(SIMILARITIES)}.")
        at_least(1, where, hidden=hidden, out=out)
        drawn = self.fit(where, space, extents, direction=direction, tap=tap, yoked=yoked)
        self.temperature, self.similarity = temperature, similarity
        mean, deviation = moments(drawn)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.projector = MLP(width(dims, tap), hidden, out, num_layers=3, last_norm="plain", last_bias=False)
        self.told = nn.Sequential(nn.Linear(len(self.components), out, bias=False), nn.BatchNorm1d(out))
        self.predictor = MLP(2 * out, out, out, num_layers=1, last_norm="plain", last_bias=False)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        values, valid = self.given(views)
        # One call for both views: the projector's batch norm sees 2B samples.
        z = self.projector(torch.cat([tap(features[v], self.tap) for v in (0, 1)])).chunk(2)
        start, true = torch.cat([z[i] for i, _ in self.pairs]), torch.cat([z[j] for _, j in self.pairs])
        action = torch.where(valid, (values - self.mean) / self.deviation, 0.0).to(start)
        predicted = self.predictor(torch.cat([start, self.told(action)], dim=1))
        losses, known = forward_loss(true, predicted, self.temperature, self.similarity), valid.any(dim=1)
        with torch.no_grad(), torch.autocast(true.device.type, enabled=False):
            nearer, before = (F.cosine_similarity(float_of(a), float_of(true)) for a in (predicted, start))
        sums = {"train/loss_manip": tally(losses, known), "train/equivariance_gain": tally(nearer - before, known)}
        return Out(global_mean(losses, known), sums)

    def chance(self, batch_size: int | None = None) -> dict[str, float]:
        return {} if batch_size is None else {"train/loss_manip": math.log(2 * len(self.pairs) * batch_size - 1)}

    def describe(self) -> str:
        names = ", ".join(c.name for c in self.components)
        details = f"temperature {self.temperature:g}, {self.similarity}, chance ln(2P - 1) for P pairs"
        return f"NT-Xent of predicted and true embeddings, told {names} ({details}){self.asides()}"
