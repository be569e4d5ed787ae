"""The teacher: a slow copy of the encoder and its projector, which several identity models compare themselves with."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from stec.encoder import Encoder, encode
from stec.errors import UsageError


class Teacher(nn.Module):
    """xi <- tau xi + (1 - tau) theta after each step (BYOL, Grill et al. 2020, Eq. 1); no gradient reaches it.

    momentum: tau_base at the first step; rises: tau then follows 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2 to 1 at the
    last of K steps (or, likewise, to `final`), else it stays. Its batch norms use, and keep, statistics of their own.
    where: the YAML key of the model that it serves, for the sentence if 0 <= momentum <= final <= 1 does not hold.
    """

    def __init__(
        self,
        encoder: Encoder,
        projector: nn.Module,
        *,
        momentum: float,
        rises: bool = True,
        final: float = 1.0,
        where: str,
    ):
        super().__init__()
        if not 0 <= momentum <= 1:
            raise UsageError(f"{where}.momentum={momentum} must be in [0, 1].")
        if not momentum <= final <= 1:
            raise UsageError(f"{where}.final_momentum={final} must be in [{where}.momentum, 1] = [{momentum}, 1].")
        self.momentum, self.rises, self.final = momentum, rises, final
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.projector = copy.deepcopy(projector).requires_grad_(False)

    def follow(self, encoder: Encoder, projector: nn.Module, step: int, total: int) -> None:
        """Before step number `step` of `total`: at the first one it becomes the student, later it moves towards it."""
        pairs = ((self.encoder, encoder), (self.projector, projector))
        if step == 0:
            for mine, theirs in pairs:
                mine.load_state_dict(theirs.state_dict())
            return
        # The rate belongs to the step that has just been made.
        average = get_ema_multi_avg_fn(self.rate(step - 1, total))
        copies = [p for mine, _ in pairs for p in mine.parameters()]  # together: an encoder may have nothing to learn
        average(copies, [p for _, theirs in pairs for p in theirs.parameters()], None)

    def rate(self, step: int, total: int) -> float:
        """tau of a step."""
        if not self.rises:
            return self.momentum
        return self.final - (self.final - self.momentum) * (math.cos(math.pi * step / total) + 1) / 2

    @torch.no_grad()
    def forward(self, xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Projections [B, D] of views [B, ...] each; views of one shape share their batch statistics."""
        pooled = [features.pooled for features in encode(self.encoder, xs)]
        return tuple(self.projector(torch.cat(pooled)).split([len(x) for x in pooled]))
