"""LeJEPA (Balestriero and LeCun, arXiv:2511.08544, 2025): views meet at their mean, and all embeddings form a Gaussian.

q(a_id = 0 | x, x') is a Gaussian around the mean of the global views' embeddings, so that -log q is the prediction
term; no other thing is looked at, and SIGReg (L_reg), a test of N(0, I) in random directions, stands in for it.
The statistic is Epps and Pulley's (Biometrika 70, 1983) with the authors' window, knots and scale
(github.com/rbalestr-lab/lejepa: univariate/epps_pulley.py, MINIMAL.md).

Legend: V views, of which the first G are global; B samples of this rank, N of all ranks; D dimensions; M directions.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from stec.distributed import gather, global_mean, world_size
from stec.encoder import Encoder, Features
from stec.errors import UsageError, at_least
from stec.heads import MLP
from stec.losses import float_of
from stec.objective import Out, Term, tally
from stec.views import Views


def sigreg(z: Tensor, directions: Tensor, *, knots: int = 17, t_max: float = 3.0) -> Tensor:
    """Sketched isotropic Gaussian regularisation of embeddings z [V, B, D]: a scalar, the same on all ranks.

    Mean over V views and M directions a (columns of length 1 of directions [D, M]) of

        T(y) = N * integral over [-t_max, t_max] of |mean_n exp(i t y_n) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt,   y = z a

    by the trapezoidal rule on `knots` points of [0, t_max] (the integrand is even). The N samples are those of all
    ranks, with gradient. Of N(0, I) itself its expectation is about 1.05, whatever N; all at 0 give about 0.40 * N.
    """
    with torch.autocast(z.device.type, enabled=False):
        z = float_of(z)
        t = torch.linspace(0, t_max, knots, dtype=z.dtype, device=z.device)
        gaussian = torch.exp(-t.square() / 2)
        angles = (z @ directions.to(z))[..., None] * t
        # Of each rank the mean of its samples, [1, 2, V, M, knots]; then of all.
        moments = gather(torch.stack([angles.cos().mean(dim=1), angles.sin().mean(dim=1)])[None])
        real, imaginary = moments.mean(dim=0).unbind(0)
        distance = (real - gaussian).square() + imaginary.square()
        integral = 2 * torch.trapezoid(distance * gaussian, t, dim=-1)
        return integral.mean() * (z.shape[1] * world_size())


def prediction(z: Tensor, num_global: int) -> Tensor:
    """Mean over D of the squared distance of each view from the mean of the first num_global ones: z [V, B, D] ->
    [V, B]."""
    with torch.autocast(z.device.type, enabled=False):
        z = float_of(z)
        return (z - z[:num_global].mean(dim=0)).square().mean(dim=2)


class LeJEPA(Term):
    """(1 - lamb) * prediction + lamb * SIGReg of projections of all views.

    lamb: in [0, 1]. num_slices: random directions, new ones in each step (the same on all ranks); knots, t_max: where
    characteristic functions are compared. hidden, out: widths of the projector: three linear layers.
    """

    num_views = 2
    all_views = True
    directions: Tensor

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        lamb: float = 0.02,
        num_slices: int = 256,
        knots: int = 17,
        t_max: float = 3.0,
        hidden: int = 2048,
        out: int = 128,
    ):
        super().__init__()
        if not 0 <= lamb <= 1:
            raise UsageError(f"identity.lejepa.lamb={lamb} must be in [0, 1].")
        if not 0 < t_max < math.inf:
            raise UsageError(f"identity.lejepa.t_max={t_max} must be finite and above 0.")
        at_least(2, "identity.lejepa", knots=knots)
        at_least(1, "identity.lejepa", num_slices=num_slices, hidden=hidden, out=out)
        self.lamb, self.knots, self.t_max = lamb, knots, t_max
        self.projector = MLP(dims["pooled"], hidden, out, num_layers=3)
        # A function of the step, so not part of a checkpoint.
        self.register_buffer("directions", _directions(out, num_slices, 0), persistent=False)

    def before_step(self, encoder: Encoder, step: int, total: int) -> None:  # noqa: ARG002
        width, num = self.directions.shape
        self.directions.copy_(_directions(width, num, step), non_blocking=True)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        z = self.projector(torch.cat([f.pooled for f in features])).unflatten(0, (len(features), -1))
        apart = prediction(z, views.num_global)
        regularisation = sigreg(z, self.directions, knots=self.knots, t_max=self.t_max)
        loss = (1 - self.lamb) * global_mean(apart) + self.lamb * regularisation
        sums = {"train/lejepa_prediction": tally(apart), "train/lejepa_sigreg": tally(regularisation)}
        return Out(loss, {"train/loss_id": tally(loss), **sums})

    def describe(self) -> str:
        num_slices = self.directions.shape[1]
        terms = f"{1 - self.lamb:g} x prediction + {self.lamb:g} x SIGReg"
        return f"LeJEPA, {terms} ({num_slices} directions, batch of all ranks; SIGReg of a Gaussian: about 1.05)"


def _directions(width: int, num: int, step: int) -> Tensor:
    """[width, num], columns of length 1, evenly spread over the sphere: drawn on the CPU, the same for every rank."""
    drawn = torch.randn(width, num, generator=torch.Generator().manual_seed(step))
    return drawn / drawn.norm(dim=0)
