"""Checkpoints: whole or not there, plain, and checked: damage ends in a sentence, or in the checkpoint before it."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from stec.errors import UsageError
from stec.training import checkpoint
from stec.training.learner import Learner, restore
from stec.whole import sweep

STATE = {"step": 3, "model": {"w": torch.arange(4000.0)}, "spec": {"format": 1, "extents": [[32, 32]]}, "ema": None}


def written(folder: Path, step: int = 3) -> Path:
    path = folder / checkpoint.name(step)
    checkpoint.save(path, STATE | {"step": step})
    return path


def test_round_trip_under_weights_only(tmp_path):
    path = written(tmp_path)
    state = checkpoint.load(path)
    assert state.pop("format") == checkpoint.FORMAT
    assert torch.equal(state["model"].pop("w"), STATE["model"]["w"])
    assert state == {**STATE, "model": {}}
    assert torch.load(path, weights_only=True)["step"] == 3
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("share", [0, 0.01, 0.5, -1])
def test_a_truncated_file_is_refused_and_passed_over(tmp_path, share, caplog):
    good, bad = written(tmp_path, 3), written(tmp_path, 7)
    content = bad.read_bytes()
    bad.write_bytes(content[:-1] if share == -1 else content[: int(len(content) * share)])
    with pytest.raises(UsageError, match=r"step-00000007\.ckpt is damaged"):
        checkpoint.load(bad)
    assert checkpoint.latest(tmp_path) == good
    assert "passed over" in caplog.text


@pytest.mark.parametrize("where", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_flipped_bit_is_found(tmp_path, where):
    """torch.load would hand over wrong weights without a word."""
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 4
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is damaged"):
        checkpoint.load(path)


def test_a_checkpoint_that_wants_to_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / "trap.ckpt"
    torch.save({**STATE, "format": 1, "model": Trap()}, path)
    with pytest.raises(UsageError, match="more than tensors and plain values"):
        checkpoint.load(path)
    assert not (tmp_path / "sprung").exists()


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        checkpoint.load(tmp_path / "nothing.ckpt")
    torch.save({"weights": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(UsageError, match="not a checkpoint of stec"):
        checkpoint.load(tmp_path / "other.pt")
    torch.save({**STATE, "format": 9}, tmp_path / "newer.ckpt")
    with pytest.raises(UsageError, match="has format 9, but this version of stec reads format 1"):
        checkpoint.load(tmp_path / "newer.ckpt")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(UsageError, match="not a file of torch"):
        checkpoint.load(tmp_path / "photos.zip")


def test_the_newest_counts_by_step_and_none_is_none(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    for step in (9, 100000000, 10):
        written(tmp_path, step)
    assert checkpoint.latest(tmp_path).name == "step-100000000.ckpt"
    for path in checkpoint.stored(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(UsageError, match="none of the 3 checkpoints"):
        checkpoint.latest(tmp_path)


def test_prune_keeps_the_newest_and_last_points_at_it(tmp_path):
    for step in (1, 2, 3, 4):
        written(tmp_path, step)
        checkpoint.prune(tmp_path, 2)
    assert [p.name for p in checkpoint.stored(tmp_path)] == ["step-00000003.ckpt", "step-00000004.ckpt"]
    assert checkpoint.load(tmp_path / "last")["step"] == 4
    assert len(os.listdir(tmp_path)) == 3


def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path):
    good = written(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
        with pytest.raises(UsageError, match=r"cannot be written .*: it needs 0\.0 MB, and .* MB are free"):
            written(tmp_path, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert os.listdir(tmp_path) == [good.name]


def test_kill_during_a_write_leaves_the_one_before(tmp_path):
    """A real process, killed when the temporary file is half written."""
    good = written(tmp_path)
    script = textwrap.dedent("""
        import os, signal, sys, torch
        from pathlib import Path
        from stec.training import checkpoint
        whole = torch.save
        def half(state, file):
            whole(state, file)
            file.truncate(5000)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.torch.save = half
        checkpoint.save(Path(sys.argv[1]) / checkpoint.name(4), {"step": 4, "model": {"w": torch.ones(4000)}})
    """)
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert checkpoint.latest(tmp_path) == good
    assert len(os.listdir(tmp_path)) == 2
    sweep(tmp_path)
    assert os.listdir(tmp_path) == [good.name]


def test_another_model_is_refused_with_the_first_names(tmp_path):
    mine, theirs = nn.Linear(3, 2), nn.Linear(4, 2, bias=False)
    with pytest.raises(UsageError) as caught:
        checkpoint.fill(mine, theirs.state_dict(), "the checkpoint's model")
    assert str(caught.value) == (
        "the checkpoint's model does not fit this model: bias is missing, weight is [2, 4] there and [2, 3] here."
    )
    many = {f"layer{i}": torch.ones(1) for i in range(6)}
    with pytest.raises(UsageError, match="and 5 more"):
        checkpoint.fill(mine, many, "it")


def test_other_data_are_told_by_the_shards_that_differ():
    """Older checkpoints do not know their shards: then by the fingerprint."""
    learner = Learner(*[None] * len(Learner._fields))
    before = {"fingerprint": "aa", "batch_size": 8, "shards": {"0.tar": "12", "1.tar": "34", "2.tar": "56"}}
    now = {"fingerprint": "bb", "batch_size": 8, "shards": {"0.tar": "12", "1.tar": "35", "3.tar": "78", "4.tar": "90"}}
    told = r"other data \(1\.tar is another, 2\.tar is missing, 3\.tar is new and 1 more\): choose"
    with pytest.raises(UsageError, match=told):
        restore(learner, {"data": before}, now)
    with pytest.raises(UsageError, match=r"other data \(fingerprint: aa -> bb\): choose"):
        restore(learner, {"data": {"fingerprint": "aa", "batch_size": 8}}, now)


def test_what_is_whole_but_not_ours_to_read_is_not_passed_over(tmp_path):
    """Going on from the one before it would delete what a newer version has learnt."""
    written(tmp_path, 3)
    torch.save({**STATE, "format": 2}, tmp_path / checkpoint.name(7))
    with pytest.raises(UsageError, match="has format 2"):
        checkpoint.latest(tmp_path)


def test_a_file_that_unfolds_to_more_than_itself_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1_000_000))
    with pytest.raises(UsageError, match="claim more bytes than the file has"):
        checkpoint.load(tmp_path / "bomb.ckpt")


@pytest.mark.parametrize("odd", [{"step": "3"}, {"model": [1]}, {"model": {"w": 1}}])
def test_another_type_of_step_or_model_is_refused(tmp_path, odd):
    torch.save({**STATE, "format": 1, **odd}, tmp_path / "odd.ckpt")
    with pytest.raises(UsageError, match="its step or its model is of another type"):
        checkpoint.load(tmp_path / "odd.ckpt")
