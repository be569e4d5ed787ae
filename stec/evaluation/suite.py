"""One row of the table (raw input | untrained | trained | ...): all protocols on one encoder, under fixed names.

The end of a run, `stec-eval` and the report all call this, so that their numbers are the same numbers.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from stec.actions import Component
from stec.encoder import Encoder
from stec.errors import UsageError
from stec.evaluation.decodability import Reader
from stec.evaluation.features import Pairs, Table, extract, extract_pairs
from stec.evaluation.health import health
from stec.evaluation.knn import Knn
from stec.evaluation.linear import Logistic
from stec.views import Views

WIDE = 2048
"""Features wider than any usual encoder's (the raw input's) are cut down for the readers that are trained ..."""
NARROW = 256
"""... to this many principal components of the train features. k-NN and health see them whole."""

Row = dict[str, float]
_log = logging.getLogger("stec")


class Sources(NamedTuple):
    """What is evaluated on. Each call starts anew: (finished samples, labels), and pairs of views with their copies."""

    train: Callable[[], Iterable[tuple[Tensor, Tensor]]]
    test: Callable[[], Iterable[tuple[Tensor, Tensor]]]
    train_pairs: Callable[[], Iterable[Views]]
    test_pairs: Callable[[], Iterable[Views]]
    components: tuple[Component, ...]


class Suite:
    """The protocols as configured. tap: which features; train_samples, test_samples: how many samples, at most, the
    readers of labels are fitted and scored on; train_pairs, test_pairs: how many pairs of views, at most, the action
    reader is fitted and scored on (the health is taken on the latter)."""

    def __init__(
        self,
        knn: Knn,
        linear: Logistic,
        action: Reader,
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
        self.knn, self.linear, self.action, self.tap = knn, linear, action, tap
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
        """Features of everything, then `table_row`. head: the projector that tap="projector" needs; tap: another one
        for this row (a baseline may have no such layer)."""
        name = tap or self.tap
        train, test = (extract(encoder, part(), tap=name, device=device, head=head) for part in sources[:2])
        pairs = [
            extract_pairs(encoder, part(), num=self.num_pairs[split], tap=name, device=device, head=head)
            for split, part in (("train", sources.train_pairs), ("test", sources.test_pairs))
        ]
        return self.table_row(train, test, pairs[0], pairs[1], sources.components, device=device)

    def table_row(
        self,
        train: Table,
        test: Table,
        train_pairs: Pairs,
        test_pairs: Pairs,
        components: Sequence[Component],
        *,
        device: torch.device | str = "cpu",
    ) -> Row:
        """{metric: value}: eval/knn/top1, eval/linear/top1 (with the chosen /c, and /converged 1 or 0),
        eval/action_bits|acc|chance|majority/<component>, health/*. What the data does not allow (no labels, too few
        pairs) is left out and logged in a sentence, once for all rows."""
        row: Row = {}
        if not len(train.labelled().y):
            self._tell(logging.INFO, "the data has no labels: k-NN and linear are left out.")
        elif not len(test.labelled().y):
            self._tell(logging.INFO, "there are no held-out labels: k-NN and linear are left out.")
        else:
            row |= self._classes(train, test, device)
        with self._left_out("eval/action"):
            row |= self._actions(train_pairs, test_pairs, components)
        with self._left_out("health"):
            row |= {f"health/{name}": value for name, value in health(test_pairs.a, test_pairs.b).items()}
        return row

    def _classes(self, train: Table, test: Table, device: torch.device | str) -> Row:
        row: Row = {}
        with self._left_out("eval/knn"):
            row["eval/knn/top1"] = self.knn(train, test, device)
        with self._left_out("eval/linear"):
            found = self.linear(*(Table(x, t.y) for x, t in zip(_narrow(train.x, test.x), (train, test), strict=True)))
            row |= {"eval/linear/top1": found.top1, "eval/linear/c": found.c}
            row["eval/linear/converged"] = float(found.converged)
            if not found.converged:
                _log.warning("eval/linear: L-BFGS stopped at max_iter=%d before convergence.", self.linear.max_iter)
        return row

    def _actions(self, train: Pairs, test: Pairs, components: Sequence[Component]) -> Row:
        both, test_a, test_b = _narrow(torch.cat([train.a, train.b]), test.a, test.b)
        a, b = both.chunk(2)
        read = self.action(train._replace(a=a, b=b), test._replace(a=test_a, b=test_b), components)
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

    def describe(self, held_out: bool = True) -> Mapping[str, str]:
        """{start of the metrics' names: the protocol in words}, for tables and model cards. held_out: whether what is
        tested on was not learnt from."""
        train, test = self.num_pairs["train"], self.num_pairs["test"]
        most, tested = (
            self.num_samples["train"],
            "test pairs" if held_out else "pairs of other views of the same samples",
        )
        wide = f"; features wider than {WIDE} as {NARROW} principal components"
        return {
            "features": f"tap={self.tap} (raw input and published encoders: pooled), fp32, evaluation mode, at most "
            f"{most} train samples",
            "eval/knn": self.knn.describe(),
            "eval/linear": self.linear.describe() + wide,
            "eval/action": f"{self.action.describe()}, at most {train} train and {test} {tested}{wide}",
            "health": f"on at most {test} {tested}",
        }


def _narrow(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Tables [N, D] as they are, or their first NARROW principal components (fitted on `train`) if D > WIDE."""
    if train.shape[1] <= WIDE:
        return (train, *others)
    num = min(NARROW, len(train))
    pca = PCA(num, svd_solver="randomized", iterated_power=2, random_state=0).fit(train.numpy())
    # Readers standardise: what is but rounding must not be blown up to the size of a feature.
    real = pca.explained_variance_ > 1e-8 * pca.explained_variance_[0]
    return tuple(torch.from_numpy(pca.transform(x.numpy())[:, real]).float() for x in (train, *others))
