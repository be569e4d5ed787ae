"""Every recipe: what its file says, what it composes to, and two steps of it on made-up pictures of the right size, or
made-up recordings."""

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from audio.toy_sound import write_corpus
from hydra import compose, initialize_config_dir
from PIL import Image

from stec import build
from stec.cli import composing
from stec.cli.recipes import listing, own
from stec.cli.train import main
from stec.experiment import Experiment
from stec.objective import FORWARD_VIEWS
from stec.shards.writer import write_split
from stec.training.run import Run, flat

NAMES = sorted(listing())
SOUND = [name for name in NAMES if name.startswith("librispeech") or name in ("my_audio", "speech_demo")]
TWINS = [name for name in NAMES if f"{name}_stec" in NAMES and name not in SOUND]
SOUND_TWINS = [name for name in SOUND if f"{name}_stec" in NAMES]
# Side of the pictures, format, batch size of the two steps; CIFAR's for those that are not named.
SIZES = {"imagenet": (256, "JPEG", 2), "stl10": (96, "WEBP", 4), "my_images": (96, "JPEG", 4)}
SMALL = (32, "WEBP", 8)
NUM_PICTURES = 8


def composed(*words: str) -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(own())):
        return composing.plain(compose("train", overrides=list(words)))


def head(name: str) -> list[str]:
    """The comment lines that a recipe opens with."""
    lines = (own() / "recipe" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Packs random pictures of a side and format, as all three splits; each kind once."""
    root = tmp_path_factory.mktemp("shards")

    def pack(side: int, kind: str) -> Path:
        if not (folder := root / f"{kind}-{side}").exists():
            numbers = np.random.default_rng(0)
            for split in ("train", "test", "unlabelled"):
                samples = [
                    {
                        "__key__": f"{i:02d}",
                        kind.lower().replace("jpeg", "jpg"): draw(numbers, side, kind),
                        "cls": b"%d" % (i % 3),
                    }
                    for i in range(NUM_PICTURES)
                ]
                write_split(samples, folder / split, name=split, meta={"classes": ["a", "b", "c"]})
        return folder

    return pack


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("recordings"), NUM_PICTURES, 2)


def draw(numbers: np.random.Generator, side: int, kind: str) -> bytes:
    file = io.BytesIO()
    small = numbers.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(file, kind, lossless=True)
    return file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_opens_with_what_it_is_its_evidence_and_its_command(name):
    lines = head(name)
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith("# One line: ")
    text = " ".join(line.removeprefix("# ") for line in lines)
    assert "Evidence: " in text
    assert re.search(rf"stec-train recipe={name}\b(?!_)", text)
    assert "Hardware: " in text


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_which_lambda_it_takes(name):
    weighted = bool(composed(f"recipe={name}")["manipulation"])
    assert any("lambda" in line for line in head(name)) == weighted


def says(name: str, key: str) -> Any:
    """What a recipe's own file says of a key, else the one it builds on; train.yaml is not asked."""
    node = yaml.safe_load((own() / "recipe" / f"{name}.yaml").read_text(encoding="utf-8"))
    roots = [one for one in node["defaults"] if isinstance(one, str) and one != "_self_"]
    return node.get(key, says(roots[0], key) if roots else None)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_which_form_of_batch_norm_it_takes_or_the_one_it_builds_on_does(name):
    assert says(name, "forward_views") in FORWARD_VIEWS


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_composes_to_a_configuration_that_fits(name):
    config = composed(f"recipe={name}")
    assert config["name"] == name
    assert config["forward_views"] == says(name, "forward_views")
    experiment = Experiment(config)
    own = "ti-0.03/" if name == "speech_demo" else ""  # it makes several runs
    assert experiment.settings.run_dir == f"runs/{name}/{own}seed-0"
    assert experiment.dataset.needs_data == (name not in ("quickstart", "speech_demo"))


def differing(one: str, other: str) -> dict[str, tuple[Any, Any]]:
    """{key: its value in each of two recipes} where they differ, but for their names."""
    plain, whole = (flat(composed(f"recipe={n}")) for n in (one, other))
    found = {key: (plain.get(key, "absent"), whole.get(key, "absent")) for key in plain.keys() | whole.keys()}
    assert found["name"] == (one, other)
    return {key: pair for key, pair in found.items() if pair[0] != pair[1] and key not in ("name", "run_dir")}


@pytest.mark.parametrize("name", TWINS)
def test_the_baseline_differs_in_the_manipulation_model_only(name):
    assert all(key.startswith("manipulation.") for key in differing(name, f"{name}_stec"))
    whole = flat(composed(f"recipe={name}_stec"))
    assert composed(f"recipe={name}")["manipulation"] == {}
    assert (whole["manipulation.binned.bins"], whole["manipulation.binned.yoked"]) == ("equal_mass", False)
    assert whole["actions.affine_crop.frame"] == "ego"


def test_there_is_a_baseline_for_every_recipe_of_the_paper():
    small = [f"cifar100_small_{method}" for method in ("barlow", "byol", "relic", "simclr", "vicreg")]
    large = [f"cifar100_{method}" for method in ("byol", "relic", "simclr")] + ["imagenet_relic", "imagenet_simclr"]
    assert set(TWINS) == {*small, *large, "cifar10_simclr", "stl10_simclr"}


@pytest.mark.parametrize("name", SOUND_TWINS)
def test_the_recipes_of_sound_differ_in_one_term_each(name):
    added = differing(name, f"{name}_stec")
    assert added["identity.time_insensitive.weight"] == ("absent", 0.03)
    assert all(key.startswith("identity.time_insensitive.") for key in added)
    asked = differing(f"{name}_stec", f"{name}_stec_offset")
    assert asked.pop("actions.temporal_window.max_offset") == (None, 2.0)
    assert asked["manipulation.binned.weight"] == ("absent", 1.0)
    assert all(key.startswith("manipulation.binned.") for key in asked)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_chosen_on_the_command_line_is_all_there_is(name):
    """Though a recipe says something of a model that was not chosen."""
    config = composed(f"recipe={name}", "manipulation=none", "identity=simclr")
    assert (config["manipulation"], list(config["identity"])) == ({}, ["simclr"])
    assert Experiment(config).spec["manipulation"] == {}


@pytest.mark.parametrize("name", [name for name in SOUND if "small" in name])
def test_the_small_recipes_of_sound_can_be_tried_for_an_epoch(name):
    Experiment(composed(f"recipe={name}", "training.epochs=1"))


def test_what_is_said_of_a_model_that_was_not_chosen_is_told(capsys):
    composed("recipe=quickstart")
    assert capsys.readouterr().err == ""
    composed("recipe=quickstart", "manipulation=none")
    assert capsys.readouterr().err.startswith("manipulation.binned: left out, no such model is chosen")


def test_the_offset_can_be_that_of_frames():
    config = composed("recipe=librispeech_cpc_stec_offset", "manipulation=frame_offset")
    assert set(config["manipulation"]) == {"frame_offset"}
    Experiment(config)


def test_the_demonstration_trains_with_and_without_the_second_model():
    with initialize_config_dir(version_base="1.3", config_dir=str(own())):
        node = compose("train", overrides=["recipe=speech_demo"], return_hydra_config=True)
    assert node.hydra.mode.name == "MULTIRUN"
    assert node.hydra.sweeper.params == {"identity.time_insensitive.weight": "0,0.03"}
    assert composed("recipe=speech_demo")["identity"]["time_insensitive"]["weight"] == 0.03
    control = composed("recipe=speech_demo", "identity.time_insensitive.weight=0")
    # The row of the second run's table is the first run.
    assert composed("recipe=speech_demo")["evaluation"]["baselines"]["cpc"] == control["run_dir"]


def test_the_published_recipe_is_the_authors_release():
    config = composed("recipe=cifar100_simclr_stec_published", "encoder.width=4")
    assert config["actions"]["affine_crop"]["frame"] == "published"
    assert config["forward_views"] == "joint"
    assert (config["identity"]["simclr"]["weight"], config["manipulation"]["binned"]["weight"]) == (2.0, 1.0)
    spec = {**Experiment(config).spec, "extents": [[32, 32]], "classes": [], "num_classes": 0}
    stec = build.model(spec).stec
    assert stec.weights == {"identity.simclr": 2.0, "manipulation.binned": 1.0}
    term = stec.manipulation["binned"]
    assert (term.bins.kind, len(term.components), term.dropped, term.pairs) == ("published", 6, (), ((0, 1),))
    assert float(term.bins.chance.mean()) == pytest.approx(1.028, abs=0.01)
    assert float(term.bins.majority.mean()) == pytest.approx(0.553, abs=0.005)
    assert torch.equal(term.bins.num_bins, torch.full((6,), 6))


# Of twins, the one that asks both questions: what the other does is a part of it.
ONCE = [pytest.param(name, marks=[pytest.mark.slow] * (name in (*TWINS, *SOUND_TWINS))) for name in NAMES]


@pytest.mark.parametrize("name", ONCE)
def test_two_steps_of_a_recipe(name, shards, recordings, tmp_path, monkeypatch):
    """Through the command line, on real encoders. Untrained, the manipulation model is near an even guess, ln 6."""
    monkeypatch.setattr(Run, "save", lambda *_, **__: None)  # hundreds of megabytes, and nobody looks
    config = composed(f"recipe={name}")
    if name in SOUND:
        data, batch_size = recordings, 2
    else:
        side, kind, batch_size = SIZES.get(config["dataset"]["name"], SMALL)
        data = shards(side, kind)
    words = [
        f"data={data}",
        f"run_dir={tmp_path}",
        f"batch_size={batch_size}",
        "hardware=cpu",
        "hardware.num_workers=0",
        "training.stop_after=2",
        "training.log_every=1",
        "hydra.mode=RUN",  # of a recipe that sweeps, the last run
    ]
    assert main([f"recipe={name}", *words]) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    for line in lines:
        assert math.isfinite(line["train/loss"])
        assert line["train/loss_id"] > (-1 if "simsiam" in config["identity"] else 0)  # its loss is minus a cosine
    if "binned" in config["manipulation"]:
        assert lines[0]["train/loss_manip"] == pytest.approx(math.log(6), abs=0.5)
        # It is measured at the pooled features, which models of sequences do not read.
        assert 0 < lines[0]["train/grad_share_manip"] <= 1
        assert name in SOUND or lines[0]["train/grad_share_manip"] < 1
