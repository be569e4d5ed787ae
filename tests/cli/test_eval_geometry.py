"""stec-eval geometry on a run as training leaves it, only untrained: what is printed, drawn and written."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from test_eval import CROP, DATASET, SPEC, picture

from stec import build
from stec.cli import export
from stec.cli.eval import main
from stec.cli.source import untrained
from stec.shards.writer import write_split
from stec.training import checkpoint

MACHINE = ["--device", "cpu", "--num-workers", "0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("geometry")
    for split, meta in (("train", {"classes": SPEC["classes"]}), ("test", {"classes": SPEC["classes"]})):
        samples = ({"__key__": f"{i:04d}", "png": picture(i % 2, i), "cls": str(i % 2).encode()} for i in range(24))
        write_split(samples, root / "data" / split, name=split, meta=meta)
    torch.manual_seed(1)
    state = {"spec": SPEC, "step": 7, "model": build.model(SPEC).stec.state_dict(), "data": {"fingerprint": "abc"}}
    checkpoint.save(root / "run" / "checkpoints" / checkpoint.name(7), state)
    config = {"name": "toy", "data": str(root / "data"), "dataset": DATASET, "evaluation": {}}
    (root / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    return root / "run"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(run):
    """The run's, loaded once for all who only refuse something."""
    return build.load(str(run))


@pytest.fixture
def loaded(model, monkeypatch):
    monkeypatch.setattr(build, "load", lambda _source: model)


def measured(*words):
    assert main(["geometry", *map(str, words), *MACHINE, "--out", "found.json"]) == 0
    with open("found.json", encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def plain(run):
    """What is measured at the outputs that the run's encoder has already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.parent)
        return measured(run)["rows"]


def test_every_action_is_measured_at_every_output(run, plain, capsys):
    found = measured(run, "taps=layer1,layer2")
    assert found["num_samples"] == 24
    assert list(found["rows"]) == ["trained", "untrained"]
    done = ["affine_crop", "affine_crop: window", "affine_crop: mirrored", "grayscale", "all"]
    for outputs in found["rows"].values():
        assert list(outputs) == ["layer1", "layer2", "pooled", "projector"]
        for rows in outputs.values():
            assert list(rows) == ["plain", *done]
            assert rows["plain"]["within"] > 0
            for words in done:
                row, unit = rows[words], rows["plain"]
                assert row["per_within"] == pytest.approx(row["distance"] / unit["within"])
                assert row["per_between"] == pytest.approx(row["distance"] / unit["between"])
    # A nuisance that hardly changes these samples; and the network is another one than before "training".
    ours, before = found["rows"].values()
    assert ours["pooled"]["grayscale"]["distance"] < 0.1 * ours["pooled"]["affine_crop"]["distance"]
    assert ours["pooled"]["all"]["distance"] != before["pooled"]["all"]["distance"]
    said = capsys.readouterr().out
    assert "  mirrored " in said
    assert "2 classes, 24 samples" in said
    assert max(map(len, said.splitlines())) <= 80
    with Image.open("geometry.png") as drawn:
        assert drawn.height > drawn.width  # four outputs below each other
    # layer1 was no output while the encoder was trained: all others give what they gave.
    assert ours.pop("layer1")
    assert ours == plain["trained"]


def test_an_exported_folder_has_no_projector(run, plain, tmp_path):
    assert export.main([str(run), "--out", str(tmp_path / "exported")]) == 0
    alone = measured(tmp_path / "exported", f"data={run.parent / 'data'}")["rows"]
    assert set(alone["trained"]) == {"layer2", "pooled"}
    for words, row in plain["trained"]["pooled"].items():
        assert alone["trained"]["pooled"][words] == pytest.approx(row)
    assert main(["geometry", str(tmp_path / "exported"), f"data={run.parent / 'data'}", "taps=projector"]) == 2


def test_a_decoder_that_cuts_the_views_itself_is_given_the_still_action(run, tmp_path):
    spec = {**SPEC, "actions": {"affine_crop": {**CROP, "flip": 0.0}}, "decoder": {"name": "image_crop"}}
    state = checkpoint.load(next((run / "checkpoints").glob("*.ckpt")))
    checkpoint.save(tmp_path / "run" / "checkpoints" / checkpoint.name(7), {**state, "spec": spec})
    found = measured(tmp_path / "run", f"data={run.parent / 'data'}", "num_samples=20")
    assert found["num_samples"] == 20
    assert list(found["rows"]["trained"]["pooled"]) == ["plain", "affine_crop"]
    assert found["rows"]["trained"]["pooled"]["affine_crop"]["distance"] > 0


def test_umap_draws_the_picture_if_it_is_there(run, monkeypatch, capsys):
    class Fake:
        def __init__(self, *, n_components, random_state, n_jobs):
            assert (n_components, n_jobs) == (2, 1)

        def fit_transform(self, x):
            seen.append(x)
            return x[:, :2]

    seen: list[np.ndarray] = []
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Fake))
    assert main(["geometry", str(run), *MACHINE, "--umap", "--picture", "flat.png"]) == 0
    assert [len(x) for x in seen] == [48, 48, 48]  # 24 samples, plain and acted, at three outputs
    assert Path("flat.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "umap", None)
    assert main(["geometry", str(run), *MACHINE, "--umap"]) == 2
    assert "--umap needs the package umap-learn: pip install 'stec[umap]'." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["num_samples=1"], "num_samples=1 must be at least 2."),
        (["num_sample=9"], "num_sample is unknown: did you mean 'num_samples'?"),
        (["taps=layer9"], "encoder.taps: 'layer9' is unknown"),
        (["--picture", "nowhere/a.png"], "--picture nowhere/a.png: there is no folder"),
        (["--out", "nowhere/a.json"], "--out nowhere/a.json: there is no folder"),
        (["data=nowhere"], "data=nowhere: there is no such file or folder."),
    ],
)
@pytest.mark.usefixtures("loaded")
def test_slips_are_one_sentence(run, words, told, capsys):
    assert main(["geometry", str(run), *words, *MACHINE]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.usefixtures("loaded")
def test_samples_without_labels_are_refused(run, tmp_path, capsys):
    bare = ({"__key__": f"{i:04d}", "png": picture(0, i)} for i in range(8))
    write_split(bare, tmp_path / "bare" / "train", name="train", meta={})
    assert main(["geometry", str(run), f"data={tmp_path / 'bare'}", *MACHINE]) == 2
    assert "samples with labels of at least two classes are needed" in capsys.readouterr().err


def test_the_network_before_training_is_another_one_of_the_same_kind(model):
    begun = untrained(model)
    assert begun.encoder.dims == model.encoder.dims
    weights = zip(begun.encoder.parameters(), model.encoder.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in weights)
