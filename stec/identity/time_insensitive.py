"""The identity model that time does not matter to: any two frames of a recording are the same thing.

CPC marginalised over its action: one projection for all offsets, so nothing is asked about what lies between two frames
(S-TEC's paper adds such a model to CPC and says no more of it: the designs here are our reading).
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from stec.distributed import gather, global_mean, rank
from stec.encoder import Features
from stec.errors import UsageError, at_least
from stec.heads import Projector
from stec.losses import NEGATIVES, nt_xent, num_compared
from stec.objective import Out, Term, tally
from stec.rng import uniform
from stec.views import Views

DESIGNS = ("windows", "frames")
READS = ("context", "local")


class TimeInsensitive(Term):
    """NT-Xent on projections of pairs of random frames, averaged over 2B anchors, draws and, by design, views.

    design: "windows": a frame of view 0 and a frame of view 1 are the same thing, wherever the views lie in their
    recording (2 views); "frames": two different frames of one view are, each view apart (1 view is enough). The
    frames that are drawn of the other samples of the batch are other things. reads: which frames, "context" or "local";
    num_frames: how many such pairs are drawn from a sample (their losses are averaged).
    temperature: divides the cosines; hidden, out: widths of the projector; negatives: "global" (all ranks) or "local".
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        design: str = "windows",
        reads: str = "context",
        num_frames: int = 1,
        temperature: float = 0.2,
        hidden: int = 256,
        out: int = 64,
        negatives: str = "global",
    ):
        super().__init__()
        key = "identity.time_insensitive"
        for name, choice, known in (
            ("design", design, DESIGNS),
            ("reads", reads, READS),
            ("negatives", negatives, NEGATIVES),
        ):
            if choice not in known:
                raise UsageError(f"{key}.{name}={choice!r} is unknown: choose one of {', '.join(known)}.")
        at_least(1, key, num_frames=num_frames, hidden=hidden, out=out)
        if not temperature > 0:
            raise UsageError(f"{key}.temperature={temperature} must be above 0.")
        if reads not in dims:
            raise UsageError(f"{key}.reads={reads} is an output that this encoder lacks.")
        self.design, self.reads, self.num_frames = design, reads, num_frames
        self.temperature, self.negatives, self.out = temperature, negatives, out
        self.num_views = 2 if design == "windows" else 1
        self.needs = frozenset({reads})
        self.projector = Projector(dims[reads], hidden, out)

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        compared = features[:2] if self.design == "windows" else features
        each = 1 if self.design == "windows" else 2
        frames = torch.cat([self._drawn(f, views, number)[:each] for number, f in enumerate(compared)])
        # One call for all: the projector's batch norm sees every frame drawn.
        projected = self.projector(frames.flatten(0, 2)).view(-1, 2, *frames.shape[1:3], self.out)
        draws = [(z[0, n], z[1, n]) for z in projected for n in range(self.num_frames)]
        losses = torch.cat([nt_xent(a, b, self.temperature, self.negatives) for a, b in draws])
        right = torch.cat([self._right(a.detach(), b.detach()) for a, b in draws])
        return Out(global_mean(losses), {"train/loss_id": tally(losses), "train/time_insensitive_acc": tally(right)})

    def _drawn(self, features: Features, views: Views, view: int) -> Tensor:
        """[2, num_frames, B, C]: random frames of one view, and beside each another one of the same sample."""
        x = features.context if self.reads == "context" else features.local
        assert x is not None
        if self.design == "frames" and x.shape[1] < 2:
            raise UsageError("identity.time_insensitive.design=frames compares two frames of a view: it has only one.")
        length = torch.full((len(x),), x.shape[1], device=x.device) if features.frames is None else features.frames
        length = length.to(x.device).clamp(min=1)[:, None]
        keys = views.keys.to(x.device, non_blocking=True)
        draws = uniform(keys, view, "time_insensitive", 2 * self.num_frames)
        first = (draws[:, ::2] * length).long()
        # Of the frames that are not the first one, so many steps on from it (of a single frame: that one again).
        second = (first + 1 + (draws[:, 1::2] * (length - 1)).long()) % length
        rows = torch.arange(len(x), device=x.device)[:, None]
        return torch.stack([x[rows, time].transpose(0, 1) for time in (first, second)])

    @torch.no_grad()
    def _right(self, a: Tensor, b: Tensor) -> Tensor:
        """bool [2B]: is an anchor nearer to its other frame than to all others? (Ties are no win.)"""
        both = F.normalize(torch.cat([a, b]).float(), dim=1)
        candidates, offset = (gather(both), rank() * len(both)) if self.negatives == "global" else (both, 0)
        myself = torch.arange(len(both), device=both.device) + offset
        positive = myself.roll(len(a))
        right = []
        for rows in torch.arange(len(both), device=both.device).split(1024):  # no 2B x 2B matrix
            with torch.autocast(both.device.type, enabled=False):
                cosines = both[rows] @ candidates.T
            wanted = cosines.gather(1, positive[rows, None])
            seen = torch.stack([myself, positive], dim=1)[rows]
            right.append(wanted.squeeze(1) > cosines.scatter(1, seen, -torch.inf).amax(1))
        return torch.cat(right)

    def chance(self, batch_size: int | None = None) -> dict[str, float]:
        if batch_size is None:
            return {}
        return {"train/loss_id": math.log(2 * num_compared(self.negatives, batch_size) - 1)}

    def describe(self) -> str:
        pairs = "frames of two views" if self.design == "windows" else "two frames of a view"
        details = f"temperature {self.temperature:g}, {self.negatives} negatives, chance ln(2B - 1)"
        return f"NT-Xent of {pairs} ({self.reads}), averaged over 2B anchors and {self.num_frames} draws ({details})"
