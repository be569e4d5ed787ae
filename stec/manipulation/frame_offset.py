"""The manipulation model within a sequence: which way, and how far, is this frame from where the context ends?

CPC is told the action "go k frames ahead" and asked for the frame; here the frame is given and the action asked for:
-log q(k | c_t, z_{t+k}).

Legend: B samples, V views, P pairs of a view, K classes, T frames.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stec.distributed import global_mean
from stec.encoder import Features
from stec.errors import UsageError, at_least
from stec.losses import float_of
from stec.objective import Out, Term, tally
from stec.rng import uniform
from stec.views import Views


class Pairs(NamedTuple):
    """Places t of contexts and t + k of frames, and the number of the offset k among all; int64 [B, P]. valid [B, P]:
    whether the sample has so many frames that both exist."""

    here: Tensor
    there: Tensor
    offset: Tensor
    valid: Tensor


class FrameOffset(Term):
    """Mean cross-entropy of the binned offset k between a context and a frame of the same view, over random pairs.

    reach: the largest offset in frames. past: offsets are -reach ... -1 as well as 1 ... reach. All are equally likely,
    and so are all places where an offset is possible. num_bins: neighbouring offsets share a class, so that all classes
    are of equal mass or as nearly as can be; null: each offset is a class. num_pairs: drawn from each view of each
    sample. hidden: width of the head (Linear - BN - ReLU - Linear on c and z side by side).
    """

    needs = frozenset({"local", "context"})
    num_views = 1
    offsets: Tensor
    classes: Tensor

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        reach: int = 12,
        past: bool = True,
        num_bins: int | None = 6,
        num_pairs: int = 8,
        hidden: int = 512,
    ):
        super().__init__()
        key = "manipulation.frame_offset"
        at_least(1, key, reach=reach, num_pairs=num_pairs, hidden=hidden)
        if missing := self.needs - dims.keys():
            raise UsageError(f"{key} reads the output {', '.join(sorted(missing))}, which this encoder lacks.")
        offsets = torch.cat([torch.arange(-reach, 0) if past else torch.arange(0), torch.arange(1, reach + 1)])
        num = len(offsets) if num_bins is None else num_bins
        if not 2 <= num <= len(offsets):
            told = "reach" if num_bins is None else "num_bins"
            raise UsageError(
                f"{key}.{told}={reach if num_bins is None else num_bins} leaves nothing to tell apart: 2 classes or"
                f" more are needed, and no more than there are offsets, {len(offsets)}."
            )
        self.reach, self.past, self.num_pairs, self.num_bins = reach, past, num_pairs, num
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("classes", torch.arange(len(offsets)) * num // len(offsets), persistent=False)
        mass = self.classes.bincount().double() / len(offsets)
        self.entropy, self.majority = float(-(mass * mass.log()).sum()), float(mass.max())
        self.head = nn.Sequential(
            nn.Linear(dims["context"] + dims["local"], hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, num),
        )

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        seen, target, valid = [], [], []
        for number, f in enumerate(features):
            assert f.local is not None
            assert f.context is not None
            pairs = self.draw(views.keys.to(f.local.device, non_blocking=True), number, f.local.shape[1], f.frames)
            rows = torch.arange(len(f.local), device=f.local.device)[:, None]
            seen.append(torch.cat([f.context[rows, pairs.here], f.local[rows, pairs.there]], dim=2).flatten(0, 1))
            target.append(self.classes[pairs.offset].flatten())
            valid.append(pairs.valid.flatten())
        # One call for all views: the head's batch norm sees every pair.
        logits = self.head(torch.cat(seen))
        answer, trusted = torch.cat(target), torch.cat(valid)
        with torch.autocast(logits.device.type, enabled=False):
            losses = F.cross_entropy(float_of(logits), answer, reduction="none")
        sums = {
            "train/loss_manip": tally(losses, trusted),
            "train/action_acc/frame_offset": tally(logits.detach().argmax(dim=1) == answer, trusted),
            "train/action_bits/frame_offset": tally((self.entropy - losses.detach()) / math.log(2), trusted),
        }
        return Out(global_mean(losses, trusted), sums)

    def draw(self, keys: Tensor, view: int, length: int, frames: Tensor | None = None) -> Pairs:
        """num_pairs pairs of each sample, by counters: keys int64 [B, 3], sequences of `length` frames, of which the
        first frames [B] are real (None: all). UsageError if `reach` leads out of any sequence."""
        if length <= self.reach:
            raise UsageError(
                f"manipulation.frame_offset.reach={self.reach} must be below the {length} frames of a sequence."
            )
        draws = uniform(keys, view, "frame_offset", 2 * self.num_pairs)
        offset = (draws[:, ::2] * len(self.offsets)).long()
        k = self.offsets[offset]
        room = -k.abs() + (length if frames is None else frames.to(keys.device)[:, None])
        here = (draws[:, 1::2] * room.clamp(min=1)).long() + (-k).clamp(min=0)
        return Pairs(here, here + k, offset, room > 0)

    def chance(self, batch_size: int | None = None) -> dict[str, float]:  # noqa: ARG002
        return {
            "train/loss_manip": self.entropy,
            "train/action_acc/frame_offset": self.majority,
            "train/action_bits/frame_offset": 0.0,
        }

    def describe(self) -> str:
        which = f"{-self.reach} to {self.reach}" if self.past else f"1 to {self.reach}"
        level = f"chance {self.entropy:.2f} nats, majority {self.majority:.3f}"
        return f"cross-entropy of the offset of a frame, {which} in {self.num_bins} bins, {level}"
