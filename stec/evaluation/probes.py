"""Probes: labels that a modality knows how to find in a sample (one for each frame, one for all of it), and a fresh
reader of what a frozen encoder says at that place.

Legend: R rows of one sample, N rows of a table, D width of the features.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from stec.encoder import Encoder, Features
from stec.errors import StecError, UsageError
from stec.evaluation.adam import Adam
from stec.evaluation.features import Table, finite, frozen
from stec.evaluation.softmax import Lbfgs

Examples = Iterable[tuple[Tensor, Tensor]]
"""Samples one at a time: x float [1, ...] and its labels int64 [R] (-1: unknown)."""


class Probe(Protocol):
    """The part of kind "probe"; it is made with the decoder, its keyword-only parameters are its YAML keys."""

    @property
    def needs(self) -> frozenset[str]:
        """Outputs of the encoder that it reads, such as {"context"}; encoders that lack one are not probed."""

    def example(self, members: Mapping[str, bytes], meta: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
        """x float [1, ...] and labels int64 [R] of the sample with these members; None if it has no such label.
        DataError if it is damaged."""

    def rows(self, encoder: Encoder, features: Features, labels: Tensor) -> tuple[Tensor, Tensor]:
        """[R', D] of the features of one sample, and the labels [R'] that belong to them."""

    def classes(self, meta: Mapping[str, Any]) -> list[str]:
        """Names of the labels; empty if they are not known."""

    def describe(self) -> str:
        """What is read, in words."""


class Reader(Protocol):
    """Who is fitted on the rows: "lbfgs" (convex, so its result does not depend on a schedule) or "adam"."""

    def accuracy(self, train: Table, test: Table) -> float: ...

    def describe(self) -> str: ...


READERS: dict[str, type[Lbfgs] | type[Adam]] = {"lbfgs": Lbfgs, "adam": Adam}


class Configured(NamedTuple):
    """A probe of the configuration. part: decoder -> Probe; reader; max_rows: rows, at most, of a split."""

    name: str
    part: Callable[[Any], Probe]
    reader: Reader
    max_rows: int = 200_000

    def describe(self, probe: Probe) -> str:
        return f"{probe.describe()}; {self.reader.describe()}; at most {self.max_rows:,} rows"


class Probed(NamedTuple):
    """A probe with the samples of both splits; each call starts anew."""

    probe: Probe
    train: Callable[[], Examples]
    test: Callable[[], Examples]


def accuracy(
    configured: Configured,
    probed: Probed,
    encoder: Encoder,
    *,
    device: torch.device | str = "cpu",
    tell: Callable[[str], None],
) -> dict[str, float]:
    """{"acc": share of the test rows read right, "majority": the same of naming the commonest train class always}."""
    train, test = (
        table(encoder, probed.probe, samples(), device, max_rows=configured.max_rows, tell=tell)
        for samples in (probed.train, probed.test)
    )
    if not len(train.y) or not len(test.y):
        raise UsageError("there is no label for it in the train or in the test samples.")
    majority = float((test.y == train.y.bincount().argmax()).double().mean())
    return {"acc": configured.reader.accuracy(train, test), "majority": majority}


def table(
    encoder: Encoder,
    probe: Probe,
    samples: Examples,
    device: torch.device | str = "cpu",
    *,
    max_rows: int,
    tell: Callable[[str], None],
) -> Table:
    """The rows with a label of all samples, float32 on the CPU, in their order; of more than max_rows so many, evenly
    spread, which is told. Encoded one sample at a time: lengths differ, and padding would change the last frames.

    NonFinite if a feature is not finite. Without any sample a table without rows.
    """
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    seen, stride = 0, 1
    with frozen(encoder):
        for x, labels in samples:
            with torch.autocast(torch.device(device).type, enabled=False):
                rows, y = probe.rows(encoder, encoder(x.to(device).float()), labels)
            if rows.dim() != 2 or y.shape != rows.shape[:1]:
                raise StecError(
                    f"a probe gave rows {list(rows.shape)} with labels {list(y.shape)}: [R, D] and [R] were expected."
                )
            rows, y = rows[y.to(rows.device) >= 0], y[y >= 0]
            # Every stride-th row of all: so never more than twice the rows wanted are held, however many there are.
            first = -seen % stride
            seen += len(rows)
            xs.append(rows[first::stride].float().cpu().contiguous())
            ys.append(y[first::stride].to("cpu", torch.int64))
            while sum(map(len, ys)) > 2 * max_rows:
                stride *= 2
                xs, ys = [torch.cat(xs)[::2].contiguous()], [torch.cat(ys)[::2]]
    if not xs:
        return Table(torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64))
    found = Table(finite(torch.cat(xs), "for a probe", "rows"), torch.cat(ys)).thinned(max_rows)
    if len(found.y) < seen:
        tell(f"{len(found.y):,} of {seen:,} rows are read, evenly spread")
    return found
