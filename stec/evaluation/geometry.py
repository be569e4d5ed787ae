"""How far an action moves a class in the space of the features: distances of class centroids, as at Fig. 4 of the paper
on self-supervised learning through efference copies (Scherr, Guo and Moraitis 2022; 10.5 with S-TEC, 0.4 with SimCLR).

Legend: B samples of a batch, N samples, C classes, D width of the features, P parameters of an action.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stec.actions import ActionSpace, Compose
from stec.encoder import Encoder, tap
from stec.errors import UsageError
from stec.evaluation.features import PROJECTOR, Table, finite, frozen
from stec.views import Views

ALL = "all"
_CHUNK = 512  # samples that are encoded at a time, however many a batch holds


class Alone(Compose):
    """An action space of which only some is done: {part: None (all of it) or the columns of its actions}.

    Actions are drawn as ever; whatever else a part would do is replaced by its action that leaves a sample as it is
    (`still`), and a part that has none (a nuisance) is not performed.
    """

    def __init__(self, space: Compose, done: Mapping[str, tuple[int, ...] | None]):
        super().__init__(space.parts)
        self.done = dict(done)

    def sample(self, keys: Tensor, extent: Tensor, view: int) -> Tensor:
        """float32 [B, P] for keys int64 [B, 3] and extents int64 [B, d]."""
        drawn = super().sample(keys, extent, view)
        actions = drawn.clone()
        for name, part in self.parts.items():
            still = _still(part)
            if still is not None and self.done.get(name, ()) is not None:
                own = still(extent)
                columns = list(self.done.get(name) or ())
                own[:, columns] = drawn[:, self.slices[name]][:, columns]
                actions[:, self.slices[name]] = own
        return actions

    def act(self, x: Tensor, action: Tensor, view: int, start: int = 0) -> Tensor:
        for name, part in list(self.parts.items())[start:]:
            if name in self.done or _still(part) is not None:
                x = part.act(x, action[:, self.slices[name]], view)
        return x


def _still(part: ActionSpace) -> Callable[[Tensor], Tensor] | None:
    return getattr(part, "still", None)


def plain(space: Compose, performed: int) -> Alone:
    """The space in which nothing is done. performed: parts that the decoder performs, willy-nilly; UsageError if one of
    them has no action that leaves a sample as it is."""
    for name, part in list(space.parts.items())[:performed]:
        if _still(part) is None:
            raise UsageError(
                f"actions.{name} is performed while decoding and does not say what leaving a sample as it is would be"
                " (still): there is no plain sample to compare with."
            )
    return Alone(space, {})


def lines(space: Compose) -> dict[str, Alone]:
    """{what is done: the space in which only this is done}: each part alone, what a part does taken apart (its
    `aspects`, {name: columns}, if it has several), and all together."""
    found: dict[str, Alone] = {}
    for name, part in space.parts.items():
        found[name] = Alone(space, {name: None})
        aspects: Mapping[str, tuple[int, ...]] = getattr(part, "aspects", {})
        if _still(part) is not None and len(aspects) > 1:
            found |= {f"{name}: {aspect}": Alone(space, {name: columns}) for aspect, columns in aspects.items()}
    if len(space.parts) > 1:
        found[ALL] = Alone(space, dict.fromkeys(space.parts))
    return found


class Reading(NamedTuple):
    """An encoder, the outputs of it that are read ("pooled", "projector", layers), and the projector for the second."""

    encoder: Encoder
    taps: tuple[str, ...]
    head: nn.Module | None = None

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """{tap: features float32 [B, D] on the CPU} of x [B, ...]."""
        found: dict[str, list[Tensor]] = {name: [] for name in self.taps}
        for chunk in x.split(_CHUNK):
            with torch.autocast(chunk.device.type, enabled=False):
                features = self.encoder(chunk.float())
                for name in self.taps:
                    seen = self.head(features.pooled) if name == PROJECTOR and self.head else tap(features, name)
                    found[name].append(seen.float().flatten(1).cpu())
        return {name: torch.cat(parts) for name, parts in found.items()}


def read(batches: Iterable[Views], readings: Mapping[str, Reading], num: int) -> dict[str, dict[str, Table]]:
    """{encoder: {tap: Table}} of the first view of the first `num` samples. UsageError unless all have labels of two
    classes or more; NonFinite for features that are none."""
    seen: dict[str, dict[str, list[Tensor]]] = {name: {t: [] for t in r.taps} for name, r in readings.items()}
    labels: list[Tensor] = []
    with frozen(*(module for r in readings.values() for module in (r.encoder, r.head) if module is not None)):
        for views in batches:
            assert views.labels is not None
            for name, reading in readings.items():
                for output, x in reading(views.x[0]).items():
                    seen[name][output].append(x)
            labels.append(views.labels.cpu())
            if sum(map(len, labels)) >= num:
                break
    y = torch.cat(labels)[:num] if labels else torch.empty(0, dtype=torch.int64)
    known = y >= 0
    if len(y[known].unique()) < 2:
        raise UsageError("geometry compares classes: samples with labels of at least two classes are needed.")
    return {
        name: {t: Table(finite(torch.cat(xs)[:num], f"tap={t!r}")[known], y[known]) for t, xs in outputs.items()}
        for name, outputs in seen.items()
    }


class Spread(NamedTuple):
    """within: root mean squared distance of samples to the centroid of their class; between: mean distance of the
    centroids of two classes. In the units of the features."""

    within: float
    between: float


class Moved(NamedTuple):
    """distance of centroids, averaged over classes; by_chance: what the draw of actions alone would make it, if the
    centroids of all possible draws were the same; per_within, per_between: the distance in the units of a Spread."""

    distance: float
    by_chance: float
    per_within: float
    per_between: float


def centroids(table: Table) -> Tensor:
    """float64 [C, D] of the classes in a table, by rising label."""
    return torch.stack([table.x[table.y == label].double().mean(dim=0) for label in table.y.unique()])


def spread(table: Table) -> Spread:
    """Of plain samples of two classes or more."""
    centres = centroids(table)
    own = centres[table.y.unique(return_inverse=True)[1]]
    within = (table.x.double() - own).square().sum(dim=1).mean().sqrt()
    return Spread(float(within), float(nn.functional.pdist(centres).mean()))


def moved(still: Table, acted: Table, unit: Spread) -> Moved:
    """From plain samples to the same samples (row by row) under an action: |mean(acted - still)| of each class,
    averaged over classes. UsageError if the rows are of different samples."""
    if not torch.equal(still.y, acted.y):
        raise UsageError("plain samples and those under an action are to be the same ones, row by row.")
    distances, noises = [], []
    for label in still.y.unique():
        steps = (acted.x[still.y == label] - still.x[still.y == label]).double()
        distances.append(float(steps.mean(dim=0).norm()))
        # Of a single sample nothing is known of how much its step varies.
        noises.append(float((steps.var(dim=0).sum() / len(steps)).sqrt()) if len(steps) > 1 else math.nan)
    distance = sum(distances) / len(distances)
    return Moved(
        distance,
        sum(noises) / len(noises),
        distance / unit.within if unit.within else math.nan,
        distance / unit.between if unit.between else math.nan,
    )
