"""The words given to stec-train: what they compose, and the sentence that each slip ends in."""

import subprocess
import sys

import pytest
from tiny_run import TINY

from stec.catalogue import CORE
from stec.cli.train import main


def test_bare_it_lists_the_recipes(capsys):
    assert main([]) == 0
    told = capsys.readouterr().out
    assert "  my_images " in told
    assert "  cifar100_simclr_stec_published     S-TEC on CIFAR-100 " in told
    assert main(["recipe=quickstart", "--help"]) == 0
    assert capsys.readouterr().out == told


VIT = "recipe=my_images data=pictures hardware.num_workers=0 encoder=timm/vit_tiny_patch16_224 encoder.image_size=32"
SLIPS = {
    "recipe=my_imags": "recipe=my_imags is unknown: did you mean 'my_images'? There is: ",
    "data=pictures": "no recipe chosen: recipe=NAME is needed. There is: ",
    "recipe=my_images": "my_images needs data=PATH",
    "recipe=my_images data=": "my_images needs data=PATH",
    "recipe=my_images data=nowhere": "data=nowhere: there is no such file or folder.",
    "recipe=my_images data=pictures encoder.widht=4": "encoder.widht is unknown: did you mean 'width'? There is: ",
    "recipe=my_images manipulation.tap=layer3": "manipulation.tap is unknown: did you mean manipulation.binned.tap?",
    "recipe=my_images lr=1": "lr is unknown: did you mean optimizer.lr?",
    "recipe=my_images identity=[cpc,simclr] identity.hidden=9": "identity.hidden is unknown: did you mean identity.",
    "recipe=my_images data=pictures actions.solarize.views=[2]": "num_views=2 is too few for actions.solarize: ",
    VIT: "encoder.model='vit_tiny_patch16_224': images of 64x64 pixels came, but it is built for 32x32: ",
    "recipe=my_images encodr=timm": "encodr is unknown: did you mean 'encoder'? There is: ",
    "recipe=my_images encoder=resnet18_smal": "encoder=resnet18_smal is unknown: did you mean 'resnet18_small'? There",
    "recipe=my_images identity=[cpc,simcr]": "identity=simcr is unknown: did you mean 'simclr'? There is: ",
    "recipe=my_images encoder=null": "encoder=null: a group takes the name of one of its files",
    "recipe=cifar10_simclr ~encoder": "encoder is missing: choose one with encoder=NAME.",
    "recipe=my_images dataset.decoder=null": "dataset.decoder=None has the wrong type: a group of keys was expected.",
    "recipe=my_images batch_size=many": "batch_size='many' has the wrong type: int was expected.",
    "recipe=my_images training.epochs=1.5": "training.epochs=1.5 has the wrong type: int was expected.",
    "recipe=my_images training.epochs=0": "training.epochs=0 must be at least 1.",
    "recipe=my_images seed=-1": "seed=-1 must be at least 0 and below 2^31.",
    "recipe=my_images +new.key=1": "new is unknown: There is: ",
    "recipe=my_images +training.speed=1": "training.speed is unknown: There is: ",
    "recipe=my_images nam=1": "nam is unknown: did you mean 'name'? There is: ",
    "recipe=my_images batch_size": "batch_size is not of the form key=value",
    "recipe=my_images name=[1": "name=[1 is not of the form key=value, or its value must be quoted twice",
    "recipe=my_images run_dir=${nme}": "run_dir: Interpolation key 'nme' not found.",
    "recipe=my_images seed=0,1": "Ambiguous value for argument 'seed=0,1'",
    "recipe=my_images data=pictures run_dir=pictures/colour-0/00.png": "run_dir=pictures/colour-0/00.png cannot be",
    "recipe=my_images data=pictures weights=nowhere": "nowhere: neither a run directory, a .ckpt file, ",
    "recipe=my_images data=pictures resume=nowhere": "nowhere",
    "recipe=my_images --config-dir nowhere": "Additional config directory",
}


@pytest.mark.parametrize("words", [["identity=nothing"], ["identity=[cpc,nothing]"]])
def test_an_unknown_name_ends_in_one_sentence_alone_or_in_a_list(words, tmp_path, capsys):
    (tmp_path / "my own" / "identity").mkdir(parents=True)
    (tmp_path / "my own" / "identity" / "ours.yaml").write_text("ours: {}\n")
    assert main(["recipe=my_images", *words, "--config-dir", str(tmp_path / "my own")]) == 2
    there_is = ", ".join(sorted({*CORE["identity"], "none", "ours"}))
    assert capsys.readouterr().err == f"stec: error: identity=nothing is unknown: There is: {there_is}.\n"


@pytest.mark.parametrize("line", SLIPS)
def test_a_slip_is_one_sentence(line, place, capsys):
    assert main(line.split()) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"stec: error: {SLIPS[line]}")
    assert told.count("\n") == 1


def test_a_slip_in_a_process_of_its_own_leaves_no_traceback(place):
    words = [*TINY, "data=pictures", "optimizer.lr=fast"]
    ended = subprocess.run([sys.executable, "-m", "stec.cli.train", *words], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "stec: error: optimizer.lr='fast' has the wrong type: float was expected.\n"
    assert ended.stdout == ""


def test_a_fault_of_ours_keeps_its_traceback(place, monkeypatch):
    def broken(config):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("stec.experiment.run", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        main(["recipe=my_images"])


# -- what a configuration is made of -------------------------------------------------------------------------------


def test_cfg_job_shows_all_keys_and_runs_nothing(place, capsys):
    assert main(["recipe=my_images", "encoder=timm/resnet18", "--cfg", "job"]) == 0
    told = capsys.readouterr().out
    assert "encoder:\n  name: timm\n  model: resnet18\n" in told
    assert "run_dir: runs/${name}/seed-${seed}\n" in told


def test_a_recipe_of_the_users_own(place, tmp_path, capsys):
    (tmp_path / "recipe").mkdir()
    recipe = tmp_path / "recipe" / "ours.yaml"
    recipe.write_text("defaults:\n  - my_images\n  - _self_\nname: ours\nseed: 7\n")
    words = ["recipe=ours", "--config-dir", str(tmp_path)]
    assert main(words) == 2
    assert "must begin with the line '# @package _global_'" in capsys.readouterr().err
    recipe.write_text(f"# @package _global_\n{recipe.read_text()}")
    assert main([*words, "--cfg", "job"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("name: ours\nseed: 7\nbatch_size: 128\nnum_views: 2\n")
    assert "  name: image_folder\n" in told


def test_paths_are_taken_as_they_are_written(place, monkeypatch):
    """Whatever hydra would read in them: lists, sweeps, numbers, numbers without their zeros."""
    found = {}
    monkeypatch.setattr("stec.experiment.run", found.update)
    monkeypatch.setenv("HOME", str(place))
    for name in ("Summer, 2024 (1)", "007", "[a]", "x=y", "null", 'say "x"'):
        (place / name).mkdir()
        assert main(["recipe=my_images", f"data={name}"]) == 0
        assert found["data"] == name
    assert main(["recipe=my_images", "data=~/pictures"]) == 0
    assert found["data"] == str(place / "pictures")
