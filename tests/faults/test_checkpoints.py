"""Checkpoints that are damaged, hostile, of another version or of another model."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from commands import Commands
from dying import difference, unfinished
from tiny_run import BARE, TINY
from torch.torch_version import TorchVersion

from stec.training import checkpoint

RUN = ["stec-train", *TINY, *BARE, "data=shards", "run_dir=run"]
BEFORE, NEWEST = "checkpoints/step-00000009.ckpt", "checkpoints/step-00000012.ckpt"


@pytest.fixture(scope="session")
def whole(ground):
    """12 steps, checkpoints 9 and 12."""
    ended = Commands(ground)(*RUN[:-1], "run_dir=complete")
    assert ended.code == 0, ended.err
    return ground / "complete"


@pytest.fixture
def run(whole, place):
    """The same run, killed after its last checkpoint."""
    run = unfinished(whole, place / "run")
    shutil.copy(whole / NEWEST, run / NEWEST)
    return run


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut, marks=pytest.mark.fault(9, "the newest checkpoint is cut off", "the one before it is taken")),
        pytest.param(
            flip, marks=pytest.mark.fault(10, "a bit of the newest checkpoint is flipped", "the one before it is taken")
        ),
    ],
)
def test_the_newest_one_is_damaged(command, run, whole, seen, damage):
    damage(run / NEWEST)
    ended = command(*RUN)
    assert ended.code == 0
    assert f"warning: passed over: run/{NEWEST} is damaged: " in ended.out
    assert "starting at step 9 of 12" in ended.out
    assert difference(whole, run) == ""
    told = next(line for line in ended.out.splitlines() if "passed over" in line)
    seen("survived: " + re.sub(r"(?<=checksum of )\S+", "...", told))  # the parts are numbered by torch


@pytest.mark.fault(9, "a checkpoint that was named is cut off", "refused")
def test_the_one_that_was_named_is_damaged(command, run, seen):
    cut(run / BEFORE)
    ended = command(*RUN, f"resume=run/{BEFORE}")
    assert ended.code == 2
    assert f"run/{BEFORE} is damaged" in ended.refusal
    seen(ended)


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


@pytest.mark.fault(11, "a checkpoint that would run code", "refused, and nothing is run")
def test_a_pickle(command, run, place, seen):
    """Named, measured, or lying there as the newest one."""
    torch.save({**checkpoint.load(run / NEWEST), "log": Trap()}, run / NEWEST)
    for words in ([*RUN, f"resume=run/{NEWEST}"], RUN, ["stec-eval", "run"], ["stec-eval", f"run/{NEWEST}"]):
        ended = command(*words)
        assert ended.code == 2
        assert "holds more than tensors and plain values" in ended.refusal
    assert not (place / "sprung").exists()
    seen(ended)


@pytest.mark.fault(12, "the newest checkpoint is of a newer version", "refused, with both; it is kept")
def test_a_newer_format(command, run, seen):
    """To go on from the one before it would delete what the newer version has learnt."""
    torch.save({**checkpoint.load(run / NEWEST), "format": 2}, run / NEWEST)
    ended = command(*RUN)
    assert ended.code == 2
    assert "has format 2, but this version of stec reads format 1" in ended.refusal
    assert (run / NEWEST).is_file()
    seen(ended)


@pytest.mark.fault(13, "weights= of another encoder", "refused, with the first names and shapes")
def test_weights_of_another_encoder(train, run, seen):
    ended = train(*BARE, "run_dir=other", "encoder.width=8", f"weights=run/{NEWEST}")
    assert ended.code == 2
    assert "is [4, 3, 7, 7] there and [8, 3, 7, 7] here" in ended.refusal
    seen(ended)


@pytest.mark.fault(13, "stec-eval of a checkpoint that lacks a tensor", "refused, with its name")
def test_a_checkpoint_that_lacks_a_tensor(command, run, seen):
    state = checkpoint.load(run / NEWEST)
    name = next(iter(state["model"]))
    del state["model"][name]
    torch.save(state, run / NEWEST)
    ended = command("stec-eval", f"run/{NEWEST}")
    assert ended.code == 2
    assert f"{name} is missing" in ended.refusal
    seen(ended)


@pytest.mark.fault(13, "a run goes on with another encoder", "refused, with the difference")
def test_another_encoder(command, run, seen):
    ended = command(*RUN, "encoder.depth=34")
    assert ended.code == 2
    assert "(encoder.depth: 18 -> 34)" in ended.refusal
    seen(ended)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        pytest.param(
            "nowhere",
            "neither a run directory",
            marks=pytest.mark.fault(60, "stec-eval of a run that is not there", "refused"),
        ),
        pytest.param(
            "pictures",
            "no usable checkpoint",
            marks=pytest.mark.fault(60, "stec-eval of a folder that is no run", "refused"),
        ),
        pytest.param(
            "picture.ckpt",
            "is damaged",
            marks=pytest.mark.fault(60, "stec-eval of a file that is no checkpoint", "refused"),
        ),
    ],
)
def test_what_is_no_checkpoint(command, place, seen, source, said):
    shutil.copy(next((place / "pictures").rglob("*.png")), place / "picture.ckpt")
    ended = command("stec-eval", source, "data=shards")
    assert ended.code == 2
    assert said in ended.refusal
    seen(ended)


def old_torch() -> None:
    torch.__version__ = TorchVersion("2.9.1")


@pytest.mark.fault(61, "a checkpoint for a torch that files can harm", "refused before it is opened")
def test_an_old_torch(command, run, seen):
    ended = command("stec-eval", f"run/{NEWEST}", before=old_torch)
    assert ended.code == 2
    assert "2.10 is needed" in ended.refusal
    seen(ended)
