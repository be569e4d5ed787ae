"""Lines of a ledger: what is kept of a run, what two runs must share to be of one recipe, and damage."""

import hashlib
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from comparison.toy_table import CONFIG, line, made

from stec.comparison import ledger
from stec.errors import DataError, UsageError


def with_(**changes: Any) -> dict[str, Any]:
    return {**CONFIG, **changes}


@pytest.mark.parametrize(
    "other",
    [
        with_(seed=4, name="other", data="there", run_dir="elsewhere", resume="never"),
        with_(hardware={"device": "cuda:0", "compile": True, "precision": "bf16", "micro_batch": None}),
        with_(training={**CONFIG["training"], "log_every": 1, "checkpoint_every": 1, "keep": 9, "stop_after": 3}),
        with_(evaluation={**CONFIG["evaluation"], "baselines": {"a": "runs/b"}, "raw_input": False}),
        with_(dataset={"name": "d", "packer": {"name": "p", "labels": "some/file.txt", "subset": None}}),
        with_(option_of_tomorrow=None),
        with_(identity={"simclr": {"weight": 2, "name": "simclr"}}),
    ],
)
def test_what_changes_nothing_that_is_learnt_leaves_the_hash(other):
    assert ledger.fingerprint(other) == ledger.fingerprint(CONFIG)
    assert ledger.differing(other, CONFIG) == []


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (with_(batch_size=16), "batch_size"),
        (with_(training={**CONFIG["training"], "epochs": 3}), "training.epochs"),
        (with_(dataset={"name": "d", "packer": {"name": "p", "subset": 10}}), "dataset.packer.subset"),
        (with_(manipulation={"binned": {"weight": 1.0}}), "manipulation.binned.name"),
        (with_(hardware={"device": "cpu", "micro_batch": 4}), "hardware.micro_batch"),
        (with_(evaluation={**CONFIG["evaluation"], "action": None}), "evaluation.action"),
        (with_(identity={"simclr": {"name": "simclr", "weight": True}}), "identity.simclr.weight"),
        (with_(evaluation={**CONFIG["evaluation"], "train_samples": 11}), "evaluation.train_samples"),
    ],
)
def test_anything_else_changes_it_and_is_named(other, key):
    assert ledger.fingerprint(other) != ledger.fingerprint(CONFIG)
    assert ledger.differing(other, CONFIG) == [key]


def test_the_hash_is_that_of_a_text_that_anybody_can_write():
    text = '{"a": "x", "b.c": 1.0}'
    assert ledger.fingerprint({"b": {"c": 1}, "a": "x"}) == hashlib.sha256(text.encode()).hexdigest()


def test_an_entry_is_the_run(tmp_path):
    run = made(tmp_path / "run")
    found = ledger.entry(run, "t", "a", "small", ["recipe=x"])
    assert found.hash == ledger.fingerprint(CONFIG)
    assert (found.seed, found.metrics, found.recipe) == (3, {"eval/linear/top1": 0.5}, ["recipe=x"])
    assert (found.seconds, found.date) == (90.0, "2026-11-24T21:37:13Z")
    assert (found.device, found.hardware) == ("cpu", "cpu (2 cores), fp32, 0 loading processes")
    assert ledger.entry(run, "t", "a", "small", [], 12.34).seconds == 12.3


def test_an_entry_tells_what_was_learnt_from_and_by_which_sources(tmp_path):
    run = made(tmp_path / "run")
    told = json.loads((run / "table.json").read_text())
    told |= {"data": {"fingerprint": "abc", "num_train": 600}, "commit": "0123"}
    assert (ledger.entry(run, "t", "a", "small", []).data, ledger.entry(run, "t", "a", "small", []).commit) == ("", "")
    (run / "table.json").write_text(json.dumps(told))
    found = ledger.entry(run, "t", "a", "small", [])
    assert (found.data, found.num_train, found.commit, found.precision) == ("abc", 600, "0123", "fp32")


def test_the_pause_between_two_attempts_took_no_time(tmp_path):
    run = made(tmp_path / "run")
    text = (run / "train.log").read_text()
    later = text.replace("2026-11-24T21", "2026-11-24T23").replace(
        "INFO data", "INFO changed on resume: x\n{}INFO data"
    )
    (run / "train.log").write_text(text + later.format("2026-11-24T23:35:43Z "))
    assert ledger.entry(run, "t", "a", "small", []).seconds == 180.0


def test_a_run_without_the_tables_metric_or_of_other_samples_is_none():
    old = [line("a", 0, num_train=10_000, data="x"), line("a", 1)]
    assert ledger.lacking(line("a", 2), "m", old) == "its table has no m"
    has = {"metrics": {"m": 0.5}}
    assert "from 600 samples, a seed 0 of the same recipe from 10,000" in ledger.lacking(
        line("a", 2, num_train=600, **has), "m", old
    )
    for fine in (
        line("a", 2, num_train=10_000, data="y", **has),
        line("a", 2, **has),
        line("a", 2, "o", num_train=6, **has),
    ):
        assert ledger.lacking(fine, "m", old) == ""
    assert not ledger.other_data(old)
    assert ledger.other_data([*old, line("a", 2, data="y")])


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    run = made(tmp_path / "run")
    (run / "finished").unlink()
    with pytest.raises(UsageError, match="not finished"):
        ledger.entry(run, "t", "a", "small", [])
    with pytest.raises(UsageError, match="not a run directory"):
        ledger.entry(tmp_path, "t", "a", "small", [])


def test_a_damaged_run_is_named(tmp_path):
    run = made(tmp_path / "run")
    (run / "table.json").write_text("{}")
    with pytest.raises(DataError, match=r"table\.json"):
        ledger.entry(run, "t", "a", "small", [])


def test_lines_come_back_in_order(tmp_path):
    path = tmp_path / "results" / "t.jsonl"
    assert ledger.read(path) == []
    lines = [line("a", 0), line("b", 1, metrics={"é": 0.25})]
    for each in lines:
        ledger.append(path, each)
    assert ledger.read(path) == lines
    assert len(path.read_text().splitlines()) == 2


def test_a_last_line_without_its_end_is_ended_first(tmp_path):
    path = tmp_path / "t.jsonl"
    ledger.append(path, line("a"))
    path.write_text(path.read_text().rstrip("\n"))
    ledger.append(path, line("b"))
    assert [each.row for each in ledger.read(path)] == ["a", "b"]


def _append(path: Path, start: int) -> None:
    for seed in range(start, start + 40):
        ledger.append(path, line(seed=seed, metrics={f"m{i}": 0.5 for i in range(200)}))


def test_two_at_once_do_not_tear_each_others_lines(tmp_path):
    path = tmp_path / "t.jsonl"
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=_append, args=(path, 100 * n)) for n in range(2)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert {each.seed for each in ledger.read(path)} == {*range(40), *range(100, 140)}


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"row": "a"}', '{"extra": 1}'])
def test_a_damaged_line_is_named(tmp_path, text):
    path = tmp_path / "t.jsonl"
    ledger.append(path, line())
    path.write_text(path.read_text() + "\n" + text + "\n")
    with pytest.raises(DataError, match=r"t\.jsonl, line 3"):
        ledger.read(path)


def test_a_ledger_that_is_no_text_is_named(tmp_path):
    (tmp_path / "t.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(DataError, match=r"t\.jsonl, line 1"):
        ledger.read(tmp_path / "t.jsonl")


def test_only_todays_recipe_counts_and_the_newest_line_of_a_seed():
    lines = [line("a", 0, "old"), line("a", 0, "now", seconds=1.0), line("a", 0, "now", seconds=2.0)]
    found, stale = ledger.counted([*lines, line("b", 5, "old")], "t", "small", "a", "now")
    assert ({seed: each.seconds for seed, each in found.items()}, stale) == ({0: 2.0}, 1)


def test_a_run_counts_in_every_table_that_has_its_recipe(tmp_path):
    ledger.append(ledger.path_of(tmp_path, "one"), line("a", 0, "now", table="one"))
    ledger.append(ledger.path_of(tmp_path, "two"), line("b", 1, "now", table="two"))
    ledger.append(ledger.path_of(tmp_path, "two"), line("a", 2, "old", table="two"))
    found, stale = ledger.counted(ledger.read_all(tmp_path), "one", "small", "a", "now")
    assert (sorted(found), stale) == ([0, 1], 0)
