"""Views and the efference copies between them. Here, and only here, the copy is taken."""

from typing import NamedTuple

import torch
from torch import Tensor

from stec.actions import Compose, Relative


class Batch(NamedTuple):
    """What a loader hands over. x: one source [B, ...] for all views, or V views begun by the decoder; actions [V, B, P];
    keys int64 [B, 3]; group, labels int64 [B] or None (label -1: unknown)."""

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
    """V looks at the same B samples (sizes may differ), and the copies {(i, j): Relative} of the actions i -> j."""

    x: tuple[Tensor, ...]
    copies: dict[tuple[int, int], Relative]
    num_global: int
    keys: Tensor
    group: Tensor | None = None
    labels: Tensor | None = None


def make_views(
    batch: Batch, space: Compose, pairs: tuple[tuple[int, int], ...] = ((0, 1),), performed: int = 0
) -> Views:
    """Perform the actions (from part `performed` on) and take the efference copy of each ordered pair."""
    num_views = len(batch.actions)
    sources = batch.x if len(batch.x) == num_views else batch.x * num_views
    x = tuple(space.act(source, batch.actions[v], v, start=performed) for v, source in enumerate(sources))
    copies = {(i, j): space.relative(batch.actions[i], batch.actions[j]) for i, j in pairs}
    return Views(x, copies, num_views, batch.keys, batch.group, batch.labels)
