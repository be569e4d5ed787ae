"""stec-eval and stec-export on a run as training leaves it, only untrained: checkpoint, configuration, shards."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from stec import build, catalogue
from stec.cli import eval as command
from stec.cli import export as export_command
from stec.cli.eval import main
from stec.shards.writer import write_split
from stec.training import checkpoint

CROP = {"size": 16, "scale": [0.2, 1.0], "ratio": [0.75, 1.333], "flip": 0.5}
DATASET = {
    "name": "toy",
    "needs_data": True,
    "packer": {"name": "image_folder"},
    "decoder": {"name": "image"},
    "picture": {"name": "boxes"},
}
SPEC = {
    "format": build.SPEC_FORMAT,
    "actions": {"affine_crop": CROP, "grayscale": {"p": 0.5}},
    "encoder": {"name": "resnet", "width": 4, "taps": ["layer2"]},
    "decoder": DATASET["decoder"],
    "picture": DATASET["picture"],
    "identity": {"simclr": {"hidden": 8, "out": 5}},
    "manipulation": {"binned": {"hidden": 8}},
    "forward_views": "joint",
    "extents": [[20, 24]],
    "classes": ["left", "lower"],
    "num_classes": 2,
}


def picture(label: int, number: int) -> bytes:
    """Noise, and one half of it light: the left one (0) or the lower one (1)."""
    x = np.random.default_rng(number).integers(0, 60, (20, 24, 3))
    x[(slice(10, None), slice(None)) if label else (slice(None), slice(0, 12))] += 120
    file = io.BytesIO()
    Image.fromarray(x.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Shards and a run directory with a checkpoint."""
    root = tmp_path_factory.mktemp("cli")
    for split, num, start in (("train", 60, 0), ("test", 40, 100)):
        samples = (
            {"__key__": f"{i:04d}", "png": picture(i % 2, start + i), "cls": str(i % 2).encode()} for i in range(num)
        )
        write_split(samples, root / "data" / split, name=split, meta={"classes": SPEC["classes"]})
    torch.manual_seed(0)
    model = build.model(SPEC)
    run = root / "run"
    state = {"spec": SPEC, "step": 7, "model": model.stec.state_dict(), "data": {"fingerprint": "abc", "seed": 3}}
    checkpoint.save(run / "checkpoints" / checkpoint.name(7), state)
    quick = {"train_pairs": 50, "action": {"epochs": 2, "hidden": 16}, "linear": {"grid": [0.1, 1.0]}}
    evaluation = {"online_probe": True, "baselines": None, **quick}
    config = {"name": "toy", "data": str(root / "data"), "dataset": DATASET, "evaluation": evaluation}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    rows = {"trained": {"eval/knn/top1": 0.75}}
    (run / "table.json").write_text(json.dumps({"rows": rows, "protocol": {"eval/knn": "k=20"}}))
    return root


def measured(root, *words) -> dict:
    assert main([*map(str, words), "--device", "cpu", "--num-workers", "0", "--out", str(root / "out.json")]) == 0
    return json.loads((root / "out.json").read_text())


def test_a_run_is_measured_on_its_own_data(place, capsys):
    found = measured(place, place / "run", "knn.k=3", "--baselines")
    assert list(found["rows"]) == ["raw input", "untrained", str(place / "run")]
    row = found["rows"][str(place / "run")]
    assert found["rows"]["raw input"]["eval/knn/top1"] == 1.0
    assert {"eval/knn/top1", "eval/linear/top1", "eval/action_bits/linear_xx", "health/rankme"} <= row.keys()
    assert "k=3" in found["protocol"]["eval/knn"]
    assert "50 train" in found["protocol"]["eval/action"]
    said = capsys.readouterr().out
    for words in ("health/std", "eval/action_acc", "chance", "50.0%", "k=3"):
        assert words in said


def test_probes_are_read_as_a_run_names_them_and_as_the_command_line_says(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(catalogue.CORE, "probe", {"toy_kind": "toy_probe:Kind"})
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    compared = {"other": str(place / "run"), "gone": str(tmp_path / "gone")}
    config["evaluation"] |= {"probes": {"kind": {"name": "toy_kind"}}, "baselines": compared, "raw_input": False}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    found = measured(tmp_path, run, "action=null", "probes.kind.flip=true", "--baselines")
    capsys.readouterr()
    assert list(found["rows"]) == ["untrained", "other", str(run)]
    row = found["rows"][str(run)]
    assert row["eval/kind/acc"] > row["eval/kind/majority"] == 0.5
    assert found["rows"]["other"]["eval/kind/acc"] == row["eval/kind/acc"]
    assert not any(name.startswith("eval/action") for name in row)
    assert found["protocol"]["eval/kind"].startswith("the kind of a picture; logistic regression")
    words = ["knn=null", "linear=null", "action=null", "probes.kind.reader=adam", "probes.also.name=toy_kind"]
    assert {"eval/kind/acc", "eval/also/acc"} < measured(tmp_path, run, *words)["rows"][str(run)].keys()
    said = capsys.readouterr().out
    assert "eval/kind/acc" in said
    assert "majority" not in said
    assert "50.0%" in said  # as what a guesser gets
    assert "eval/kind: the kind of a picture; linear softmax by Adam" in said


def test_checkpoint_export_and_run_are_one_model(place, capsys):
    run = place / "run"
    assert export_command.main([str(run)]) == 0
    assert f"build.load('{run / 'exported'}')" in capsys.readouterr().out
    file = run / "checkpoints" / checkpoint.name(7)
    quick = ["train_pairs=50", "action.epochs=2", "action.hidden=16", "linear.grid=[0.1,1.0]"]
    rows = [
        measured(place, source, *words)["rows"][str(source)]
        for source, words in (
            (run, []),
            (file, []),
            (run / "exported", [f"data={place / 'data'}", *quick]),
        )
    ]
    assert rows[0] == rows[1]
    assert 0 <= rows[0].pop("eval/online/top1") <= 1  # the probe stays with the run
    assert rows[0] == rows[2]
    told = json.loads((run / "exported" / "stec.json").read_text())
    assert told["metrics"] == {"eval/knn/top1": 0.75}
    assert told["facts"]["data fingerprint"] == "abc"
    assert told["facts"]["steps"] == "7"


def test_the_averaged_encoder_is_exported_on_request(place, tmp_path, capsys):
    file = place / "run" / "checkpoints" / checkpoint.name(7)
    assert export_command.main([str(file), "--ema", "--out", str(tmp_path / "none")]) == 2
    assert "training.ema" in capsys.readouterr().err
    state = checkpoint.load(file)
    averaged = {name: t + 1 for name, t in build.load(str(file)).encoder.state_dict().items()}
    kept = tmp_path / "run" / "checkpoints" / checkpoint.name(7)
    checkpoint.save(kept, {**state, "ema": averaged})
    assert export_command.main([str(kept), "--ema", "--out", str(tmp_path / "out")]) == 0
    found = build.load(str(tmp_path / "out")).encoder.state_dict()
    assert all(torch.equal(found[name], averaged[name]) for name in averaged)


def test_taps(place):
    run = place / "run"
    rows = [measured(place, run, *words)["rows"][str(run)] for words in ([], ["tap=layer2"], ["tap=projector"])]
    assert rows[2]["health/rankme"] <= 5 == SPEC["identity"]["simclr"]["out"]
    assert len({row["health/std"] for row in rows}) == 3


def test_what_is_packed_and_left_out_is_told_on_stderr(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("STEC_CACHE", str(tmp_path / ".cache"))
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(picture(0, 0))
    words = [place / "run", f"data={tmp_path}", "packer=image_folder", "--num-workers", "0"]
    assert main([*map(str, words)]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"packing {tmp_path} into ")
    assert "the data has no labels: k-NN and linear are left out." in told
    assert len(told) == len(set(told))


def test_any_layer_is_read_though_the_run_did_not_name_it(place):
    layer = measured(place, place / "run", "tap=layer3")["rows"][str(place / "run")]
    assert layer["health/std"] != measured(place, place / "run")["rows"][str(place / "run")]["health/std"]
    model, again = build.load(str(place / "run"), "layer3"), build.load(str(place / "run"))
    x = torch.rand(2, 3, 20, 24)
    assert model.encoder(x).layers["layer3"].shape == (2, 16)
    assert torch.equal(model.encoder(x).pooled, again.encoder(x).pooled)
    assert list(again.encoder(x).layers) == ["layer2"]


def test_the_papers_sgd_protocol_sees_new_views_of_every_sample_in_each_epoch(place, monkeypatch):
    asked = {}

    def fit(features, test, *, epochs: int = 100) -> float:
        asked.update(tables=[features(0), features(1), features(0)], test=test, epochs=epochs)
        return 0.25

    monkeypatch.setattr(command, "sgd", fit)
    found = measured(place, place / "run", "sgd.epochs=3")
    assert found["rows"][str(place / "run")]["eval/linear_sgd/top1"] == 0.25
    assert "SGD" in found["protocol"]["eval/linear_sgd"]
    assert asked["epochs"] == 3
    first, second, again = asked["tables"]
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, second.x)
    assert first.y.bincount().tolist() == [30, 30]
    assert len(asked["test"].y) == 40
    assert measured(place, place / "run", "--sgd")["rows"][str(place / "run")]["eval/linear_sgd/top1"] == 0.25
    assert asked["epochs"] == 100


def test_what_was_done_between_two_pictures(place, capsys):
    for number, name in enumerate("ab"):
        (place / f"{name}.png").write_bytes(picture(number, number))
    words = ["action", place / "a.png", place / "b.png", "--model", place / "run", "--out", place / "answer.png"]
    assert main([*map(str, words)]) == 0
    said = capsys.readouterr().out
    assert f"{place / 'a.png'} -> {place / 'b.png'}: " in said
    assert "…" not in said  # all of the table can be read on 80 columns
    assert "half-windows" in said
    with Image.open(place / "answer.png") as answer:
        assert answer.width > 100


def test_the_help_promises_no_more_of_a_file_than_the_evaluation_sees(capsys):
    with pytest.raises(SystemExit):
        main(["action", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "as the evaluation sees it" in told
    assert "whole" not in told


def test_a_picture_is_looked_at_as_a_whole_whatever_its_size(place):
    model = build.load(str(place / "run"))
    small = command.action._look(model, picture(1, 0), place)
    assert small.shape == (1, 3, 16, 16)
    file = io.BytesIO()
    Image.open(io.BytesIO(picture(1, 0))).resize((240, 200), Image.Resampling.NEAREST).save(file, "PNG")
    assert torch.allclose(command.action._look(model, file.getvalue(), place), small, atol=0.05)


def test_slips_end_in_a_sentence(place, capsys, tmp_path):
    run, data = str(place / "run"), f"data={place / 'data'}"
    shutil.copytree(place / "run", tmp_path / "alone", ignore=shutil.ignore_patterns("checkpoints"))
    export_command.main([run, "--out", str(tmp_path / "exported")])
    exported = str(tmp_path / "exported")
    (tmp_path / "a.png").write_bytes(picture(0, 0))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    image, bad, nowhere = (str(tmp_path / name) for name in ("a.png", "bad.png", "nowhere/answer.png"))
    capsys.readouterr()
    for code, sentence, words in (
        (2, "neither a run directory", ["nowhere", data]),
        (2, "no usable checkpoint", [str(tmp_path / "alone")]),
        (2, "evaluation.kn is unknown: did you mean 'knn'?", [run, "kn.k=3"]),
        (2, "evaluation.knn.k=0", [run, "knn.k=0"]),
        (2, "evaluation.knn=3 has the wrong type", [run, "knn=3"]),
        (2, "key=value", [run, "fast"]),
        (2, "sgd.foo is unknown", [run, "sgd.foo=1"]),
        (2, "encoder.taps: 'layr3' is unknown: did you mean 'layer3'?", [run, "tap=layr3"]),
        (2, "data=PATH is needed: timm/resnet18", ["timm/resnet18"]),
        (2, "no projector", [exported, "tap=projector", data]),
        (2, "data=PATH is needed", [exported]),
        (2, "packer=NAME", [exported, f"data={tmp_path}"]),
        (2, "packer='image_foldr' is unknown: did you mean 'image_folder'", [run, "packer=image_foldr"]),
        (2, "cannot be read", ["action", image, str(tmp_path / "c.png"), "--model", run]),
        (4, "bad.png", ["action", image, bad, "--model", run]),
        (2, "answer.png cannot be written: No such", ["action", image, image, "--model", run, "--out", nowhere]),
    ):
        assert main(words) == code, words
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
    assert export_command.main([image]) == 2
    assert "neither a run directory nor a checkpoint" in capsys.readouterr().err
    assert export_command.main([str(tmp_path / "alone")]) == 2
    assert "no checkpoint in it" in capsys.readouterr().err


def test_a_model_without_a_manipulation_model_cannot_be_asked(place, tmp_path, capsys):
    model = build.load(str(place / "run"))
    from stec.export import export

    export(tmp_path / "alone", {**model.spec, "manipulation": {}}, model.encoder)
    (tmp_path / "a.png").write_bytes(picture(0, 0))
    image = str(tmp_path / "a.png")
    assert main(["action", image, image, "--model", str(tmp_path / "alone")]) == 2
    assert "no manipulation model" in capsys.readouterr().err
