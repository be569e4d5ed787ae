"""The rows of a run's table: the raw input, the encoder as it began, a published one if at hand, the trained one."""

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stec import build
from stec.build import Model
from stec.data import Splits
from stec.encoder import Encoder
from stec.errors import UsageError
from stec.evaluation.features import Raw, extract
from stec.evaluation.suite import Row, Sources, Suite
from stec.loading import examples, unshared
from stec.objective import STEC
from stec.probe import OnlineProbe
from stec.samples import Tally
from stec.shards.reader import Shards
from stec.training.options import Hardware
from stec.views import Views, make_views

log = logging.getLogger("stec")

# Pairs to measure with are drawn under this seed, whatever that of the run: all rows of all runs see the same ones.
PAIR_SEED = 1_000_003
# The raw input of large samples is too wide a table: beyond this many bytes its row is left out.
MOST_RAW = 4 * 2**30
ONLINE = "the probe that trained along on augmented views, read on the un-augmented test samples (the paper's on CIFAR)"
_SPLITS = ("train", "test")


class Begun(NamedTuple):
    """A network before training: "untrained", or another name if it began with weights from elsewhere."""

    name: str
    encoder: Encoder
    projector: nn.Module | None


def projector(stec: STEC | None) -> nn.Module | None:
    """The projector of the first identity model that has one, for tap="projector"."""
    heads = [] if stec is None else [getattr(term, "projector", None) for term in stec.identity.values()]
    return next((head for head in heads if isinstance(head, nn.Module)), None)


class Measure:
    """The suite of protocols on the labelled and the test split of a data set, prepared as the model's decoder does."""

    def __init__(self, suite: Suite, model: Model, splits: Splits, hardware: Hardware, max_bad: float):
        self.suite, self.model, self.splits = suite, model, splits
        self.hardware, self.max_bad = hardware, max_bad
        # One for each split: a damaged sample is told once, however often it is met.
        self._tallies = [Tally(max_bad, shards.num_samples) for shards in self._splits()]

    def row(self, encoder: Encoder, projector: nn.Module | None = None, tap: str | None = None) -> Row:
        """{metric: value} of one encoder; with the projector that belongs to it, for tap="projector"."""
        device = self.hardware.device
        return self.suite.measure(encoder, self.sources(), device=device, head=projector, tap=tap)

    def trained(self) -> Row:
        """The row of the model itself; with the online probe that trained along, if there is one."""
        stec = self.model.stec
        assert stec is not None
        row = self.row(stec.encoder, projector(stec))
        probe = dict(stec.probes.named_children()).get("online")
        if isinstance(probe, OnlineProbe) and self.splits.test is not None:
            test = extract(stec.encoder, self.samples("test"), tap=probe.tap, device=self.hardware.device).labelled()
            if len(test.y):
                read = probe.linear(test.x.to(self.hardware.device)).argmax(dim=1).cpu()
                row["eval/online/top1"] = float((read == test.y).double().mean())
        return row

    def protocol(self, rows: Mapping[str, Row]) -> dict[str, str]:
        """How the numbers in these rows were measured: {start of the metrics' names: in words}."""
        known = {**self.suite.describe(self.splits.test is not None), "eval/online": ONLINE}
        names = [name for row in rows.values() for name in row]
        return {s: words for s, words in known.items() if s == "features" or any(n.startswith(s) for n in names)}

    def baselines(self, begun: Begun, published: str | None) -> dict[str, Row]:
        """Rows for the raw input, for the network before training, and for ENCODER/NAME if it is at hand."""
        rows = {}
        width = next(self.samples("train"))[0][0].numel()
        size = 4 * width * sum(min(n, s.num_samples) for n, s in zip(self._most(), self._splits(), strict=True))
        if size <= MOST_RAW:
            rows["raw input"] = self.row(Raw(width), tap="pooled")
        else:
            log.info("no row for the raw input: its table would take %.0f GiB", size / 2**30)
        head = None if begun.projector is None else begun.projector.to(self.hardware.device)
        rows[begun.name] = self.row(begun.encoder.to(self.hardware.device), head)
        if published is not None:
            try:
                rows[published] = self._published(published)
            except UsageError as reason:
                log.info("no row for %s: %s", published, reason)
        return rows

    def _published(self, name: str) -> Row:
        """Labels read from a published encoder, its samples prepared as it was trained. (Its views would be others.)"""
        model = build.at_hand(name)
        other = Measure(self.suite, model, self.splits, self.hardware, self.max_bad)
        row = other.row(model.encoder.to(self.hardware.device), tap="pooled")
        return {metric: value for metric, value in row.items() if metric.startswith(("eval/knn", "eval/linear"))}

    def sources(self) -> Sources:
        """What the protocols read. Without a test split no label is used, and the pairs tested on are other views of
        the samples that the reader was fitted on."""
        return Sources(
            partial(self.samples, "train"),
            partial(self.samples, "test"),
            partial(self.pairs, "train"),
            partial(self.pairs, "test"),
            self.model.space.components,
        )

    def _splits(self) -> tuple[Shards, Shards]:
        return self.splits.labelled, self.splits.test or self.splits.labelled

    def _most(self) -> tuple[int, int]:
        return self.suite.num_samples["train"], self.suite.num_samples["test"]

    def samples(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Evaluation views of the "train" or "test" samples that are measured on, float, with their labels (-1 for all
        that stand in for a test split)."""
        number = _SPLITS.index(split)
        shards, num, tally = self._splits()[number], self._most()[number], self._tallies[number]
        workers, known = self.hardware.num_workers, split == "train" or self.splits.test is not None
        for x, y in examples(shards, self.model.decoder, num=num, num_workers=workers, tally=tally):
            yield self.model.decoder.finish(x), y if known else torch.full_like(y, -1)

    def pairs(self, split: str) -> Iterator[Views]:
        """Pairs of views of the "train" or "test" samples with their copies 0 -> 1, the same ones each time: as many as
        the action reader wants, so of few samples several each."""
        decoder, space, device = self.model.decoder, self.model.space, self.hardware.device
        number = _SPLITS.index(split)
        for batch in unshared(
            self._splits()[number],
            decoder,
            space,
            seed=PAIR_SEED,
            epoch=number,
            num=self.suite.num_pairs[split],
            num_workers=self.hardware.num_workers,
            tally=self._tallies[number],
        ):
            yield make_views(batch.to(device), space, performed=decoder.performs, finish=decoder.finish)
