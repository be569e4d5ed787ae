"""stec-report table=...: scales that a table does not have, metrics no run has, the ledger that is read, slips."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from comparison.toy_table import NODE, line

from stec.cli import rows
from stec.cli.report import main
from stec.comparison import ledger

METRIC = NODE["metric"]


def composed(words) -> dict[str, Any]:
    """In place of hydra."""
    return {"data": None, "dataset": {"name": "d", "needs_data": True}, "words": list(words)}


@pytest.fixture
def toy(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rows, "composed", composed)
    monkeypatch.setenv("COLUMNS", "80")
    Path("toy.yaml").write_text(yaml.safe_dump(copy.deepcopy(NODE), sort_keys=False))
    return "table=toy.yaml"


def fill(folder: str = "results", scale: str = "paper", num: int = 3, **metrics: float) -> None:
    table = rows.asked(["table=toy.yaml"], ("table",)).table
    for name, row in table.at(scale).items():
        for seed in range(num):
            told = {METRIC: 0.5 + 0.01 * seed, **metrics}
            key = ledger.fingerprint(composed(row.words[scale]))
            made = line(name, seed, key, table="toy", scale=scale, metrics=told)
            ledger.append(Path(folder) / "toy.jsonl", made)


def said(capsys, *words: str) -> str:
    assert main(list(words)) == 0
    return " ".join(capsys.readouterr().out.split())


def refused(capsys, *words: str) -> str:
    assert main(list(words)) == 2
    return " ".join(capsys.readouterr().err.split())


def test_every_table_knows_small_gpu30_and_paper(toy, capsys):
    text = said(capsys, toy, "scale=gpu30")
    assert text.startswith("A table scale gpu30; eval/linear/top1 in points")
    assert "not at this scale: there is paper, small" in text
    assert "not run" not in text
    assert "scale=huge is unknown: There is: gpu30, paper, small." in refused(capsys, toy, "scale=huge")


def test_what_runs_at_a_scale_that_a_table_does_not_have_is_refused_by_name(toy, capsys):
    sentence = "scale=gpu30: toy has no rows at this scale; there is paper, small."
    assert sentence in refused(capsys, "run", toy, "scale=gpu30", "--budget", "1h")
    assert sentence in refused(capsys, "enter", toy, "scale=gpu30", "row=base", "nowhere")


def test_the_ledger_is_named_and_one_that_was_asked_for_must_be_there(toy, capsys):
    assert "ledger: results, which is not there: it is looked for in the current folder, 0 runs" in said(capsys, toy)
    fill("kept", num=1)
    assert "ledger: kept, 3 runs" in said(capsys, toy, "--ledger", "kept")
    assert "--ledger keps: there is no such folder." in refused(capsys, toy, "--ledger", "keps")


def test_a_metric_that_no_run_has_is_refused_and_without_runs_nobody_knows(toy, capsys):
    assert "not run" in said(capsys, toy, "metric=eval/kn/top1")
    fill(**{"eval/knn/top1": 0.4})
    told = refused(capsys, toy, "metric=eval/kn/top1", "scale=paper")
    assert "metric=eval/kn/top1: no run of toy at scale=paper has it: did you mean 'eval/knn/top1'?" in told


def test_points_are_of_shares(toy, capsys):
    fill(**{"health/rankme": 7.0})
    text = said(capsys, toy, "metric=health/rankme", "scale=paper")
    assert "health/rankme in points" not in text
    assert "7.00" in text
    assert "61.5" not in text  # the paper's accuracy


def test_many_comparisons_come_with_a_word(toy, capsys):
    assert "by chance" not in said(capsys, toy, "scale=paper")
    fill()
    text = said(capsys, toy, "scale=paper")
    assert "2 comparisons at 5%: about 0.1 of them by chance, were there no difference at all." in text


def test_a_run_without_the_metric_is_not_a_row_that_was_not_run(toy, capsys):
    for name in ("base", "more"):
        table = rows.asked([toy], ("table",)).table
        key = ledger.fingerprint(composed(table.rows[name].words["paper"]))
        told = {METRIC: 0.5} if name == "base" else {"eval/knn/top1": 0.5}
        ledger.append(Path("results/toy.jsonl"), line(name, 0, key, table="toy", scale="paper", metrics=told))
    text = said(capsys, toy, "scale=paper")
    assert "no such metric" in text
    assert "paper/only/seed-0" in text
    assert "paper/more/seed-0" not in text


def test_labels_are_no_markup(toy, capsys):
    node = yaml.safe_load(Path("toy.yaml").read_text())
    node["rows"][0] |= {"label": "[/x]", "group": "[/y]"}
    Path("toy.yaml").write_text(yaml.safe_dump({**node, "title": "[/z]", "source": "[/w]"}))
    text = said(capsys, toy)
    assert all(f"[/{letter}]" in text for letter in "xyzw")


def test_a_command_that_there_is_not_names_those_there_are(capsys):
    assert "'shwo' is not of the form key=value, nor a command: There is: dynamics, enter, pick, run." in refused(
        capsys, "shwo"
    )
    assert "did you mean 'pick'?" in refused(capsys, "pik", "runs/a")


def test_the_list_of_tables_stands_in_two_columns(capsys):
    assert main([]) == 0
    lines = [each for each in capsys.readouterr().out.splitlines() if each.startswith("  ")]
    (widest,) = {len(each) - len(each[2:].split("  ", 1)[1].lstrip()) for each in lines}
    assert widest > len("noncontrastive")
