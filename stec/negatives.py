"""What a frame of a sequence is told from: negatives drawn among the frames of the global batch, by counters.

Every draw is a function of the anchor's key (of all keys, for permutations), so that ranks on slices of a batch draw
what one rank on the whole draws. Nothing here waits for the device.

Legend: B sequences of this rank, W ranks, T frames, A = T - steps anchors in a sequence, N negatives of an anchor. A
frame's number is its place in the flattened global batch: sequence * T + t.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from stec.distributed import gather, rank, world_size
from stec.rng import bits

MODES = ("uniform", "same_sequence", "same_group", "other_sequences", "permuted")
"""Where the negatives of an anchor (b, t), whose positives are the frames t + 1 ... t + steps of b, come from:

* uniform: any frame of the global batch but its positives (its own frame t may come);
* same_sequence: the other frames of b, neither its positives nor t itself;
* same_group: any frame of the sequences in the group of b, but its positives; unknown groups, -1, are one group;
* other_sequences: any frame of all sequences but b;
* permuted: each of N random permutations of the global batch's frames gives every anchor one (Greedy InfoMax's mode 1:
  across anchors no frame comes twice, and by accident it may be a positive).

All but the last are drawn with replacement.
"""


class Negatives(NamedTuple):
    """Numbers of frames int64 [B, A, N]; which anchors have negatives and all their positives, bool [B, A]."""

    frames: Tensor
    valid: Tensor


def draw(
    mode: str,
    num: int,
    steps: int,
    *,
    keys: Tensor,
    view: int,
    length: int,
    frames: Tensor | None = None,
    group: Tensor | None = None,
    device: torch.device,
) -> Negatives:
    """Negatives of the anchors t = 0 ... T - steps - 1 of sequences with keys int64 [B, 3], length T.

    frames int64 [B]: how many leading frames of each are real (None: all); the others are neither anchors nor drawn.
    group int64 [B]: wanted by same_group. B and T must be the same on all ranks.
    """
    mine = torch.arange(len(keys), device=device) + rank() * len(keys)
    keys = keys.to(device, non_blocking=True)
    time = torch.arange(length - steps, device=device)
    whole = torch.full((len(keys) * world_size(),), length, device=device)
    sizes = whole if frames is None else gather(frames.to(device))
    own = sizes[mine, None]
    enough = time + steps < own
    if mode == "permuted":
        place = (sizes.cumsum(0) - sizes)[mine, None] + time
        return Negatives(_permuted(gather(keys), view, sizes, length, num)[:, place].movedim(0, 2), enough)

    order = torch.arange(len(sizes), device=device)
    if mode == "same_group":
        assert group is not None
        groups, order = gather(group.to(device)).sort(stable=True)
    # All real frames one after the other, sequence after sequence in this order: order[i] begins at starts[i].
    starts = torch.cat([order.new_zeros(1), sizes[order].cumsum(0)])
    place = order.argsort()[mine, None]
    start = starts[place]
    positive = start + time + 1
    # An anchor draws from low ... high - 1, but for the `gap` frames from `hole` on, which lie within.
    low, high = torch.zeros_like(start), starts[-1:].expand_as(start)
    hole, gap = positive, torch.full_like(start, steps)
    if mode == "same_sequence":
        low, high, hole, gap = start, start + own, positive - 1, gap + 1
    elif mode == "same_group":
        low, high = (starts[torch.searchsorted(groups, groups[place], right=right)] for right in (False, True))
    elif mode == "other_sequences":
        hole, gap = start.expand_as(positive), own
    count = high - low - gap
    words = bits(keys, view, "negatives", len(time) * num).unflatten(1, (len(time), num))
    drawn = low[..., None] + ((words * count.clamp(min=0)[..., None]) >> 32)  # as good as even: count is far below 2^32
    drawn += gap[..., None] * (drawn >= hole[..., None])
    where = torch.searchsorted(starts[1:], drawn, right=True).clamp(max=len(sizes) - 1)
    numbers = order[where] * length + drawn - starts[where]
    # Anchors that have nothing to draw from got something, which must at least be a place in the batch.
    return Negatives(numbers.clamp(max=len(sizes) * length - 1), enough & (count > 0))


def _permuted(keys: Tensor, view: int, sizes: Tensor, length: int, num: int) -> Tensor:
    """int64 [num, W * B * T]: in each row the numbers of all real frames, in random order, and then the others."""
    words = bits(keys, view, "negatives", length * num).view(len(keys), length, num)
    padding = torch.arange(length, device=keys.device) >= sizes[:, None]
    return (words + (padding[..., None] * 2**32)).flatten(0, 1).T.argsort(dim=1, stable=True)
