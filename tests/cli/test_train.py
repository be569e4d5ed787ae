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
from stec.training import checkpoint

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
    "evaluation.baseline=null",
    "evaluation.train_pairs=40",
    "evaluation.test_pairs=20",
    "evaluation.linear.grid=[0.1]",
    "evaluation.action.hidden=16",
    "evaluation.action.epochs=2",
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


def packed(place: Path) -> Path:
    """The shards of the pictures: those with labels and a test split."""
    labelled = [path for path in (place / "cache").glob("*/test/index.json") if "colour-0" in path.read_text()]
    return labelled[0].parent.parent


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
    assert "  cifar100_simclr_stec_published  S-TEC on CIFAR-100 " in told
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
    "recipe=my_images encoder=resnet18_smal": "encoder=resnet18_smal is unknown: did you mean 'resnet18_small'? There",
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
    for name in ("Summer, 2024 (1)", "007", "[a]", "x=y", "null", 'say "x"'):
        (place / name).mkdir()
        assert main(["recipe=my_images", f"data={name}"]) == 0
        assert found["data"] == name
    assert main(["recipe=my_images", "data=~/pictures"]) == 0
    assert found["data"] == str(place / "pictures")


# -- a run ---------------------------------------------------------------------------------------------------------


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
    assert main([*TINY, "data=flat", "run_dir=unlabelled", "manipulation.yoked=true"]) == 0
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
    assert main([*TINY, "data=torn", "run_dir=torn-run"]) == 4
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
    # Not to the bit: while training, the weights lie in another memory format.
    assert again == pytest.approx(json.loads((whole / "table.json").read_text())["rows"]["trained"], rel=1e-4)


# -- interrupted runs --------------------------------------------------------------------------------------------------


def start(what: str, step: int, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, what, str(step), *TINY, *words],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_in_the_middle_it_goes_on_as_if_nothing_had_been(place, whole):
    process = start("SIGKILL", 8, "data=pictures", "run_dir=killed")
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in checkpoint.stored(place / "killed" / "checkpoints")] == [
        checkpoint.name(step) for step in (3, 6)
    ]
    assert main([*TINY, "data=pictures", "run_dir=killed"]) == 0
    assert metrics(place / "killed") == metrics(whole)
    assert same(weights(place / "killed"), weights(whole))


def test_asked_to_end_it_saves_and_goes_on_later(place, whole, capsys):
    words = ["data=pictures", "run_dir=asked"]
    process = start("pause", 5, *words)
    while "now" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()
    assert main([*TINY, *words]) == 2
    assert f"run_dir=asked is in use by process {process.pid}" in capsys.readouterr().err
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate("\n", timeout=300)
    assert process.returncode == 128 + signal.SIGTERM
    assert told == "stec: error: SIGTERM: left after step 5 of 12; the same command goes on.\n"
    assert main([*TINY, *words, "optimizer.lr=0.5"]) == 2
    assert "another configuration (optimizer.lr: 0.001 -> 0.5): choose" in capsys.readouterr().err
    assert main([*TINY, *words]) == 0
    assert metrics(place / "asked") == metrics(whole)
    assert same(weights(place / "asked"), weights(whole))


def test_two_ranks_share_a_run_and_write_one_table(place, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [*launch, "-m", "stec.cli.train", *TINY, "data=pictures", "run_dir=ranks"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "STEC_CACHE": str(tmp_path)},  # to be packed by one of them
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    for once in ("packing ", "2 ranks", "step 12: evaluating", "report: "):
        assert ended.stdout.count(once) == 1, ended.stdout
    lines = [json.loads(line) for line in metrics(place / "ranks").splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 4, 6, 8, 10, 12, 12]
    assert list(json.loads((place / "ranks" / "table.json").read_text())["rows"]) == [
        "raw input",
        "untrained",
        "trained",
    ]
