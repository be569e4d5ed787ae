"""stec-report: a table as it stands, runs that fill it (two tiny ones are real), and runs made elsewhere."""

import copy
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from comparison.toy_table import made
from tiny_run import TINY, draw

from stec.cli import child, report_run, rows
from stec.cli.report import main
from stec.comparison import ledger, tries
from stec.comparison.ledger import Line

METRIC = "eval/linear/top1"
HEAD: dict[str, Any] = {"title": "Toy", "source": "nobody", "metric": METRIC, "effect": 5.0, "spread": 1.0}
ROWS = [
    {"id": "plain", "label": "Plain", "recipe": "my_images", "overrides": ["manipulation=none"]},
    {"id": "told", "label": "Told", "recipe": "my_images", "paper": {"mean": 50.0}, "against": "plain"},
]
# manipulation=none drops what is said of `binned`, so the rows share these words; evaluation as short as can be.
SHORT = [word for word in TINY if not word.startswith(("recipe=", "manipulation."))] + [
    "training.epochs=1",
    "training.warmup_epochs=0",
    "evaluation.linear.grid=[0.1]",
    "evaluation.action=null",
]


COMPOSED = functools.cache(rows.composed)


@pytest.fixture
def table(tmp_path, monkeypatch) -> str:
    """A table in a folder of its own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEC_CACHE", str(tmp_path / "cache"))
    # hydra takes its time, and the words of these tests are always the same.
    monkeypatch.setattr(rows, "composed", lambda words: copy.deepcopy(COMPOSED(tuple(words))))
    scales = {"large": {"hours": 100}, "small": {"words": SHORT, "hours": 0.5}}
    Path("toy.yaml").write_text(yaml.safe_dump({**HEAD, "scales": scales, "rows": ROWS}, sort_keys=False))
    return "table=toy.yaml"


def row(name: str):
    return rows.asked(["table=toy.yaml"], ("table",)).table.rows[name]


def elsewhere(folder: str, name: str, seed: int, value: float, **changes: Any) -> Path:
    """A finished run of a row of the toy table, that never was."""
    config = {**rows.composed(row(name).words["small"]), "seed": seed, **changes}
    return made(Path(folder), config, {METRIC: value})


def faked(monkeypatch, values: dict[str, float], metric: dict[str, str] | None = None) -> list[str]:
    """In place of training: a run directory with a value for each row (of another metric than METRIC, if one is given),
    or its exit code if that is an int; -> runs."""
    told: list[str] = []

    def train(words: list[str], gpus: int) -> int:
        assert gpus == 1
        given = dict(word.split("=", 1) for word in words)
        _, _, _, _, name, seed = Path(given["run_dir"]).parts
        told.append(f"{name}/{seed}")
        value = values[name]
        if isinstance(value, int):
            return value
        config = {**rows.composed(row(name).words["small"]), "seed": int(given["seed"])}
        made(Path(given["run_dir"]), config, {(metric or {}).get(name, METRIC): value + 0.001 * int(given["seed"])})
        return 0

    monkeypatch.setattr(report_run, "train", train)
    return told


def printed(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_bare_it_lists_the_tables(capsys):
    assert main([]) == 0
    text = printed(capsys)
    for words in ("1 Table 1: linear accuracy", "fig3a Figure 3A", "collapse Collapse", "stec-report table=NAME"):
        assert words in text


def test_what_was_not_run_comes_with_the_command_that_runs_it(table, capsys):
    assert main([table, "--markdown"]) == 0
    text = capsys.readouterr().out
    assert "| Told | 50 | not run | 0 | Plain |" in text
    (command,) = [line for line in text.splitlines() if "toy/small/told" in line]
    assert command.startswith("stec-train recipe=my_images hardware=cpu ")
    assert command.endswith(" seed=0 data=PATH run_dir=runs/tables/toy/small/told/seed-0")


def test_entered_runs_stand_in_the_table(table, capsys):
    for seed in range(3):
        for name, value in (("plain", 0.50), ("told", 0.60 + 0.01 * seed)):
            elsewhere(f"{name}-{seed}", name, seed, value)
            assert main(["enter", table, f"row={name}", f"{name}-{seed}"]) == 0
    assert main(["enter", table, "row=told", "told-0"]) == 0  # once more: it is there
    assert len(Path("results/toy.jsonl").read_text().splitlines()) == 6
    capsys.readouterr()
    assert main([table, "scale=small"]) == 0
    text = printed(capsys)
    assert "higher" in text
    assert "not run" not in text
    assert main([table, "--markdown"]) == 0
    assert "| Told | 50 | 61.00 ± 2.48 | 3 | Plain |  | +11.00 ± 2.48 |" in capsys.readouterr().out
    assert main([table, "scale=large", "--markdown"]) == 0
    assert "61.00" not in capsys.readouterr().out


def test_a_run_of_another_recipe_is_not_entered(table, capsys):
    elsewhere("odd", "told", 0, 0.5, batch_size=16, num_views=3)
    assert main(["enter", table, "row=told", "odd"]) == 2
    assert "odd: not a run of row=told at scale=small; these keys differ: batch_size, num_views." in printed_error(
        capsys
    )
    assert not Path("results").exists()


def test_what_an_older_recipe_reached_is_stale(table, capsys):
    elsewhere("run", "told", 0, 0.5)
    assert main(["enter", table, "row=told", "run"]) == 0
    old = [Line(**{**vars(each), "hash": "0" * 64}) for each in ledger.read(Path("results/toy.jsonl"))]
    Path("results/toy.jsonl").unlink()
    ledger.append(Path("results/toy.jsonl"), old[0])
    assert main([table, "--markdown"]) == 0
    assert "| not run | 0 (1 stale) |" in capsys.readouterr().out


def printed_error(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["table=nine"], "table=nine is unknown"),
        (["table=1", "scale=huge"], "scale=huge is unknown"),
        (["scale=small"], "table=NAME is needed"),
        (["table=1", "colour=red"], "colour is unknown"),
        (["table"], "'table' is not of the form key=value"),
        (["run", "table=1", "--budget", "soon"], "--budget soon: a time such as 4h"),
        (["run", "table=1", "--budget", "1h", "--seeds", "0"], "--seeds 0 must be at least 1"),
        (["run", "table=1", "--budget", "1h", "data.cifar10=nowhere"], "data.cifar10=nowhere: there is no such file"),
        (
            ["run", "table=1", "--budget", "1h", "data.cifar100=."],
            "data.cifar100: no row at scale=small wants it. did you",
        ),
        (["run", "table=1", "--budget", "1h", "dataset.packer.sub=."], "no row at scale=small wants it. did you mean"),
        (
            ["run", "table=audio", "--budget", "1h", "data.librispeech=."],
            "without dataset.packer.phones=FILE there is no",
        ),
        (["run", "table=3", "--budget", "1h"], "scale=paper of table=table3 needs 8 GPUs, there are"),
        (["enter", "table=1"], "one run directory and row=ID are needed"),
        (["enter", "table=1", "row=nobody", "nowhere"], "row=nobody is unknown at scale=small"),
        (["enter", "table=1", "row=c100_r18_stec", "nowhere"], "nowhere: not a run directory"),
    ],
)
def test_slips_end_in_a_sentence(words, sentence, capsys):
    assert main(words) == 2
    assert sentence in printed_error(capsys)


def test_rows_without_their_data_are_skipped_and_listed(table, capsys):
    assert main(["run", table, "--budget", "1h"]) == 1
    text = printed(capsys)
    assert "plain: skipped, data.my_images=PATH is needed." in text
    assert text.endswith("nothing could be run.")


def test_runs_are_made_in_pairs_until_nothing_is_missing(table, monkeypatch, capsys):
    Path("pictures").mkdir()
    told = faked(monkeypatch, {"plain": 0.5, "told": 0.6})
    words = ["run", table, "--budget", "10h", "--seeds", "2", "data.my_images=pictures"]
    assert main(words) == 0
    assert told == ["plain/seed-0", "told/seed-0", "plain/seed-1", "told/seed-1"]
    lines = ledger.read(Path("results/toy.jsonl"))
    assert [(line.row, line.seed, line.metrics) for line in lines[-1:]] == [("told", 1, {METRIC: 0.601})]
    assert lines[0].recipe == list(row("plain").words["small"])
    assert main(words) == 0
    assert len(told) == 4


def test_no_run_is_begun_that_would_not_fit(table, monkeypatch, capsys):
    Path("pictures").mkdir()
    told = faked(monkeypatch, {"plain": 0.5, "told": 0.6})
    assert main(["run", table, "--budget", "20m", "data.my_images=pictures"]) == 0
    assert told == []
    assert "6 runs are left (3.0 h); the next takes 0.50 h, more than the 0.33 h that are left." in printed(capsys)


def test_a_failed_run_is_told_noted_and_not_tried_again_unasked(table, monkeypatch, capsys):
    Path("pictures").mkdir()
    told = faked(monkeypatch, {"plain": 0.5, "told": 3})
    words = ["run", table, "--budget", "10h", "--seeds", "1", "data.my_images=pictures"]
    assert main(words) == 1
    assert told == ["plain/seed-0", "told/seed-0"]
    assert "told seed 0: failed (exit code 3)" in printed(capsys)
    assert main(words) == 0
    assert len(told) == 2
    assert "told seed 0: skipped, it failed before (exit code 3)" in printed(capsys)
    assert main([*words, "--retry"]) == 1
    assert told[2:] == ["told/seed-0"]


def test_a_stopped_run_is_no_failure(table, monkeypatch, capsys):
    Path("pictures").mkdir()
    told = faked(monkeypatch, {"plain": 143, "told": 0.6})
    words = ["run", table, "--budget", "10h", "--seeds", "1", "data.my_images=pictures"]
    assert main(words) == 130
    assert main(words) == 130
    assert told == ["plain/seed-0", "plain/seed-0"]


def test_a_run_of_an_older_recipe_makes_way(table, monkeypatch, capsys):
    Path("pictures").mkdir()
    elsewhere("runs/tables/toy/small/plain/seed-0", "plain", 0, 0.1, batch_size=64)
    faked(monkeypatch, {"plain": 0.5, "told": 0.6})
    assert main(["run", table, "--budget", "10h", "--seeds", "1", "data.my_images=pictures"]) == 0
    assert [line.metrics[METRIC] for line in ledger.read(Path("results/toy.jsonl"))] == [0.5, 0.6]
    assert len(list(Path("runs/tables/toy/small/plain").glob("seed-0.????????"))) == 1


def told_lines() -> list[Line]:
    return ledger.read(Path("results/toy.jsonl"))


def test_a_run_that_lacks_the_tables_metric_fails_by_name_and_may_be_made_anew(table, monkeypatch, capsys):
    Path("pictures").mkdir()
    told = faked(monkeypatch, {"plain": 0.5, "told": 0.6}, metric={"told": "eval/other"})
    words = ["run", table, "--budget", "10h", "--seeds", "1", "data.my_images=pictures"]
    assert main(words) == 1
    assert f"told seed 0: failed (its table has no {METRIC})" in printed(capsys)
    assert [line.row for line in told_lines()] == ["plain"]
    assert main(words) == 0
    assert f"told seed 0: skipped, it failed before (its table has no {METRIC})" in printed(capsys)
    told = faked(monkeypatch, {"plain": 0.5, "told": 0.6})
    assert main([*words, "--retry"]) == 0
    assert told == ["told/seed-0"]
    assert "seed-0 was a run that does not count" in printed(capsys)
    assert [line.row for line in told_lines()] == ["plain", "told"]


def test_a_line_without_the_tables_metric_is_no_run(table, monkeypatch):
    Path("pictures").mkdir()
    elsewhere("run", "plain", 0, 0.5)
    line = ledger.entry(Path("run"), "toy", "plain", "small", [])
    ledger.append(Path("results/toy.jsonl"), Line(**{**vars(line), "metrics": {"eval/other": 1.0}}))
    told = faked(monkeypatch, {"plain": 0.5, "told": 0.6})
    assert main(["run", table, "--budget", "10h", "--seeds", "1", "data.my_images=pictures"]) == 0
    assert told == ["plain/seed-0", "told/seed-0"]


def test_a_run_of_other_samples_is_not_entered(table, capsys):
    for seed, num in enumerate((10_000, 10_000, 600)):
        run = elsewhere(f"run-{seed}", "told", seed, 0.5)
        node = json.loads((run / "table.json").read_text())
        data = {"fingerprint": f"{num}{seed}", "num_train": num}
        (run / "table.json").write_text(json.dumps({**node, "data": data}))
    assert main(["enter", table, "row=told", "run-0"]) == 0
    assert "packed anew" not in printed(capsys)
    assert main(["enter", table, "row=told", "run-1"]) == 0
    assert "packed anew" in printed(capsys)
    assert main(["enter", table, "row=told", "run-2"]) == 2
    assert "run-2: it learnt from 600 samples, told seed 0 of the same recipe from 10,000." in printed_error(capsys)


def test_a_run_that_somebody_else_is_at_is_left_to_them(table, monkeypatch, capsys):
    Path("pictures").mkdir()
    told = faked(monkeypatch, {"plain": 0.5, "told": 0.6})
    words = ["run", table, "--budget", "10h", "--seeds", "1", "data.my_images=pictures"]
    with tries.alone(Path("runs/tables/toy/small/plain/seed-0")):
        assert main(words) == 0
    assert told == ["told/seed-0"]
    assert "plain seed 0: somebody else is running it" in printed(capsys)
    assert main(words) == 0
    assert told == ["told/seed-0", "plain/seed-0"]
    assert "failed before" not in printed(capsys)


def test_files_for_the_packer_are_passed_on(table, monkeypatch):
    Path("pictures").mkdir()
    Path("labels.txt").write_text("")
    found: list[list[str]] = []
    monkeypatch.setattr(report_run, "train", lambda words, gpus: found.append(words) or 3)
    composed = rows.composed

    def with_labels(words):
        config = composed(words)
        config["dataset"]["packer"]["labels"] = None
        return config

    monkeypatch.setattr(rows, "composed", with_labels)
    words = ["run", table, "--budget", "10h", "--seeds", "1", "data.my_images=pictures"]
    assert main([*words, "dataset.packer.labels=labels.txt"]) == 1
    assert found[0][-3:-1] == ["data=pictures", f"dataset.packer.labels={Path('labels.txt').resolve()}"]


def test_runs_of_several_gpus_are_begun_by_torchrun(capsys):
    assert main(["table=3", "--markdown"]) == 0
    assert "torchrun --nproc-per-node 8 -m stec.cli.train recipe=imagenet_simclr hardware=gpu8 " in printed(capsys)


def test_what_cannot_be_run_without_a_file_says_so_in_its_command(capsys):
    assert main(["table=audio", "--markdown"]) == 0
    assert "data=PATH dataset.packer.phones=FILE run_dir=" in printed(capsys)


def test_a_real_run_fills_a_table(table, capfd):
    draw(Path("pictures"), 30)
    node = yaml.safe_load(Path("toy.yaml").read_text())
    # One row is enough: what differs between rows is stec-train's affair.
    Path("toy.yaml").write_text(yaml.safe_dump({**node, "rows": ROWS[:1]}))
    assert main(["run", table, "--budget", "10h", "--seeds", "1", "data.my_images=pictures"]) == 0
    (line,) = told_lines()
    told = json.loads(Path("runs/tables/toy/small/plain/seed-0/table.json").read_text())
    assert line.metrics == told["rows"]["trained"]
    assert line.seconds > 1
    assert (line.hardware[:5], line.precision) == ("cpu (", "fp32")
    assert (line.num_train, line.data) == (told["data"]["num_train"], told["data"]["fingerprint"])
    assert (20 < line.num_train < 30, len(line.data), line.commit) == (True, 64, told["commit"])
    capfd.readouterr()
    assert main([table, "--markdown"]) == 0
    assert "not run" not in capfd.readouterr().out


# Stands in for a training that saves and leaves when it is asked to, and says how often it was asked.
CHILD = """
import pathlib, signal, sys, time
asked = []
signal.signal(signal.SIGINT, lambda *_: asked.append(1))
pathlib.Path("training").touch()
while not asked:
    time.sleep(0.01)
time.sleep(0.3)
pathlib.Path("saved").write_text(str(len(asked)))
sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_asks_the_run_once_and_waits_for_it(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **keys: popen([sys.executable, "-c", CHILD], **keys))

    def ask() -> None:
        while not Path("training").exists():
            time.sleep(0.01)
        for _ in range(2):
            os.kill(os.getpid(), number)
            time.sleep(0.1)

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        child.train([])
    thread.join()
    assert Path("saved").read_text() == "1"
