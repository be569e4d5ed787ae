"""The rows of a table, of a toy encoder of sequences and a toy probe: who is measured, on which samples, how they are
left out and what is said."""

import logging

import pytest
import torch
from toy_probe import Marks, Plain, Rows, marked
from toy_source import Memory, Sources, toy_sample
from toy_space import Windows

from stec import build, catalogue
from stec.actions import Compose
from stec.build import Model
from stec.data import Splits
from stec.errors import DataError, UsageError
from stec.evaluation.knn import Knn
from stec.evaluation.probes import Configured, accuracy
from stec.evaluation.softmax import Lbfgs
from stec.evaluation.suite import Suite
from stec.measure import Begun, Measure, belongs
from stec.training.options import Hardware


class Brighter(Windows):
    """Windows that are not cut out, but make a picture brighter the further down they lie."""

    def act(self, x, action, view):
        return x + action[:, :1, None, None] / 320


SPACE = Compose({"windows": Brighter()})
CPU = Hardware(device="cpu", num_workers=0)
SPEC = {"actions": {"windows": {}}, "decoder": {"name": "toys"}, "encoder": {"name": "toy_rows"}}


def suite(**options) -> Suite:
    probes = {"marks": Configured("marks", Marks, Lbfgs(grid=[0.1]))}
    return Suite(Knn(k=3), None, None, probes, test_pairs=8, **options)


def samples(num: int, start: int = 0):
    return [marked(number, label=number % 2) for number in range(start, start + num)]


def measure(train, test, ours: Suite | None = None, max_bad: float = 0.0) -> Measure:
    model = Model(Rows(), SPACE, Sources(), None, None, SPEC)
    return Measure(ours or suite(), model, Splits(train, train, test), CPU, max_bad)


@pytest.fixture
def whole() -> Measure:
    return measure(Memory(samples(20)), Memory(samples(10, 40)))


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(catalogue.CORE, "encoder", {"toy_rows": "toy_probe:Plain"})


def test_a_probe_reads_the_samples_of_both_splits_and_is_described(whole):
    row = whole.row(whole.model.encoder)
    probed = whole.sources().probes["marks"]
    alone = accuracy(whole.suite.probes["marks"], probed, Rows(), tell=lambda _: None)
    assert {name: row[f"eval/marks/{name}"] for name in alone} == alone
    assert [sum(len(y) for _, y in part()) for part in (probed.train, probed.test)] == [100, 50]
    told = whole.protocol({"toy": row})
    assert told["eval/marks"].startswith("a mark for each row; logistic regression")
    assert set(told) == {"features", "eval/knn", "eval/marks", "health"}
    assert "eval/marks" not in whole.protocol({"toy": {"eval/marks_too/acc": 1.0}})


def test_metrics_belong_to_their_protocol_and_to_no_other_that_begins_alike():
    for metric, start in (
        ("eval/knn/top1", "eval/knn"),
        ("eval/action_bits/x", "eval/action"),
        ("health/std", "health"),
        ("eval/speaker_last/acc", "eval/speaker_last"),
    ):
        assert belongs(metric, start)
    for metric in ("eval/linear_sgd/top1", "eval/speaker_last/acc", "eval/actions/acc"):
        assert not any(belongs(metric, start) for start in ("eval/linear", "eval/speaker", "eval/action"))


def test_recordings_are_bounded_evenly_and_those_without_labels_passed_over():
    some = samples(20)
    some[4] = toy_sample(4, label=0)
    ours = measure(Memory(some), Memory(samples(10)), suite(train_samples=5))
    found = list(ours.examples("marks", "train"))
    numbers = [round(float(x.flatten()[0]) * 255) for x, _ in found]
    assert numbers == [some[number]["toy"][2] for number in (0, 8, 12, 16)]
    assert len(list(ours.examples("marks", "test", num=3))) == 3


def test_a_damaged_sample_is_left_out_and_told_once_whoever_meets_it(caplog):
    bad = samples(20)
    bad[3] = bad[3] | {"marks": b"0 1 x"}
    ours = measure(Memory(bad, damaged=[5]), Memory(samples(10)), max_bad=0.2)
    rows = [ours.row(Rows()) for _ in range(2)]
    assert rows[0] == rows[1]
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 2
    assert any("toy-0.tar: 0003: the marks are no numbers" in sentence for sentence in warned)
    assert any("0005.toy is damaged" in sentence for sentence in warned)
    with pytest.raises(DataError, match=r"0003: the marks are no numbers \(dataset\.max_bad=0"):
        list(measure(Memory(bad), Memory(samples(10))).examples("marks", "train"))


def test_without_a_test_split_no_probe_is_read(caplog):
    with caplog.at_level(logging.INFO, "stec"):
        row = measure(Memory(samples(20)), None).row(Rows())
    assert not [name for name in row if name.startswith("eval/")]
    assert "there are no held-out samples: eval/marks is left out." in caplog.messages


def test_what_a_probe_refuses_is_told_by_its_full_key():
    refused = Suite(None, None, None, {"a": Configured("a", lambda decoder: Marks(decoder, offset=-1), Lbfgs())})
    with pytest.raises(UsageError, match=r"^evaluation\.probes\.a\.offset=-1 must be at least 0\.$"):
        measure(Memory(samples(4)), None, refused)


def test_rows_for_the_raw_input_the_beginning_and_an_encoder_by_its_name(whole):
    begun = Begun("untrained", Rows(), None)
    rows = whole.baselines(begun, True, {"plain": "toy_rows"})
    assert list(rows) == ["raw input", "untrained", "plain"]
    assert "eval/marks/acc" not in rows["raw input"]  # it has no frames
    assert "eval/knn/top1" in rows["raw input"]
    assert rows["plain"] == rows["untrained"] == whole.row(Plain())
    assert list(whole.baselines(begun, False, {})) == ["untrained"]


def test_an_encoder_by_its_name_has_the_same_weights_each_time(whole, monkeypatch):
    class Random(Plain):
        def __init__(self):
            super().__init__()
            self.scale.data = torch.randn(6)

    monkeypatch.setattr("toy_probe.Plain", Random)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    rows = [whole._compared("toy_rows") for _ in range(2)]
    assert rows[0] == rows[1] != whole.row(Rows())
    assert torch.equal(state, torch.get_rng_state())


def test_what_is_not_at_hand_is_left_out_with_a_line(whole, tmp_path, caplog):
    compared = {"nothing": None, "gone": str(tmp_path / "gone"), "plain": "toy_rows"}
    with caplog.at_level(logging.INFO, "stec"):
        rows = whole.baselines(Begun("untrained", Rows(), None), False, compared)
    assert list(rows) == ["untrained", "plain"]
    told = [sentence for sentence in caplog.messages if sentence.startswith("no row for")]
    assert told == [
        "no row for nothing: its source is null.",
        f"no row for gone: {tmp_path / 'gone'}: neither a run directory, a .ckpt file, an exported folder nor"
        " ENCODER/NAME.",
    ]


def test_another_run_is_measured_as_it_sees_the_samples(whole, monkeypatch, tmp_path):
    other = Rows()
    other.scale.data = torch.linspace(-1, 2, 6)

    class Dark(Sources):
        def finish(self, x):
            return super().finish(x) - 1

    def loaded(decoder, name):
        model = Model(other, SPACE, decoder, None, None, {**SPEC, "decoder": {"name": name}})
        monkeypatch.setattr(build, "load", lambda source: model)
        return whole._compared(str(tmp_path))

    alike = loaded(Sources(), "toys")
    assert alike == whole.row(other)
    assert "health/std" in alike
    own = loaded(Dark(), "dark")
    seen = measure(whole.splits.train, whole.splits.test)
    seen.model.decoder.finish = Dark().finish
    again = Measure(seen.suite, seen.model, seen.splits, CPU, 0.0).row(other)
    assert own == {name: value for name, value in again.items() if not name.startswith("health")}
    assert {"eval/knn/top1", "eval/marks/acc"} <= own.keys()
