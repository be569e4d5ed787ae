"""The rows of a run's table: the raw input, the encoder as it began, others to compare with, the trained one."""

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stec import build, catalogue
from stec.build import Model
from stec.data import Splits
from stec.encoder import Encoder
from stec.errors import NonFinite, UsageError
from stec.evaluation.features import Raw, extract
from stec.evaluation.probes import Configured, Probe, Probed
from stec.evaluation.suite import Row, Sources, Suite
from stec.loading import each, examples, unshared
from stec.objective import STEC, Term
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
    """The projector of the first identity model that has one for pooled features, for tap="projector"."""
    terms = [] if stec is None else [t for t in stec.identity.values() if isinstance(t, Term) and "pooled" in t.needs]
    heads = [getattr(term, "projector", None) for term in terms]
    return next((head for head in heads if isinstance(head, nn.Module)), None)


def belongs(metric: str, start: str) -> bool:
    """Is this the name of a metric of the protocol that is described under `start`, such as eval/knn?"""
    return metric.startswith((f"{start}/", "eval/action_") if start == "eval/action" else f"{start}/")


def _made(configured: Configured, model: Model) -> Probe:
    try:
        return configured.part(model.decoder)
    except UsageError as error:
        raise UsageError(f"evaluation.probes.{configured.name}.{error}") from error


class Measure:
    """The suite of protocols on the labelled and the test split of a data set, prepared as the model's decoder does."""

    def __init__(self, suite: Suite, model: Model, splits: Splits, hardware: Hardware, max_bad: float):
        self.suite, self.model, self.splits = suite, model, splits
        self.hardware, self.max_bad = hardware, max_bad
        self.probes = {name: _made(configured, model) for name, configured in suite.probes.items()}
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
        described = self.suite.describe(self.splits.test is not None, self.sources().probes)
        names = [name for row in rows.values() for name in row]
        return {
            start: words
            for start, words in {**described, "eval/online": ONLINE}.items()
            if start == "features" or any(belongs(name, start) for name in names)
        }

    def baselines(self, begun: Begun, raw_input: bool, compared: Mapping[str, str | None]) -> dict[str, Row]:
        """Rows for the raw input, if it is wanted, for the network before training, and for those {label: source} to
        compare with: an encoder by its name (built with its defaults, given what the model is given), ENCODER/NAME with
        published weights, or a run, a checkpoint or an exported folder. What is not at hand is left out and logged."""
        rows = {}
        width = next(self.samples("train"))[0][0].numel()
        size = 4 * width * sum(min(n, s.num_samples) for n, s in zip(self._most(), self._splits(), strict=True))
        if raw_input and size <= MOST_RAW:
            rows["raw input"] = self.row(Raw(width), tap="pooled")
        elif raw_input:
            log.info("no row for the raw input: its table would take %.0f GiB", size / 2**30)
        head = None if begun.projector is None else begun.projector.to(self.hardware.device)
        rows[begun.name] = self.row(begun.encoder.to(self.hardware.device), head)
        for label, source in compared.items():
            try:
                rows[label] = self._compared(source)
            except (UsageError, NonFinite, RuntimeError) as reason:  # RuntimeError: torch's, of samples that do not fit
                log.warning("no row for %s: %s", label, (str(reason) or type(reason).__name__).splitlines()[0])
        return rows

    def _compared(self, source: str | None) -> Row:
        if source is None:
            raise UsageError("its source is null.")
        if source in catalogue.names("encoder") and not Path(source).exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # what has weights of its own has the same ones each time
                plain: Encoder = build.part("encoder", {"name": source}, "encoder")()
            return self.row(plain.to(self.hardware.device), tap="pooled")
        model = build.at_hand(source) if build.is_published(source) else build.load(source)
        encoder, head, tap = model.encoder, projector(model.stec), "pooled" if model.stec is None else None
        (model.stec or encoder).to(self.hardware.device)
        if all(model.spec.get(node) == self.model.spec.get(node) for node in ("actions", "decoder")):
            return self.row(encoder, head, tap)
        # It sees the samples prepared as it was trained, and other views: what was done in these is another question.
        row = Measure(self.suite, model, self.splits, self.hardware, self.max_bad).row(encoder, head, tap)
        return {metric: value for metric, value in row.items() if not metric.startswith(("eval/action", "health"))}

    def sources(self) -> Sources:
        """What the protocols read. Without a test split no label is used, and the pairs tested on are other views of
        the samples that the reader was fitted on."""
        held_out = self.probes if self.splits.test is not None else {}
        return Sources(
            partial(self.samples, "train"),
            partial(self.samples, "test"),
            partial(self.pairs, "train"),
            partial(self.pairs, "test"),
            self.model.space.components,
            {
                name: Probed(probe, partial(self.examples, name, "train"), partial(self.examples, name, "test"))
                for name, probe in held_out.items()
            },
        )

    def _splits(self) -> tuple[Shards, Shards]:
        return self.splits.labelled, self.splits.test or self.splits.labelled

    @property
    def _workers(self) -> dict[str, Any]:
        return {"num_workers": self.hardware.num_workers, "patience": self.hardware.patience}

    def _most(self) -> tuple[int, int]:
        return self.suite.num_samples["train"], self.suite.num_samples["test"]

    def samples(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Evaluation views of the "train" or "test" samples that are measured on, float, with their labels (-1 for all
        that stand in for a test split)."""
        number = _SPLITS.index(split)
        shards, num, tally = self._splits()[number], self._most()[number], self._tallies[number]
        known = split == "train" or self.splits.test is not None
        for x, y in examples(shards, self.model.decoder, num=num, tally=tally, **self._workers):
            yield self.model.decoder.finish(x), y if known else torch.full_like(y, -1)

    def examples(self, probe: str, split: str, num: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The "train" or "test" samples that are measured on (or `num` of them, evenly spread), one at a time, as a
        probe reads them; those without its labels are left out."""
        number = _SPLITS.index(split)
        most = self._most()[number] if num is None else min(num, self._most()[number])
        read, tally = self.probes[probe].example, self._tallies[number]
        yield from each(self._splits()[number], read, num=most, tally=tally, **self._workers)

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
            tally=self._tallies[number],
            **self._workers,
        ):
            yield make_views(batch.to(device), space, performed=decoder.performs, finish=decoder.finish)
