"""stec-report dynamics: the picture, the table of halves, and what is said of runs that cannot be read."""

import json

import pytest
import torch
from PIL import Image
from test_eval import SPEC

from stec import build
from stec.cli.dynamics import labels, read, run
from stec.errors import DataError, UsageError
from stec.training import checkpoint


@pytest.fixture
def begun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "a" / "seed-0"
    folder.mkdir(parents=True)
    lines = [
        {"step": step, "train/loss_id": 3 - step / 40, "train/action_bits/a": step / 40, "train/action_bits/b": 0.0}
        for step in range(0, 41, 10)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 5')
    return folder


def width(path):
    with Image.open(path) as picture:
        return picture.width


def test_runs_are_drawn_and_their_halves_are_told(begun, tmp_path, capsys):
    other = begun.with_name("[x]")
    other.mkdir()
    (other / "metrics.jsonl").write_text((begun / "metrics.jsonl").read_text())
    assert run([str(begun), str(other), "--out", "two.png"]) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines() if "│" in line]
    assert ["│", "seed-0", "│", "a", "│", "1.00", "bits", "│", "20", "│", "40", "│"] in rows
    assert ["│", "│", "b", "│", "0.00", "bits", "│", "-", "│", "40", "│"] in rows
    assert "picture: two.png" in said
    assert "without chance levels, which no checkpoint of it tells: seed-0, [x]" in said
    assert "│ [x] " in said
    two = width("two.png")
    assert run([str(begun)]) == 0
    assert width("dynamics.png") < two


def test_chance_is_what_the_model_says_of_itself(begun):
    assert read(begun, "run").chance == {}
    torch.manual_seed(0)
    stec = build.model(SPEC).stec
    state = {"spec": SPEC, "step": 7, "model": stec.state_dict(), "data": {"fingerprint": "abc"}}
    checkpoint.save(begun / "checkpoints" / checkpoint.name(7), state)
    assert read(begun, "run").chance["train/loss_manip"] == stec.chance()["train/loss_manip"]


def test_runs_are_called_by_what_tells_them_apart(tmp_path):
    assert labels([tmp_path / "a" / "seed-0", tmp_path / "b" / "seed-0"]) == ["a/seed-0", "b/seed-0"]
    assert labels([tmp_path / "a" / "0", tmp_path / "a" / "1"]) == ["0", "1"]
    assert labels([tmp_path / "a", tmp_path / "a" / "b"]) == ["a", "b"]
    assert labels([tmp_path / "a"]) == ["a"]


def test_without_bits_there_is_a_sentence_instead_of_a_table(begun, capsys):
    (begun / "metrics.jsonl").write_text('{"step": 1, "train/loss_id": 2.0}\n')
    assert run([str(begun)]) == 0
    assert "there are no action bits in their metrics" in capsys.readouterr().out


def test_what_cannot_be_read_or_written_is_one_sentence(begun, tmp_path):
    for text in ("", '{"step": 5', "\x00\x01", '{"step": 3, "eval/knn/top1": 0.5}\n'):
        (begun / "metrics.jsonl").write_text(text)
        with pytest.raises(DataError, match=r"metrics\.jsonl holds no readable line of a training"):
            run([str(begun)])
    with pytest.raises(UsageError, match=r"is no run: there is no metrics\.jsonl in it"):
        run([str(tmp_path)])
    with pytest.raises(UsageError, match=r"--out nowhere/a\.png: there is no folder"):
        run([str(begun), "--out", "nowhere/a.png"])
