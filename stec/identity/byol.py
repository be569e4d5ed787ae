"""BYOL (Grill et al., NeurIPS 2020): one view predicts what a slow copy of the network makes of the other.

The identity model is a normal density: q(a_id = 0 | x, x') = N(n(r(x)); n(t(x')), I / 2) with the online branch r, the
target branch t and n(z) = z / |z|, whose -log q is 2 - 2 cos(r, t) + a constant. It has no normaliser over other
things: that all things be the same is kept off by predictor, teacher and stopped gradient, not by the loss.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stec.distributed import global_mean
from stec.encoder import Encoder, Features
from stec.errors import UsageError, at_least
from stec.heads import MLP
from stec.losses import float_of
from stec.objective import Out, Term, tally
from stec.teacher import Teacher
from stec.views import Views


def byol(p1: Tensor, p2: Tensor, t1: Tensor, t2: Tensor) -> Tensor:
    """(|n(p1) - n(t2)|^2 + |n(p2) - n(t1)|^2) / 2 for each of B samples: [B] (BYOL, Eq. 2 and the line after it).

    p1, p2 [B, D]: predictions from two views; t1, t2 [B, D]: targets of the same views; n(z) = z / |z|. Every argument
    gets a gradient: detach the targets if they are not to. In float32 (float64 if given), whatever the autocast
    precision.
    """
    with torch.autocast(p1.device.type, enabled=False):
        p1, p2, t1, t2 = (float_of(z) for z in (p1, p2, t1, t2))
        return 2 - F.cosine_similarity(p1, t2, dim=1) - F.cosine_similarity(p2, t1, dim=1)


class BYOL(Term):
    """2 - 2 cos(prediction, target) of the first two views, averaged over both directions and all samples.

    hidden, out: widths of projector and predictor, Linear - BN - ReLU - Linear each. Three safeguards against collapse
    can be taken away, to see what else prevents it. momentum: that of the teacher at the first step, rising to 1
    (None: no teacher, the online projections are the targets); predictor: whether there is one; stop_gradient: whether
    the targets are constants (they must be, if a teacher makes them).
    """

    num_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        momentum: float | None = 0.99,
        predictor: bool = True,
        stop_gradient: bool = True,
        hidden: int = 4096,
        out: int = 256,
    ):
        super().__init__()
        at_least(1, "identity.byol", hidden=hidden, out=out)
        if momentum is not None and not stop_gradient:
            raise UsageError(
                "identity.byol.stop_gradient=false needs identity.byol.momentum=null: a teacher gets no gradient."
            )
        self.stop_gradient = stop_gradient
        self.projector = MLP(encoder.dims["pooled"], hidden, out)
        self.predictor: nn.Module = MLP(out, hidden, out) if predictor else nn.Identity()
        self.teacher = None
        if momentum is not None:
            self.teacher = Teacher(encoder, self.projector, momentum=momentum, where="identity.byol")

    def before_step(self, encoder: Encoder, step: int, total: int) -> None:
        if self.teacher is not None:
            self.teacher.follow(encoder, self.projector, step, total)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        # One call for both views: the batch norms see 2B samples, as the encoder's do.
        projected = self.projector(torch.cat([features[0].pooled, features[1].pooled]))
        p1, p2 = self.predictor(projected).chunk(2)
        if self.teacher is not None:
            t1, t2 = self.teacher(views.x[:2])
        else:
            t1, t2 = (projected.detach() if self.stop_gradient else projected).chunk(2)
        losses = byol(p1, p2, t1, t2)
        return Out(global_mean(losses), {"train/loss_id": tally(losses)})

    def describe(self) -> str:
        teacher = "no teacher" if self.teacher is None else f"teacher (momentum {self.teacher.momentum:g} rising to 1)"
        predictor = "no predictor" if isinstance(self.predictor, nn.Identity) else "predictor"
        gradient = "stopped gradient" if self.stop_gradient else "gradient through the targets"
        return f"2 - 2 cos averaged over B samples and 2 directions; {teacher}, {predictor}, {gradient}"
