"""How many bits of the action can a fresh reader get out of the features of both views?

The action is a relation (a ratio, an offset in units of the first view), which a linear reader of [h_a, h_b] cannot
form: so the reader is the paper's kind of head, one hidden layer over both views' features, the same for every encoder;
with dropout, as a few thousand pairs must do.

Legend: N pairs, D width of the features, C live components, K bins.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stec.actions import Component
from stec.bins import KINDS, Bins, constant
from stec.errors import UsageError
from stec.evaluation.features import Pairs, standardise

_BATCH = 256
_HELD_OUT = 10
_DROPOUT = 0.5  # of hidden units; of inputs it would hide what stands in one feature alone


class Decoded(NamedTuple):
    """Of one component, on the held-out pairs. bits: (chance - cross-entropy) / ln 2, negative if the reader misleads;
    chance: entropy of the bins, nats; majority: accuracy of always naming the fullest bin of the train pairs."""

    bits: float
    accuracy: float
    chance: float
    majority: float
    num_bins: int


class Readout(NamedTuple):
    """{name: Decoded} of the live components, and the names of those that are constant here (nothing to read)."""

    components: dict[str, Decoded]
    dropped: tuple[str, ...]


def actions(
    train: Pairs,
    test: Pairs,
    components: Sequence[Component],
    *,
    bins: str = "equal_mass",
    num_bins: int = 6,
    hidden: int = 512,
    epochs: int = 30,
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    seed: int = 0,
) -> Readout:
    """Fit a reader on the train pairs, score it on the test pairs: bits of each of the components of their copies.

    Bins are fitted on the train pairs. Features are standardised. The reader (Linear - BN - ReLU - Linear with
    dropout before the last, all components at once) is trained with AdamW, batches of 256 and a cosine over `epochs` on
    nine tenths of the train pairs; for each component the epoch with the lowest cross-entropy on the last tenth speaks,
    or the mere frequencies of the bins, if no epoch does better. Invalid copies carry no weight. Components that are
    constant among the train pairs, or never valid, are dropped and named.
    """
    if len(train.a) < 2 * _HELD_OUT:
        raise UsageError(f"the action reader needs at least {2 * _HELD_OUT} train pairs, not {len(train.a)}.")
    live = ~constant(train.copy.values, train.copy.valid) & test.copy.valid.any(dim=0)
    dropped = tuple(c.name for c, alive in zip(components, live.tolist(), strict=True) if not alive)
    known = [c for c, alive in zip(components, live.tolist(), strict=True) if alive]
    if not known:
        return Readout({}, dropped)
    valid, test_valid = train.copy.valid[:, live], test.copy.valid[:, live]
    fitted = Bins(known, train.copy.values[:, live], valid, kind=bins, num_bins=num_bins)
    target = fitted.assign(torch.where(valid, train.copy.values[:, live], 0))
    truth = fitted.assign(torch.where(test_valid, test.copy.values[:, live], 0))
    seen, seen_test = standardise(torch.cat([train.a, train.b], dim=1), torch.cat([test.a, test.b], dim=1))
    exists = fitted.exists()
    log_probs = _read(seen, target, valid, seen_test, exists, hidden, epochs, lr, weight_decay, seed)
    found = {}
    for c, component in enumerate(known):
        rows = test_valid[:, c]
        found[component.name] = _score(log_probs[rows, c], truth[rows, c], target[valid[:, c], c], int(exists[c].sum()))
    return Readout(found, dropped)


def _score(log_probs: Tensor, truth: Tensor, train: Tensor, num_bins: int) -> Decoded:
    """One component: log_probs [N, K], the test pairs' bins [N] and the train pairs' bins."""
    chance = float(torch.special.entr(torch.bincount(truth).double() / len(truth)).sum())
    cross_entropy = float(F.nll_loss(log_probs.double(), truth))
    accuracy = float((log_probs.argmax(dim=1) == truth).double().mean())
    majority = float((truth == torch.bincount(train).argmax()).double().mean())
    return Decoded((chance - cross_entropy) / math.log(2), accuracy, chance, majority, num_bins)


def _read(
    seen: Tensor,
    target: Tensor,
    valid: Tensor,
    unseen: Tensor,
    exists: Tensor,
    hidden: int,
    epochs: int,
    lr: float,
    weight_decay: float,
    seed: int,
) -> Tensor:
    """Train the reader on seen [N, 2D] -> target [N, C]; its log-probabilities [M, C, K] of unseen [M, 2D]."""
    # Its numbers depend on the seed alone, and the caller's generator is left as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = _reader(seen.shape[1], hidden, exists)
        order = torch.randperm(len(seen))
        held, order = order[: len(seen) // _HELD_OUT], order[len(seen) // _HELD_OUT :]
        optimizer = torch.optim.AdamW(reader.parameters(), lr=lr, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        frequencies = _frequencies(target[order], valid[order], exists)
        best = _losses(frequencies.expand(len(held), -1, -1), target[held], valid[held])
        chosen = frequencies.repeat(len(unseen), 1, 1)
        for _ in range(epochs):
            reader.train()
            for rows in order[torch.randperm(len(order))].split(_BATCH):
                if len(rows) > 1:  # batch norm knows no batch of one
                    optimizer.zero_grad()
                    _losses(_log_probs(reader, seen[rows], exists), target[rows], valid[rows]).mean().backward()
                    optimizer.step()
            schedule.step()
            reader.eval()
            with torch.no_grad():
                loss = _losses(_log_probs(reader, seen[held], exists), target[held], valid[held])
                better = loss < best
                best = torch.where(better, loss, best)
                chosen[:, better] = _log_probs(reader, unseen, exists)[:, better]
    return chosen


def _reader(num_inputs: int, hidden: int, exists: Tensor) -> nn.Module:
    return nn.Sequential(
        nn.Linear(num_inputs, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(_DROPOUT),
        nn.Linear(hidden, exists.numel()),
        nn.Unflatten(1, tuple(exists.shape)),
    )


def _frequencies(target: Tensor, valid: Tensor, exists: Tensor) -> Tensor:
    """Logarithms [C, K] of how often each bin occurs among N pairs, each counted once more (so that none is -inf)."""
    counts = (F.one_hot(target, exists.shape[1]) * valid[..., None]).sum(dim=0) + exists.int()
    return (counts / counts.sum(dim=1, keepdim=True)).log()


def _log_probs(reader: nn.Module, seen: Tensor, exists: Tensor) -> Tensor:
    return F.log_softmax(reader(seen).masked_fill(~exists, -torch.inf), dim=2)


def _losses(log_probs: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean cross-entropy over valid pairs, for each component: [C]."""
    losses = -log_probs.gather(2, target[..., None]).squeeze(2)
    return torch.where(valid, losses, torch.zeros_like(losses)).sum(dim=0) / valid.sum(dim=0).clamp(min=1)


class Reader:
    """The protocol as configured. bins, num_bins: see Bins; hidden: width of the reader; epochs: of its training."""

    def __init__(self, *, bins: str = "equal_mass", num_bins: int = 6, hidden: int = 512, epochs: int = 30):
        if bins not in KINDS:
            raise UsageError(f"evaluation.action.bins={bins!r} is unknown: choose one of {', '.join(KINDS)}.")
        for key, value, least in (("num_bins", num_bins, 2), ("hidden", hidden, 1), ("epochs", epochs, 1)):
            if value < least:
                raise UsageError(f"evaluation.action.{key}={value} must be at least {least}.")
        self.bins, self.num_bins, self.hidden, self.epochs = bins, num_bins, hidden, epochs

    def __call__(self, train: Pairs, test: Pairs, components: Sequence[Component]) -> Readout:
        return actions(
            train,
            test,
            components,
            bins=self.bins,
            num_bins=self.num_bins,
            hidden=self.hidden,
            epochs=self.epochs,
        )

    def describe(self) -> str:
        bins = f"{self.num_bins} {self.bins} bins"
        return f"a fresh reader ({self.hidden} hidden units) of both views' features, {bins}"
