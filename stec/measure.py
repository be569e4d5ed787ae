"""The rows of a run's table: the raw input, the encoder as it began, a published one if at hand, the trained one."""

import logging
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from stec import build
from stec.build import Model
from stec.data import Splits
from stec.encoder import Encoder
from stec.errors import UsageError
from stec.evaluation.features import Raw
from stec.evaluation.suite import Row, Sources, Suite
from stec.loading import examples, unshared
from stec.shards.reader import Shards
from stec.training.options import Hardware
from stec.views import Views, make_views

log = logging.getLogger("stec")

# Pairs to measure with are drawn under this seed, whatever that of the run: all rows of all runs see the same ones.
PAIR_SEED = 1_000_003


class Measure:
    """The suite of protocols on the labelled and the test split of a data set, prepared as the model's decoder does."""

    def __init__(self, suite: Suite, model: Model, splits: Splits, hardware: Hardware, max_bad: float):
        self.suite, self.model, self.splits = suite, model, splits
        self.hardware, self.max_bad = hardware, max_bad

    def row(self, encoder: Encoder, tap: str | None = None) -> Row:
        """{metric: value} of one encoder."""
        return self.suite.measure(encoder, self.sources(), device=self.hardware.device, head=self.projector(), tap=tap)

    def baselines(self, begun: Encoder, published: str | None) -> dict[str, Row]:
        """Rows for the raw input, for the encoder as training found it, and for ENCODER/NAME if it is at hand."""
        first = next(self.samples(self.splits.labelled))[0]
        rows = {"raw input": self.row(Raw(first[0].numel()), "pooled")}
        rows["untrained"] = self.row(begun.to(self.hardware.device))
        if published is not None:
            try:
                rows[published] = self.row(build.at_hand(published).to(self.hardware.device), "pooled")
            except UsageError as reason:
                log.info("no row for %s: %s", published, reason)
        return rows

    def sources(self) -> Sources:
        """What the protocols read. Without a test split no label is used, and the pairs tested on are other views of
        the samples that the reader was fitted on."""
        train, test = self.splits.labelled, self.splits.test
        return Sources(
            partial(self.samples, train),
            partial(self.samples, test or train, labelled=test is not None),
            partial(self.pairs, train),
            partial(self.pairs, test or train, epoch=1),
            self.model.space.components,
        )

    def samples(self, shards: Shards, labelled: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        """Evaluation views, float, with their labels (-1 for all if not `labelled`)."""
        workers = self.hardware.num_workers
        for x, y in examples(shards, self.model.decoder, num_workers=workers, max_bad=self.max_bad):
            yield self.model.decoder.finish(x), y if labelled else torch.full_like(y, -1)

    def pairs(self, shards: Shards, epoch: int = 0) -> Iterator[Views]:
        """Pairs of views of a split with their copies 0 -> 1, the same ones each time."""
        decoder, space, device = self.model.decoder, self.model.space, self.hardware.device
        workers = self.hardware.num_workers
        for batch in unshared(
            shards, decoder, space, seed=PAIR_SEED, epoch=epoch, num_workers=workers, max_bad=self.max_bad
        ):
            yield make_views(batch.to(device), space, performed=decoder.performs, finish=decoder.finish)

    def projector(self) -> nn.Module | None:
        """The projector of the first identity model that has one, for tap="projector"."""
        terms = [] if self.model.stec is None else list(self.model.stec.identity.values())
        heads = [getattr(term, "projector", None) for term in terms]
        return next((head for head in heads if isinstance(head, nn.Module)), None)
