"""What the report is told about a run: lines that can be typed, chance levels, and where the samples come from."""

import shlex
from types import SimpleNamespace

import pytest
import torch
from toy_probe import Marks, Rows, marked
from toy_source import SPACE, Memory, Sources

from stec import account
from stec.build import Model
from stec.data import Splits
from stec.evaluation.features import Table
from stec.evaluation.probes import Configured
from stec.evaluation.softmax import Lbfgs
from stec.evaluation.suite import Suite
from stec.measure import Measure
from stec.report.facts import Column
from stec.training.options import Hardware


def shards(num=10, classes=(), fields=("jpg",)):
    return SimpleNamespace(num_samples=num, meta={"classes": list(classes)}, fields=fields, folder="/shards/train")


@pytest.mark.parametrize("place", ["runs/a", "my runs/it's", "$HOME/ü"])
def test_the_lines_to_type_next_name_one_directory_whatever_it_is_called(place):
    lines = [command.line for command in account._commands(SimpleNamespace(directory=place), reads=True)]
    words = [shlex.split(line) for line in lines]
    assert [line[0] for line in words] == ["stec-eval", "stec-export", "stec-eval", "stec-train"]
    assert all(place in line or f"weights={place}" in line for line in words)
    silent = account._commands(SimpleNamespace(directory=place), reads=False)
    assert not [c for c in silent if "action" in c.line]  # there is nobody to ask


def test_chance_is_the_commonest_class_of_the_test_split():
    columns = [Column("eval/knn/top1", "k-NN"), Column("eval/action_bits/x", "x", "bits", 0.0, 2.6)]
    shown = Table(torch.zeros(6, 2), torch.tensor([0, 1, 1, 1, -1, -1]))
    splits = Splits(shards(), shards(), shards())
    assert [c.chance for c in account._with_chance(columns, shown, splits)] == [0.75, 0.0]
    assert [c.chance for c in account._with_chance(columns, shown, splits._replace(test=None))] == [None, 0.0]
    unknown = Table(torch.zeros(2, 2), torch.tensor([-1, -1]))
    assert [c.chance for c in account._with_chance(columns, unknown, splits)] == [None, 0.0]


def test_a_probe_with_several_rows_a_sample_has_a_map_of_its_own(monkeypatch):
    class Once(Marks):
        def rows(self, encoder, features, labels):
            return features.context[0, :1], labels[:1]

    class Far(Marks):
        needs = frozenset({"nothing"})

    monkeypatch.setattr(account, "_NUM_MAPPED", 60)
    probes = {name: Configured(name, part, Lbfgs()) for name, part in (("m", Marks), ("once", Once), ("far", Far))}
    stec = SimpleNamespace(encoder=Rows())
    model = Model(stec.encoder, SPACE, Sources(), None, stec, {})
    meta = {"classes": ["a", "b"], "marks": [f"mark {number}" for number in range(30)]}
    train, test = (Memory([marked(number, label=number % 2) for number in range(num)]) for num in (6, 20))
    train.meta = test.meta = meta
    for sample in test.samples:  # 12 marks: more than there are colours
        sample["marks"] = b" ".join(b"%d" % (value % 12) for value in sample["toy"][2::6])
    measure = Measure(
        Suite(None, None, None, probes), model, Splits(train, train, test), Hardware(device="cpu", num_workers=0), 0.0
    )
    pooled = Table(torch.rand(20, 6), torch.arange(20) % 2)
    samples, rows = account._maps(measure, pooled, "held-out samples")
    assert (samples.title, len(samples.places), samples.classes) == ("samples", 20, ("a", "b"))
    assert (rows.title, len(rows.places), len(rows.coloured), rows.classes[3]) == ("m", 60, 10, "mark 3")
    assert "60 rows, of 20 held-out samples, each at the place that m is read from" in rows.method
    (alone,) = account._maps(Measure(Suite(None, None, None), model, measure.splits, measure.hardware, 0.0), pooled, "")
    assert (alone.title, alone.coloured) == ("", None)


def test_components_are_explained_by_the_table_unless_the_predicted_actions_do():
    known, other, *_ = (component.name for component in SPACE.components)
    picture = SimpleNamespace(meanings={known: "How far it went.", "unheard": "?"})
    measure = SimpleNamespace(
        model=Model(None, SPACE, None, picture, None, {}), probes={}, protocol=lambda _: {"eval/action": "read afresh"}
    )
    rows = {"raw input": {}, "trained": {f"eval/action_bits/{name}": 0.5 for name in (known, other)}}
    told = account._protocol(measure, rows, False)
    assert "below, at the predicted" not in told.pop("action")
    assert told == {known: "How far it went.", other: f"in {SPACE.components[1].unit}"}
    told = account._protocol(measure, rows, True)
    assert set(told) == {"action"}
    assert "what the components mean stands below" in told["action"]
    assert set(account._protocol(measure, {"trained": {}}, False)) == {"action"}


@pytest.mark.parametrize(
    ("labelled", "test", "config", "told"),
    [
        (shards(classes="ab"), shards(1200), {"data": "/photos"}, "/photos (1,200 held out, 2 classes)"),
        (shards(fields=("cls", "jpg")), None, {}, "/shards/train (none held out, labels without names of classes)"),
        (shards(), None, {"data": None}, "/shards/train (none held out, no labels)"),
    ],
)
def test_the_data_are_named_as_the_user_did_with_what_is_held_out(labelled, test, config, told):
    assert account._data(SimpleNamespace(config=config), Splits(labelled, labelled, test)) == told


@pytest.mark.parametrize(
    ("seconds", "resumed", "told"),
    [
        (100.4, False, "1 min 40 s, measuring included"),
        (7320, True, "2 h 2 min, measuring included, since it went on from a checkpoint"),
    ],
)
def test_the_time_that_it_took(seconds, resumed, told):
    assert account._lasted(SimpleNamespace(seconds=seconds, resumed=resumed)) == told
