"""Rows of a probe are what the encoder says of each sample alone; what a reader makes of them."""

import pytest
import torch
from toy_probe import Marks, Rows

from stec.encoder import Features
from stec.errors import NonFinite, StecError, UsageError
from stec.evaluation.adam import Adam
from stec.evaluation.features import Table
from stec.evaluation.probes import Configured, Probed, accuracy, table
from stec.evaluation.softmax import Lbfgs


def sequences(*lengths: int, seed: int = 0):
    """Samples of these lengths, each row marked by where its largest value is (of 3 places)."""
    generator = torch.Generator().manual_seed(seed)
    for length in lengths:
        x = torch.rand(1, 1, length, 6, generator=generator)
        yield x, x[0, 0, :, :3].argmax(dim=1)


def silent(words: str) -> None:
    raise AssertionError(f"nothing was to be said: {words}")


def test_rows_are_those_of_each_sequence_alone_in_evaluation_mode():
    encoder = Rows()
    found = table(encoder, Marks(None), sequences(5, 2, 9), max_rows=100, tell=silent)
    assert encoder.training
    assert encoder.dropout.training
    encoder.eval()
    expected = [encoder(x).context[0] for x, _ in sequences(5, 2, 9)]
    assert torch.equal(found.x, torch.cat(expected).detach())
    assert found.y.tolist() == [y for _, labels in sequences(5, 2, 9) for y in labels.tolist()]
    assert (found.x.dtype, found.x.requires_grad) == (torch.float32, False)


@pytest.mark.parametrize("lengths", [(1000,), (7,) * 150, (1, 600, 2, 400)])
@pytest.mark.parametrize("most", [1, 40, 300, 999])
def test_of_too_many_rows_so_many_are_kept_evenly_spread_and_it_is_told(lengths, most):
    class Numbers(Marks):
        """Rows that are numbered through."""

        seen = 0

        def rows(self, encoder, features, labels):
            numbers = torch.arange(self.seen, self.seen + len(labels))
            self.seen += len(labels)
            return numbers[:, None].float(), numbers

    told, total = [], sum(lengths)
    found = table(Rows(), Numbers(None), sequences(*lengths), max_rows=most, tell=told.append)
    assert told == [f"{most} of {total:,} rows are read, evenly spread"]
    assert len(found.y) == most
    assert torch.equal(found.x[:, 0].long(), found.y)
    gaps = torch.diff(found.y, append=torch.tensor([total]))
    assert found.y[0] == 0
    assert gaps.min() >= 1
    assert gaps.max() <= 3 * total / most


def test_what_is_not_finite_or_does_not_fit_together_is_refused():
    class Odd(Marks):
        def rows(self, encoder, features, labels):
            return features.context[0], labels[1:]

    class Endless(Rows):
        def forward(self, x):
            return Features(x.mean(dim=(1, 2)), context=x[:, 0] / 0)

    with pytest.raises(StecError, match=r"rows \[4, 7\] with labels \[3\]"):
        table(Rows(), Odd(None), sequences(4), max_rows=9, tell=silent)
    with pytest.raises(NonFinite, match="4 of 4 rows are not finite"):
        table(Endless(), Marks(None), sequences(4), max_rows=9, tell=silent)
    assert len(table(Rows(), Marks(None), [], max_rows=9, tell=silent).y) == 0


def test_accuracy_is_the_readers_on_the_labelled_rows_beside_what_naming_one_class_gives():
    def unknown(samples):
        """The first label of each sequence is not known."""
        for x, y in samples:
            yield x, torch.cat([torch.tensor([-1]), y[1:]])

    probed = Probed(Marks(None), lambda: unknown(sequences(*[20] * 15)), lambda: unknown(sequences(20, 20, seed=1)))
    train, test = (table(Rows(), Marks(None), part(), max_rows=999, tell=silent) for part in probed[1:])
    found = accuracy(Configured("marks", Marks, Lbfgs(), 999), probed, Rows(), tell=silent)
    assert found["acc"] == Lbfgs().accuracy(train, test) > 0.7
    known = [y for y in test.y.tolist() if y >= 0]
    commonest = max(range(3), key=(train.y.tolist()).count)
    assert found["majority"] == known.count(commonest) / len(known)
    assert len(known) == 38
    slow = Configured("marks", Marks, Adam(lr=0.1, epochs=30, batch_size=50))
    assert accuracy(slow, probed, Rows(), tell=silent)["acc"] > 0.7


def test_without_a_label_there_is_nothing_to_read():
    probed = Probed(Marks(None), lambda: sequences(5, 5), lambda: iter([]))
    with pytest.raises(UsageError, match="there is no label for it"):
        accuracy(Configured("marks", Marks, Lbfgs()), probed, Rows(), tell=silent)


def test_a_table_is_thinned_evenly():
    numbers = torch.arange(10)
    whole = Table(numbers[:, None].float(), numbers)
    assert whole.thinned(10) is whole
    assert whole.thinned(4).y.tolist() == [0, 2, 5, 7]
    assert whole.thinned(4).x[:, 0].tolist() == [0, 2, 5, 7]
