"""One row of the table (raw input | untrained | trained | ...): all protocols on one encoder, under fixed names.

The end of a run, `stec-eval` and the report all call this, so that their numbers are the same numbers.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stec.actions import Component
from stec.encoder import Encoder
from stec.errors import UsageError
from stec.evaluation.decodability import Reader
from stec.evaluation.features import Pairs, Table, extract, extract_pairs
from stec.evaluation.health import health
from stec.evaluation.knn import Knn
from stec.evaluation.linear import Logistic
from stec.evaluation.probes import Configured, Probed, accuracy
from stec.views import Views

WIDE = 2048
"""Features wider than any usual encoder's (the raw input's) are cut down for the readers that are trained ..."""
NARROW = 256
"""... to this many principal components of the train features. k-NN and health see them whole."""

Row = dict[str, float]
_log = logging.getLogger("stec")


class Sources(NamedTuple):
    """What is evaluated on. Each call starts anew: (finished samples, labels), and pairs of views with their copies.
    probes: by name, with their samples; none if nothing is held out."""

    train: Callable[[], Iterable[tuple[Tensor, Tensor]]]
    test: Callable[[], Iterable[tuple[Tensor, Tensor]]]
    train_pairs: Callable[[], Iterable[Views]]
    test_pairs: Callable[[], Iterable[Views]]
    components: tuple[Component, ...]
    probes: Mapping[str, Probed] = {}


class Suite:
    """The protocols as configured; None leaves one out. tap: which features; train_samples, test_samples: how many
    samples, at most, the readers of labels are fitted and scored on; train_pairs, test_pairs: how many pairs of views,
    at most, the action reader is fitted and scored on (the health is taken on the latter). probes: by name; they read
    the outputs that they need, whatever the tap."""

    def __init__(
        self,
        knn: Knn | None,
        linear: Logistic | None,
        action: Reader | None,
        probes: Mapping[str, Configured] | None = None,
        *,
        tap: str = "pooled",
        train_samples: int = 50_000,
        test_samples: int = 50_000,
        train_pairs: int = 4000,
        test_pairs: int = 1000,
    ):
        numbers = {"train_samples": train_samples, "test_samples": test_samples}
        numbers |= {"train_pairs": train_pairs, "test_pairs": test_pairs}
        for key, value in numbers.items():
            if value < 1:
                raise UsageError(f"evaluation.{key}={value} must be at least 1.")
        self.knn, self.linear, self.action, self.probes, self.tap = knn, linear, action, dict(probes or {}), tap
        self.num_samples = {"train": train_samples, "test": test_samples}
        self.num_pairs = {"train": train_pairs, "test": test_pairs}
        self._told: set[str] = set()

    def measure(
        self,
        encoder: Encoder,
        sources: Sources,
        *,
        device: torch.device | str = "cpu",
        head: nn.Module | None = None,
        tap: str | None = None,
    ) -> Row:
        """Features of everything, then `table_row`, and the probes. head: the projector that tap="projector" needs;
        tap: another one for this row (a baseline may have no such layer)."""
        name, labels = tap or self.tap, self.knn is not None or self.linear is not None
        train, test = (
            extract(encoder, part(), tap=name, device=device, head=head) if labels else None for part in sources[:2]
        )
        # Without the action reader only the health looks at pairs, and at those tested on.
        train_pairs, test_pairs = (
            extract_pairs(encoder, part(), num=self.num_pairs[split], tap=name, device=device, head=head)
            if split == "test" or self.action is not None
            else None
            for split, part in (("train", sources.train_pairs), ("test", sources.test_pairs))
        )
        row = self.table_row(train, test, train_pairs, test_pairs, sources.components, device=device)
        return row | self._probed(encoder, sources.probes, device)

    def table_row(
        self,
        train: Table | None,
        test: Table | None,
        train_pairs: Pairs | None,
        test_pairs: Pairs | None,
        components: Sequence[Component],
        *,
        device: torch.device | str = "cpu",
    ) -> Row:
        """{metric: value}: eval/knn/top1, eval/linear/top1 (with the chosen /c, and /converged 1 or 0),
        eval/action_bits|acc|chance|majority/<component>, health/*. What the data does not allow (no labels, too few
        pairs) is left out and logged in a sentence, once for all rows; None leaves out what would read it."""
        row: Row = {}
        if train is not None and test is not None:
            asked = " and ".join(
                name for name, reader in (("k-NN", self.knn), ("linear", self.linear)) if reader is not None
            )
            be = "are" if " and " in asked else "is"
            if not len(train.labelled().y):
                self._tell(logging.INFO, f"the data has no labels: {asked} {be} left out.")
            elif not len(test.labelled().y):
                self._tell(logging.INFO, f"there are no held-out labels: {asked} {be} left out.")
            else:
                row |= self._classes(train, test, device)
        if self.action is not None and train_pairs is not None and test_pairs is not None:
            with self._left_out("eval/action"):
                row |= self._actions(self.action, train_pairs, test_pairs, components)
        if test_pairs is not None:
            with self._left_out("health"):
                row |= {f"health/{name}": value for name, value in health(test_pairs.a, test_pairs.b).items()}
        return row

    def _classes(self, train: Table, test: Table, device: torch.device | str) -> Row:
        row: Row = {}
        if self.knn is not None:
            with self._left_out("eval/knn"):
                row["eval/knn/top1"] = self.knn(train, test, device)
        if self.linear is not None:
            with self._left_out("eval/linear"):
                narrow = _narrow(train.x, test.x)
                found = self.linear(*(Table(x, t.y) for x, t in zip(narrow, (train, test), strict=True)))
                row |= {"eval/linear/top1": found.top1, "eval/linear/c": found.c}
                row["eval/linear/converged"] = float(found.converged)
                if not found.converged:
                    _log.warning("eval/linear: L-BFGS stopped at max_iter=%d before convergence.", self.linear.max_iter)
        return row

    def _probed(self, encoder: Encoder, probes: Mapping[str, Probed], device: torch.device | str) -> Row:
        """eval/<name>/acc and eval/<name>/majority of each probe that this encoder has the outputs for."""
        row: Row = {}
        for name, configured in self.probes.items():
            if name not in probes:
                self._tell(logging.INFO, f"there are no held-out samples: eval/{name} is left out.")
            elif missing := sorted(probes[name].probe.needs - encoder.dims.keys()):
                self._tell(logging.INFO, f"eval/{name} is left out for encoders without {', '.join(missing)}.")
            else:
                tell = partial(self._told_of, name)
                with self._left_out(f"eval/{name}"):
                    found = accuracy(configured, probes[name], encoder, device=device, tell=tell)
                    row |= {f"eval/{name}/{key}": value for key, value in found.items()}
        return row

    def _told_of(self, name: str, words: str) -> None:
        self._tell(logging.INFO, f"eval/{name}: {words}.")

    def _actions(self, reader: Reader, train: Pairs, test: Pairs, components: Sequence[Component]) -> Row:
        both, test_a, test_b = _narrow(torch.cat([train.a, train.b]), test.a, test.b)
        a, b = both.chunk(2)
        read = reader(train._replace(a=a, b=b), test._replace(a=test_a, b=test_b), components)
        if read.dropped:
            self._tell(logging.INFO, f"eval/action: constant, so left out: {', '.join(read.dropped)}.")
        row: Row = {}
        for name, found in read.components.items():
            row |= {f"eval/action_bits/{name}": found.bits, f"eval/action_acc/{name}": found.accuracy}
            row |= {f"eval/action_chance/{name}": found.chance, f"eval/action_majority/{name}": found.majority}
        return row

    @contextmanager
    def _left_out(self, what: str) -> Iterator[None]:
        try:
            yield
        except UsageError as reason:
            self._tell(logging.WARNING, f"{what} is left out: {reason}")

    def _tell(self, level: int, sentence: str) -> None:
        if sentence not in self._told:
            _log.log(level, "%s", sentence)
            self._told.add(sentence)

    def describe(self, held_out: bool = True, probes: Mapping[str, Probed] | None = None) -> Mapping[str, str]:
        """{start of the metrics' names: the protocol in words}, for tables and model cards. held_out: whether what is
        tested on was not learnt from; probes: as in the Sources that were measured."""
        most, pairs = self.num_samples, self.num_pairs
        tested = "test pairs" if held_out else "pairs of other views of the same samples"
        wide = f"; features wider than {WIDE} as {NARROW} principal components"
        told = {
            "features": f"tap={self.tap} (raw input and published encoders: pooled), fp32, evaluation mode, at most "
            f"{most['train']} train samples"
        }
        if self.knn is not None:
            told["eval/knn"] = self.knn.describe()
        if self.linear is not None:
            told["eval/linear"] = self.linear.describe() + wide
        for name, probed in (probes or {}).items():
            told[f"eval/{name}"] = self.probes[name].describe(probed.probe)
        if self.action is not None:
            limits = f"at most {pairs['train']} train and {pairs['test']} {tested}"
            told["eval/action"] = f"{self.action.describe()}, {limits}{wide}"
        return {**told, "health": f"on at most {pairs['test']} {tested}"}


def _narrow(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Tables [N, D] as they are, or their first NARROW principal components (fitted on `train`) if D > WIDE."""
    if train.shape[1] <= WIDE:
        return (train, *others)
    from sklearn.decomposition import PCA  # with it, a run would begin two seconds later

    num = min(NARROW, len(train))
    pca = PCA(num, svd_solver="randomized", iterated_power=2, random_state=0).fit(train.numpy())
    # Readers standardise: what is but rounding must not be blown up to the size of a feature.
    real = pca.explained_variance_ > 1e-8 * pca.explained_variance_[0]
    return tuple(torch.from_numpy(pca.transform(x.numpy())[:, real]).float() for x in (train, *others))
