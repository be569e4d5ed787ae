"""A frozen encoder's features as tables: what every protocol here reads.

Legend: B samples of a batch, N samples of a table, D width of the features.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stec.actions import Relative
from stec.encoder import Encoder, Features, tap
from stec.errors import NonFinite, UsageError
from stec.views import Views

PROJECTOR = "projector"
_CHUNK = 512  # samples that are encoded at a time, however many a batch holds


class Table(NamedTuple):
    """x float32 [N, D] and labels y int64 [N] (-1: unknown), both on the CPU."""

    x: Tensor
    y: Tensor

    def labelled(self) -> "Table":
        """The rows whose label is known."""
        return Table(self.x[self.y >= 0], self.y[self.y >= 0])

    def thinned(self, most: int) -> "Table":
        """As it is, or `most` of its rows, evenly spread."""
        if len(self.y) <= most:
            return self
        rows = torch.arange(most) * len(self.y) // most
        return Table(self.x[rows], self.y[rows])


class Pairs(NamedTuple):
    """Features a, b float32 [N, D] of two views of N samples, and the efference copy a -> b; all on the CPU."""

    a: Tensor
    b: Tensor
    copy: Relative


class Raw(Encoder):
    """The baseline that looks at the bare input: pooled = the samples themselves, flattened to [B, D]."""

    def __init__(self, width: int):
        super().__init__()
        self.dims = {"pooled": width}

    def forward(self, x: Tensor) -> Features:
        return Features(x.flatten(1))


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradient; afterwards every sub-module is in the mode it was in."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        with torch.no_grad():
            yield
    finally:
        for part, training in before:
            part.training = training


def extract(
    encoder: Encoder,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    tap: str = "pooled",
    device: torch.device | str = "cpu",
    head: nn.Module | None = None,
) -> Table:
    """Features of all (x float [B, ...], labels [B]) in float32. tap: "pooled", a named layer, or "projector": `head`
    (the identity model's projector) on the pooled output. UsageError if there is no sample or no such output."""
    xs, ys = [], []
    with frozen(encoder, *([head] if head is not None else [])):
        for x, y in batches:
            xs.append(_look(encoder, x, tap, device, head))
            ys.append(y.to("cpu", torch.int64))
    if not xs:
        raise UsageError("there is nothing to evaluate: the data has no sample.")
    return Table(finite(torch.cat(xs), f"tap={tap!r}"), torch.cat(ys))


def extract_pairs(
    encoder: Encoder,
    batches: Iterable[Views],
    *,
    num: int | None = None,
    tap: str = "pooled",
    device: torch.device | str = "cpu",
    head: nn.Module | None = None,
) -> Pairs:
    """Features of views 0 and 1, and the copy (0, 1), of the first `num` samples (None: all); else as `extract`."""
    a: list[Tensor] = []
    b: list[Tensor] = []
    values, valid = [], []
    with frozen(encoder, *([head] if head is not None else [])):
        for views in batches:
            a.append(_look(encoder, views.x[0], tap, device, head))
            b.append(_look(encoder, views.x[1], tap, device, head))
            values.append(views.copies[0, 1].values.cpu())
            valid.append(views.copies[0, 1].valid.cpu())
            if num is not None and sum(map(len, a)) >= num:
                break
    if not a:
        raise UsageError("there is nothing to evaluate: the data has no pair of views.")
    copy = Relative(torch.cat(values)[:num], torch.cat(valid)[:num])
    seen = [finite(torch.cat(x)[:num], f"tap={tap!r}") for x in (a, b)]
    return Pairs(seen[0], seen[1], copy)


def _look(encoder: Encoder, x: Tensor, name: str, device: torch.device | str, head: nn.Module | None) -> Tensor:
    if name == PROJECTOR and head is None:
        raise UsageError(
            "tap='projector' is not to be had: this model comes without the projector of an identity model."
        )
    found = []
    for chunk in x.split(_CHUNK):
        chunk = chunk.to(device)
        with torch.autocast(chunk.device.type, enabled=False):
            features = encoder(chunk.float())
            seen = head(features.pooled) if name == PROJECTOR and head is not None else tap(features, name)
        found.append(seen.float().flatten(1).cpu())
    return torch.cat(found)


def finite(x: Tensor, source: str, what: str = "samples") -> Tensor:
    """x [N, D] itself; NonFinite, which says where it came from and what its rows are, if it holds anything else."""
    bad = ~x.isfinite().all(dim=1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise NonFinite(
            f"the features {source} of {int(bad.sum())} of {len(x)} {what} are not finite (first: {first})."
        )
    return x


def standardise(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """All tables minus the mean and divided by the deviation of `train` [N, D]; constant columns become 0."""
    mean, deviation = train.mean(dim=0), train.std(dim=0, unbiased=False)
    scale = torch.where(deviation > 1e-6 * mean.abs().clamp(min=1e-6), deviation, torch.inf)
    return tuple((x - mean) / scale for x in (train, *others))
