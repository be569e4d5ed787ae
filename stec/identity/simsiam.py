"""SimSiam (Chen and He, CVPR 2021): one view predicts the other; the target is a constant, and there is no teacher.

The identity model is BYOL's normal density, q(a_id = 0 | x, x') = N(n(r(x)); n(t(x')), I), whose -log q is
1 - cos(r, t) + a constant; t is the online projector itself, through which no gradient goes.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from stec.distributed import global_mean
from stec.encoder import Features
from stec.errors import UsageError, at_least
from stec.heads import MLP
from stec.losses import float_of
from stec.objective import Out, Term, tally
from stec.views import Views

RATES = ("constant", "decays")


def simsiam(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    """-(cos(p1, sg z2) + cos(p2, sg z1)) / 2 for each of B samples: [B], in [-1, 1] (SimSiam, Eq. 4).

    p1, p2 [B, D]: predictions from two views; z1, z2 [B, D]: projections of the same views; sg: no gradient goes
    through. In float32 (float64 if given), whatever the autocast precision.
    """
    with torch.autocast(p1.device.type, enabled=False):
        p1, p2, z1, z2 = (float_of(z) for z in (p1, p2, z1, z2))
        return -(F.cosine_similarity(p1, z2.detach(), dim=1) + F.cosine_similarity(p2, z1.detach(), dim=1)) / 2


class SimSiam(Term):
    """-cos(prediction, projection) of the first two views, averaged over both directions and the samples of all ranks.

    hidden, out, num_layers: the projector, Linear - BN - ReLU ..., its last BN without gain and shift; bottleneck: the
    inner width of the predictor, Linear - BN - ReLU - Linear. predictor_lr: "constant" keeps the predictor's learning
    rate at its peak from the first step to the last (the paper's appendix: it then follows the latest projections),
    "decays" treats it as all others.
    """

    num_views = 2

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        hidden: int = 2048,
        out: int = 2048,
        num_layers: int = 3,
        bottleneck: int = 512,
        predictor_lr: str = "constant",
    ):
        super().__init__()
        at_least(1, "identity.simsiam", hidden=hidden, out=out, num_layers=num_layers, bottleneck=bottleneck)
        if predictor_lr not in RATES:
            raise UsageError(
                f"identity.simsiam.predictor_lr={predictor_lr!r} is unknown: choose one of {', '.join(RATES)}."
            )
        self.predictor_lr = predictor_lr
        self.constant_rate = ("predictor",) if predictor_lr == "constant" else ()
        self.projector = MLP(dims["pooled"], hidden, out, num_layers=num_layers, last_norm="plain", last_bias=False)
        self.predictor = MLP(out, bottleneck, out)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:  # noqa: ARG002
        # One call for both views: the batch norms see 2B samples, as the encoder's do.
        projected = self.projector(torch.cat([features[0].pooled, features[1].pooled]))
        losses = simsiam(*self.predictor(projected).chunk(2), *projected.chunk(2))
        return Out(global_mean(losses), {"train/loss_id": tally(losses)})

    def describe(self) -> str:
        rate = "constant" if self.predictor_lr == "constant" else "falling"
        return (
            "-cos averaged over B samples and 2 directions (-1: both views agree, or all is one point); "
            f"stopped gradient, predictor at a {rate} learning rate"
        )
