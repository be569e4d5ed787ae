"""Views and the efference copies between them. Here, and only here, the copy is taken."""

from collections.abc import Callable
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from stec.actions import Compose, Relative


class Batch(NamedTuple):
    """What a loader hands over. x: one source [B, ...] for all views, or V views begun by the decoder, uint8 until the
    decoder's `finish`; actions [V, B, P]; keys int64 [B, 3]; group, labels int64 [B] or None (label -1: unknown)."""

    x: tuple[Tensor, ...]
    actions: Tensor
    keys: Tensor
    group: Tensor | None = None
    labels: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        def move(t: Tensor | None) -> Tensor | None:
            return None if t is None else t.to(device, non_blocking=True)

        x = tuple(t.to(device, non_blocking=True) for t in self.x)
        return Batch(x, self.actions.to(device, non_blocking=True), self.keys, move(self.group), move(self.labels))


class Views(NamedTuple):
    """V looks at the same B samples, and the copies {(i, j): Relative} of the actions i -> j. num_global: how many of
    the first views have the first one's size; those after them (multi-crop) are smaller."""

    x: tuple[Tensor, ...]
    copies: dict[tuple[int, int], Relative]
    num_global: int
    keys: Tensor
    group: Tensor | None = None
    labels: Tensor | None = None


def make_views(
    batch: Batch,
    space: Compose,
    pairs: tuple[tuple[int, int], ...] = ((0, 1),),
    *,
    performed: int = 0,
    finish: Callable[[Tensor], Tensor] | None = None,
) -> Views:
    """Complete the views on the device where the batch is, and take the efference copy of each ordered pair.

    finish: the decoder's last step, uint8 -> float (None: x is float already). Then come the actions, from part
    `performed` on: the decoder has performed those before.
    """
    num_views = len(batch.actions)
    begun = batch.x if finish is None else tuple(finish(x) for x in batch.x)
    if len(begun) != num_views:
        begun = begun * num_views  # one source for all views
    x = tuple(space.act(begun[v], batch.actions[v], v, start=performed) for v in range(num_views))
    copies = {(i, j): space.relative(batch.actions[i], batch.actions[j]) for i, j in pairs}
    num_global = sum(1 for _ in takewhile(lambda view: view.shape == x[0].shape, x))
    return Views(x, copies, num_global, batch.keys, batch.group, batch.labels)
