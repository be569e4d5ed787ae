"""stec-train from its first step to its report, on a few small pictures, in this process."""

import json
import shutil

import pytest
from tiny_run import TINY, metrics, packed, same, weights

from stec import build
from stec.cli import eval as eval_command
from stec.cli import export as export_command
from stec.cli.train import main
from stec.identity.simclr import SimCLR
from stec.training import checkpoint


def test_a_run_ends_with_a_table_and_a_report(whole):
    table = json.loads((whole / "table.json").read_text())
    assert list(table["rows"]) == ["raw input", "untrained", "trained"]
    for row in table["rows"].values():
        assert {"eval/knn/top1", "eval/linear/top1", "health/rankme"} <= row.keys()
        assert sum(name.startswith("eval/action_bits/") for name in row) == 4
    assert table["rows"]["raw input"]["eval/knn/top1"] == 1.0  # colours
    page = (whole / "report.html").read_text()
    for words in ("my_images", "untrained", "raw input", f"stec-export {whole.name}"):
        assert words in page
    lines = [json.loads(line) for line in metrics(whole).splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 4, 6, 8, 10, 12]
    (last,) = [line for line in lines if "eval/knn/top1" in line]
    assert {name: last[name] for name in table["rows"]["trained"]} == table["rows"]["trained"]
    assert [path.name for path in checkpoint.stored(whole / "checkpoints")] == [
        checkpoint.name(step) for step in (9, 12)
    ]


def test_started_again_it_says_that_it_is_finished(whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert main([*TINY, "data=pictures", "run_dir=whole"]) == 0
    assert "whole: this run is finished" in capsys.readouterr().out
    changed = {path.name for path in whole.rglob("*") if path.stat().st_mtime_ns != before.get(path)}
    assert changed <= {"train.log", ".lock"}


def test_killed_before_its_report_it_only_tells_again(place, whole):
    shutil.copytree(whole, place / "untold", symlinks=True)
    (place / "untold" / "report.html").unlink()
    assert main([*TINY, "data=pictures", "run_dir=untold"]) == 0
    assert (place / "untold" / "report.html").stat().st_size > 10_000
    assert (place / "untold" / "table.json").read_text() == (whole / "table.json").read_text()
    assert metrics(place / "untold") == metrics(whole)


def test_from_its_shards_it_is_the_same_run_to_the_bit(place, whole):
    assert main([*TINY, f"data={packed(place)}", "run_dir=shards"]) == 0
    assert metrics(place / "shards") == metrics(whole)
    assert same(weights(place / "shards"), weights(whole))


def test_without_labels_the_table_speaks_of_actions_only(place, capsys):
    flat = place / "flat"
    flat.mkdir()
    for path in (place / "pictures").rglob("*.png"):
        shutil.copy(path, flat)
    assert main([*TINY, "data=flat", "run_dir=unlabelled", "manipulation.binned.yoked=true"]) == 0
    for row in json.loads((place / "unlabelled" / "table.json").read_text())["rows"].values():
        assert {name.split("/")[0] for name in row} == {"eval", "health"}
        assert {name.split("/")[1] for name in row if name.startswith("eval")} == {
            f"action_{kind}" for kind in ("bits", "acc", "chance", "majority")
        }
    assert "probe/online" not in metrics(place / "unlabelled")
    assert "A yoked control" in (place / "unlabelled" / "report.html").read_text()
    assert "the data has no labels: k-NN and linear are left out" in capsys.readouterr().out


def test_without_manipulation_model_and_held_out_samples(place, capsys):
    words = ["manipulation=none", "dataset.packer.holdout=0"]
    plain = [word for word in TINY if not word.startswith("manipulation.")]
    assert main([*plain, *words, "data=pictures", "run_dir=plain"]) == 0
    told = capsys.readouterr().out
    assert "no test split" in told
    assert "no held-out samples" in told
    rows = json.loads((place / "plain" / "table.json").read_text())["rows"]
    assert not any(name.startswith(("eval/knn", "eval/linear")) for name in rows["trained"])
    assert "train/loss_manip" not in metrics(place / "plain")
    assert (place / "plain" / "report.html").exists()


@pytest.mark.parametrize(
    ("word", "reads_group", "sentence"),
    [
        ("num_views=1", False, "num_views=1 is too few: this objective compares 2 views."),
        ("seed=3", True, "this objective asks which samples belong together, but the data has no member `group`."),
    ],
)
def test_what_an_objective_wants_of_the_data(word, reads_group, sentence, place, capsys, monkeypatch):
    monkeypatch.setattr(SimCLR, "reads_group", reads_group)
    assert main([*TINY, "data=pictures", "run_dir=wants", word]) == 2
    assert f"stec: error: {sentence}\n" in capsys.readouterr().err
    shutil.rmtree(place / "wants")


def test_a_loss_that_is_no_number_any_more_ends_the_run(place, capsys):
    words = ["data=pictures", "optimizer=sgd", "optimizer.lr=1e30", "run_dir=exploded"]
    assert main([*TINY, *words]) == 3
    told = capsys.readouterr().err
    assert "there is no checkpoint yet: try a lower optimizer.lr" in told
    assert told.count("\n") == 1


def test_damaged_shards_end_the_run(place, whole, capsys):
    shutil.copytree(packed(place), place / "torn")
    tar = next((place / "torn" / "train").glob("*.tar"))
    raw = bytearray(tar.read_bytes())
    tar.write_bytes(raw[:-1024])
    assert main([*TINY, "data=torn", "run_dir=torn-run", "dataset.max_bad=0"]) == 4
    assert f"{tar.name} has {len(raw) - 1024} bytes, the index says {len(raw)}" in capsys.readouterr().err
    at = raw.index(b"IDAT") + 8
    raw[at] ^= 1
    tar.write_bytes(raw)
    assert main([*TINY, "data=torn", "run_dir=torn-run", "dataset.max_bad=0"]) == 4
    told = capsys.readouterr().err
    assert f"{tar.name}: train-" in told
    assert told.count("\n") == 1


def test_a_sweep_is_a_run_for_each_value(place):
    words = ["data=pictures", "training.stop_after=2", "run_dir=sweep/${seed}"]
    assert main([*TINY, *words, "-m", "seed=1,2"]) == 0
    one, other = place / "sweep" / "1", place / "sweep" / "2"
    assert metrics(one).count("\n") == metrics(other).count("\n") == 2
    assert metrics(one) != metrics(other)
    for run in (one, other):
        assert "starting at step 0 of 12" in (run / "train.log").read_text()


def test_a_sweep_ends_with_its_first_failure(place, capsys):
    words = ["data=pictures", "run_dir=fails/${training.epochs}"]
    assert main([*TINY, *words, "-m", "training.epochs=-1,-2"]) == 2
    assert capsys.readouterr().err == "stec: error: training.epochs=-1 must be at least 1.\n"
    assert not (place / "fails").exists()


@pytest.mark.parametrize("source", ["checkpoint", "export"])
def test_weights_are_what_a_run_begins_with(source, place, whole):
    """The first step has rate 0: after it the parameters are those that were handed over."""
    if source == "export" and not (whole / "exported").exists():
        assert export_command.main([str(whole)]) == 0
    given = {"checkpoint": "whole/checkpoints/last", "export": "whole/exported"}[source]
    run = place / f"from-{source}"
    words = [f"weights={given}", "data=pictures", "seed=5", "training.stop_after=1", f"run_dir={run.name}"]
    assert main([*TINY, *words]) == 0
    names = [name for name, _ in build.load(str(whole)).encoder.named_parameters()]
    before, after = weights(whole), weights(run)
    assert same({name: before[f"encoder.{name}"] for name in names}, {name: after[f"encoder.{name}"] for name in names})


def test_stec_eval_finds_the_numbers_of_the_table_again(place, whole):
    words = ["whole", "--device", "cpu", "--num-workers", "0", "--out", "again.json"]
    assert eval_command.main(words) == 0
    again = json.loads((place / "again.json").read_text())["rows"]["whole"]
    # Not to the bit: while training, the weights lie in another memory format, and a reader is then trained on them.
    assert again == pytest.approx(json.loads((whole / "table.json").read_text())["rows"]["trained"], rel=1e-3, abs=1e-3)
