"""The teacher: a slow copy of the encoder and its projector, which several identity models compare themselves with."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from stec.encoder import Encoder, encode, micro_batches
from stec.errors import UsageError


class Teacher(nn.Module):
    """xi <- tau xi + (1 - tau) theta after each step (BYOL, Grill et al. 2020, Eq. 1); no gradient reaches it.

    momentum: tau_base at the first step; rises: tau then follows 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2 to 1 at the
    last of K steps (or, likewise, to `final`), else it stays. Its batch norms use, and keep, statistics of their own.
    All else is in eval mode always: a target is to be no matter of chance (dropout, stochastic depth).

    micro_batch: how many samples it encodes at a time (None: all); joint: whether views of one shape share a call. Both
    are set, after it is made, to what holds for the student.
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
        self.micro_batch: int | None = None
        self.joint = True
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.projector = copy.deepcopy(projector).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Teacher":
        """Batch norms go by their batch if `mode`; nothing else changes."""
        super().train(False)
        self.training = mode
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.train(mode)
        return self

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
        """Projections [B, D] of views [B, ...] each; the projector sees all samples of all views at once."""
        parts = micro_batches(xs, self.micro_batch or max(1, len(xs[0])))
        encoded = [[f.pooled for f in encode(self.encoder, part, joint=self.joint)] for part in parts]
        pooled = [torch.cat(view) for view in zip(*encoded, strict=True)]
        return tuple(self.projector(torch.cat(pooled)).split([len(x) for x in pooled]))


def teachers(module: nn.Module) -> list[Teacher]:
    """All that are in it."""
    return [m for m in module.modules() if isinstance(m, Teacher)]
