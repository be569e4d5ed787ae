"""stec-train as a user calls it: slips end in a sentence, runs end in a report, and what was interrupted goes on.

In this process where possible; in processes of their own where a signal, an exit code or a rank is the point.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stec import build
from stec.cli import eval as eval_command
from stec.cli import export as export_command
from stec.cli.train import main
from stec.shards.reader import find_split
from stec.training import checkpoint
from stec.training.lock import Lock

TINY = [
    "recipe=my_images",
    "hardware=cpu",
    "hardware.num_workers=0",
    "batch_size=8",
    "actions.affine_crop.size=16",
    "encoder.width=4",
    "identity.hidden=16",
    "identity.out=8",
    "manipulation.hidden=16",
    "training.epochs=2",
    "training.warmup_epochs=0.5",
    "training.log_every=2",
    "training.checkpoint_every=3",
    "evaluation={baseline: null, train_pairs: 40, test_pairs: 20}",
    "evaluation.linear.grid=[0.1]",
    "evaluation.action={hidden: 16, epochs: 2}",
]

# A command line with something that happens after a given step, just before the next one begins.
SCRIPT = """
import os, signal, sys
from stec.cli.train import main
from stec.training.run import Run
what, when, advance = sys.argv[1], int(sys.argv[2]), Run.advance
def happens(run, step):
    advance(run, step)
    if step == when:
        if what == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        print("now", flush=True)
        sys.stdin.readline()
Run.advance = happens
sys.exit(main(sys.argv[3:]))
"""


def draw(folder: Path, num: int = 60) -> Path:
    """Smooth pictures of 40 x 44, three colours of them; in a folder for each colour."""
    numbers = np.random.default_rng(0)
    for i in range(num):
        small = numbers.integers(0, 90, (4, 4, 3))
        small[..., i % 3] += 120
        path = folder / f"colour-{i % 3}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small.astype(np.uint8)).resize((44, 40), Image.Resampling.BILINEAR).save(path)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with pictures/; what is packed goes to cache/, and runs/ is where commands find themselves."""
    root = tmp_path_factory.mktemp("train")
    draw(root / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEC_CACHE", str(root / "cache"))
        patch.chdir(root)
        yield root


@pytest.fixture(scope="module")
def whole(place):
    """A run from its beginning to its end."""
    assert main([*TINY, "data=pictures", "run_dir=whole"]) == 0
    return place / "whole"


def metrics(run: Path) -> str:
    return (run / "metrics.jsonl").read_text()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(run / "checkpoints" / "last")["model"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(t, other[name]) for name, t in one.items())


# -- what a user can get wrong -------------------------------------------------------------------------------------


def test_bare_it_lists_the_recipes(capsys):
    assert main([]) == 0
    told = capsys.readouterr().out
    assert "  my_images " in told
    assert "  cifar100_simclr_stec_published  S-TEC on CIFAR-100 exactly as the authors' release" in told
    assert main(["recipe=quickstart", "--help"]) == 0
    assert capsys.readouterr().out == told


SLIPS = {
    "recipe=my_imags": "recipe=my_imags is unknown: did you mean 'my_images'? There is: ",
    "data=pictures": "no recipe chosen: recipe=NAME is needed. There is: ",
    "recipe=my_images": "my_images needs data=PATH",
    "recipe=my_images data=": "my_images needs data=PATH",
    "recipe=my_images data=nowhere": "data=nowhere: there is no such file or folder.",
    "recipe=my_images data=pictures encoder.widht=4": "encoder.widht is unknown: did you mean 'width'? There is: ",
    "recipe=my_images encodr=timm": "encodr is unknown: did you mean 'encoder'? There is: ",
    "recipe=my_images encoder=resnet81": "encoder=resnet81 is unknown: did you mean 'resnet18_small'? There is: ",
    "recipe=my_images encoder=null": "encoder=null: a group takes the name of one of its files",
    "recipe=cifar10_simclr ~encoder": "encoder is missing: choose one with encoder=NAME.",
    "recipe=my_images dataset.decoder=null": "dataset.decoder=None has the wrong type: a group of keys was expected.",
    "recipe=my_images batch_size=many": "batch_size='many' has the wrong type: int was expected.",
    "recipe=my_images training.epochs=1.5": "training.epochs=1.5 has the wrong type: int was expected.",
    "recipe=my_images training.epochs=0": "training.epochs=0 must be at least 1.",
    "recipe=my_images ~training.epochs": "training.epochs is missing: int is needed.",
    "recipe=my_images seed=-1": "seed=-1 must be at least 0 and below 2^31.",
    "recipe=my_images +new.key=1": "new is unknown: There is: ",
    "recipe=my_images +training.speed=1": "training.speed is unknown: There is: ",
    "recipe=my_images new=1": "new is unknown: did you mean 'name'? There is: ",
    "recipe=my_images batch_size": "batch_size is not of the form key=value",
    "recipe=my_images name=[1": "name=[1 is not of the form key=value, or its value must be quoted twice",
    "recipe=my_images run_dir=${nme}": "run_dir: Interpolation key 'nme' not found.",
    "recipe=my_images seed=0,1": "Ambiguous value for argument 'seed=0,1'",
    "recipe=my_images data=pictures run_dir=pictures/colour-0/00.png": "run_dir=pictures/colour-0/00.png cannot be",
    "recipe=my_images data=pictures weights=nowhere": "nowhere: neither a run directory, a .ckpt file, ",
    "recipe=my_images data=pictures resume=nowhere": "nowhere",
    "recipe=my_images data=pictures batch_size=100": "batch_size=100 is more than the data set holds",
    "recipe=my_images --config-dir nowhere": "Additional config directory",
}


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
    assert told.startswith("name: ours\nseed: 7\nbatch_size: 128\n")
    assert "  name: image_folder\n" in told


def test_paths_are_taken_as_they_are_written(place, monkeypatch):
    """Whatever hydra would read in them: lists, sweeps, numbers, numbers without their zeros."""
    found = {}
    monkeypatch.setattr("stec.experiment.run", found.update)
    monkeypatch.setenv("HOME", str(place))
    for name in ("Summer, 2024 (1)", "007", "[a]", "x=y", "null", 'say "x"', "back\\slash\\"):
        (place / name).mkdir()
        assert main(["recipe=my_images", f"data={name}"]) == 0
        assert found["data"] == name
    assert main(["recipe=my_images", "data=~/pictures"]) == 0
    assert found["data"] == str(place / "pictures")


# -- a run -------------------------------------------------------------------------------------------------------------


def test_a_run_ends_with_a_table_and_a_report(whole):
    table = json.loads((whole / "table.json").read_text())
    assert list(table["rows"]) == ["raw input", "untrained", "trained"]
    for row in table["rows"].values():
        assert {"eval/knn/top1", "eval/linear/top1", "health/rankme"} <= row.keys()
        assert sum(name.startswith("eval/action_bits/") for name in row) == 4
    assert table["rows"]["raw input"]["eval/knn/top1"] == 1.0  # colours
    page = (whole / "report.html").read_text()
    for words in ("my_images", "colour-0", "untrained", "raw input", f"stec-export {whole.name}"):
        assert words in page
    lines = [json.loads(line) for line in metrics(whole).splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 4, 6, 8, 10, 12, 14]
    (last,) = [line for line in lines if "eval/knn/top1" in line]
    assert {k: v for k, v in last.items() if k in table["rows"]["trained"]} == table["rows"]["trained"]
    assert [path.name for path in checkpoint.stored(whole / "checkpoints")] == [
        checkpoint.name(step) for step in (12, 14)
    ]
