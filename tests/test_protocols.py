"""The node `evaluation`: protocols, probes, rows to compare with; slips are told by their full key."""

import pytest
from toy_probe import Marks

from stec import catalogue, protocols
from stec.errors import UsageError
from stec.evaluation.adam import Adam
from stec.evaluation.softmax import Lbfgs


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(catalogue.CORE, "probe", {"toy_marks": "toy_probe:Marks"})
    monkeypatch.setitem(catalogue.CORE, "encoder", {"toy_rows": "toy_probe:Plain"})


def test_what_is_null_is_left_out():
    ours = protocols.suite({"knn": None, "linear": None, "action": None, "probes": {"a": None}})
    assert (ours.knn, ours.linear, ours.action, ours.probes) == (None, None, None, {})
    ours = protocols.suite({"probes": None})
    assert None not in (ours.knn, ours.linear, ours.action)


def test_probes_by_their_key_or_name_with_their_readers():
    nodes = {
        "toy_marks": {},
        "b": {"name": "toy_marks", "offset": 2, "reader": "adam", "max_rows": 50},
        "c": {"name": "toy_marks", "reader": {"name": "adam", "lr": 0.5}},
        "d": {"name": "toy_marks", "reader": {"name": "lbfgs", "grid": [1.0]}},
    }
    found = protocols.suite({"probes": nodes}).probes
    assert list(found) == list(nodes)
    made = {name: configured.part(None) for name, configured in found.items()}
    assert {type(probe) for probe in made.values()} == {Marks}
    assert (made["b"].offset, found["b"].max_rows) == (2, 50)
    assert [type(one.reader) for one in found.values()] == [Lbfgs, Adam, Adam, Lbfgs]
    assert found["c"].reader.lr == 0.5
    assert found["d"].reader.grid == (1.0,)
    assert found["toy_marks"].max_rows == 200_000


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        ({"probes": 3}, "evaluation.probes=3 has the wrong type"),
        ({"probes": {"a": 3}}, "evaluation.probes.a=3 has the wrong type"),
        ({"probes": {"a": {}}}, "probe='a' is unknown: There is: .*toy_marks"),
        (
            {"probes": {"toy_marks": {"ofset": 1}}},
            "evaluation.probes.toy_marks.ofset is unknown: did you mean 'offset'",
        ),
        ({"probes": {"toy_marks": {"offset": "x"}}}, "evaluation.probes.toy_marks.offset='x' has the wrong type"),
        ({"probes": {"toy_marks": {"max_rows": 0}}}, "evaluation.probes.toy_marks.max_rows=0 must be at least 1"),
        ({"probes": {"toy_marks": {"max_rows": "x"}}}, "evaluation.probes.toy_marks.max_rows='x' has the wrong type"),
        ({"probes": {"toy_marks": {"reader": "sgd"}}}, "evaluation.probes.toy_marks.reader.name=sgd is unknown"),
        ({"probes": {"toy_marks": {"reader": {"lr": 1}}}}, "evaluation.probes.toy_marks.reader.name=None is unknown"),
        (
            {"probes": {"toy_marks": {"reader": {"name": "adam", "lr": 0}}}},
            "evaluation.probes.toy_marks.reader.lr=0.0 must",
        ),
        (
            {"probes": {"toy_marks": {"reader": {"name": "adam", "grid": []}}}},
            "evaluation.probes.toy_marks.reader.grid is unknown",
        ),
        ({"probes": {"knn": {"name": "toy_marks"}}}, "evaluation.probes.knn: choose another name"),
        ({"probes": {"action_acc": {"name": "toy_marks"}}}, "evaluation.probes.action_acc: choose another name"),
        ({"probes": {"a/b": {"name": "toy_marks"}}}, "evaluation.probes.a/b: choose another name"),
        ({"prober": {}}, "evaluation.prober is unknown: did you mean 'probes'"),
    ],
)
def test_slips_in_the_protocols(node, sentence):
    with pytest.raises(UsageError, match=f"^{sentence}"):
        protocols.suite(node)


def test_rows_to_compare_with_are_checked_as_far_as_they_can_be(tmp_path):
    sources = {"toy": "toy_rows", "resnet18": "timm/resnet18", "gone": str(tmp_path / "gone"), "none": None}
    assert protocols.baselines(sources) == sources
    assert protocols.baselines(None) == {}
    for node, sentence in (
        ([1], r"evaluation\.baselines=\[1\] has the wrong type"),
        ({"a": 3}, r"evaluation\.baselines\.a=3 has the wrong type: an encoder, ENCODER/NAME, a run, "),
        ({"a": "toy_row"}, r"evaluation\.baselines\.a=toy_row: encoder='toy_row' is unknown: did you mean 'toy_rows'"),
        ({"a": "timm/resnet17"}, r"evaluation\.baselines\.a=timm/resnet17: "),
        ({"trained": "toy_rows"}, r"evaluation\.baselines\.trained: the table has a row of this name"),
    ):
        with pytest.raises(UsageError, match=f"^{sentence}"):
            protocols.baselines(node)
