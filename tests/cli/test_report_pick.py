"""stec-report pick: the table, and the sentence that recommends a weight."""

import json
from pathlib import Path

import pytest
import yaml

from stec.cli.pick import run
from stec.errors import UsageError


@pytest.fixture
def scan(tmp_path):
    """Folders of runs with these weights, whose k-NN and number of test samples are given."""

    def make(scores, num_test=None):
        folders = []
        for number, (weight, knn) in enumerate(scores):
            folder = tmp_path / str(number)
            folder.mkdir(exist_ok=True)
            config = {"seed": number, "manipulation": {"binned": {"weight": weight}}}
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            row = {"eval/knn/top1": knn, "eval/linear/top1": 0.7, "eval/phone/acc": 0.25, "eval/action_bits/a": 0.5}
            (folder / "table.json").write_text(json.dumps({"rows": {"trained": row}, "num_test": num_test}))
            (folder / "metrics.jsonl").write_text('{"step": 1, "train/grad_share_manip": 0.125}\n')
            folders.append(str(folder))
        return folders

    return make


def said(capsys, *words):
    assert run(list(words)) == 0
    return capsys.readouterr().out


def test_a_line_for_each_weight_and_the_largest_near_the_best(scan, capsys):
    out = said(capsys, *scan([(3, 0.498), (1, 0.5), (1, 0.502), (10, 0.4)], num_test=10_000))
    rows = [" ".join(line.replace("│", " ").split()) for line in out.splitlines() if "│" in line]
    assert rows == [
        "1 2 50.1 % ± 0.1 70.0 % 0.50 bits 0.125",
        "3 1 49.8 % 70.0 % 0.50 bits 0.125",
        "10 1 40.0 % 70.0 % 0.50 bits 0.125",
    ]
    assert out.splitlines()[-1] == (
        "Take manipulation.binned.weight=3: the largest weight whose eval/knn/top1 (49.8 %) is within the noise "
        "(0.5 points, the standard error on 10,000 test samples) of the best (50.1 % at 1)."
    )


def test_the_end_of_a_scan_is_told(scan, capsys):
    out = said(capsys, *scan([(1, 0.5), (3, 0.499)]))
    assert "of the best (50.0 % at 1). It is the largest of these: larger ones may do as well." in out
    assert "the number of test samples is not known" in out
    out = said(capsys, *scan([(1, 0.5), (3, 0.6)]))
    assert "Take manipulation.binned.weight=3: the best eval/knn/top1 (60.0 %) and the largest of these" in out


def test_a_best_that_none_comes_near_is_taken(scan, capsys):
    out = said(capsys, *scan([(1, 0.5), (3, 0.4)]), "--noise", "1")
    assert "weight=1: the best eval/knn/top1 (50.0 %), and all larger weights are below it by more than" in out
    assert "(1 points, as --noise says)" in out


def test_another_metric_may_decide(scan, capsys):
    out = said(capsys, *scan([(1, 0.5), (3, 0.1)]), "--metric", "eval/phone/acc")
    assert "Take manipulation.binned.weight=3" in out
    assert "eval/phone/acc" in out
    assert "25.0 %" in out


def test_the_help_and_a_single_run_tell_how_runs_are_made(scan, capsys):
    with pytest.raises(SystemExit):
        run(["--help"])
    assert "'run_dir=runs/scan/${manipulation.binned.weight}-${seed}'" in capsys.readouterr().out
    with pytest.raises(UsageError, match="stec-train -m recipe=RECIPE"):
        run(scan([(1, 0.5)]))
    with pytest.raises(UsageError, match="--noise -1 must be at least 0 points"):
        run([*scan([(1, 0.5), (3, 0.5)]), "--noise", "-1"])


def test_seeds_that_differ_between_weights_are_told(scan, capsys):
    assert "The seeds are not the same at all weights" in said(capsys, *scan([(1, 0.5), (3, 0.4)]))
    folders = scan([(1, 0.5), (3, 0.4)])
    for folder, weight in zip(folders, (1, 3), strict=True):
        config = {"seed": 0, "manipulation": {"binned": {"weight": weight}}}
        (Path(folder) / "config.yaml").write_text(yaml.safe_dump(config))
    assert "The seeds" not in said(capsys, *folders)
