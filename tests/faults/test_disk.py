"""A disk that is full, or takes no more of one file: checkpoints, metrics, logs, the terminal."""

import errno
import os
import shutil
import subprocess
from functools import partial

import pytest
from tiny_run import TINY, metrics, same, weights

from stec.training import checkpoint, records

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
# A checkpoint of the tiny run is several times as large, its other files are not.
LESS = 300_000


@pytest.fixture(scope="module")
def whole(ground):
    """The run that nothing happens to."""
    from commands import Commands

    ended = Commands(ground)("stec-train", *TINY, "data=shards", "run_dir=whole")
    assert ended.code == 0, ended.err
    return ground / "whole"


def left_over(run):
    return [path.name for path in run.rglob("*") if path.name.endswith((".tmp", ".part"))]


def full_at_the_first_checkpoint():
    save, calls = checkpoint.torch.save, []

    def half(state, file):
        calls.append(1)
        if len(calls) == 1:
            file.write(b"x" * 1000)
            raise FULL
        save(state, file)

    checkpoint.torch.save = half


@pytest.mark.fault(5, "the disk is full for one checkpoint", "a warning, and training goes on to the next one")
def test_another_checkpoint_is_to_come(train, seen, place, whole):
    ended = train("run_dir=run", before=full_at_the_first_checkpoint)
    assert ended.code == 0, ended.err
    warning = next(line for line in ended.out.splitlines() if line.startswith("warning: "))
    assert "cannot be written (No space left on device)" in warning
    assert "Training goes on." in warning
    assert left_over(place / "run") == []
    assert same(weights(place / "run"), weights(whole))
    assert metrics(place / "run") == metrics(whole)
    seen("survived: " + warning.split(": it needs")[0])


@pytest.mark.fault(
    5, "the disk is full at the last checkpoint", "refused, and the older ones are kept; later it goes on"
)
def test_no_other_is_to_come(train, seen, place, whole):
    assert train("run_dir=run", "training.stop_after=3").code == 0
    ended = train("run_dir=run", file_size=LESS)
    assert ended.code == 2
    assert "cannot be written (File too large)" in ended.refusal
    assert left_over(place / "run") == []
    assert [path.name for path in checkpoint.stored(place / "run" / "checkpoints")] == ["step-00000003.ckpt"]
    assert train("run_dir=run").code == 0
    assert same(weights(place / "run"), weights(whole))
    assert metrics(place / "run") == metrics(whole)
    seen(f"exit code 2: {ended.refusal.split(': it needs')[0]}; later it went on, the weights are the same")


def metrics_full(calls):
    """Those of the appends to metrics.jsonl fail, after half of what is to be written."""
    append, count = records.append, [0]

    def broken(path, data):
        if path.name == "metrics.jsonl":
            count[0] += 1
            if count[0] in calls:
                append(path, b"")
                raise FULL
        append(path, data)

    records.append = broken


@pytest.mark.fault(56, "metrics.jsonl cannot be written for a while", "a warning; the lines are written later")
@pytest.mark.slow
def test_metrics_wait_for_room(train, seen, place, whole):
    ended = train("run_dir=run", before=partial(metrics_full, range(2, 5)))
    assert ended.code == 0, ended.err
    assert ended.out.count("its lines wait") == 1
    assert metrics(place / "run") == metrics(whole)
    seen("survived: no line is missing")


@pytest.mark.fault(56, "metrics.jsonl cannot be written any more", "checkpoints keep its lines; later it goes on")
@pytest.mark.slow
def test_metrics_go_into_checkpoints(train, seen, place, whole):
    stopped = train("run_dir=run", "training.stop_after=6", before=partial(metrics_full, range(2, 99)))
    assert stopped.code == 0, stopped.err
    assert len(metrics(place / "run")) < len(metrics(whole)) / 4
    ended = train("run_dir=run")
    assert ended.code == 0, ended.err
    assert metrics(place / "run") == metrics(whole)
    seen("survived: after the next start, no line is missing")


@pytest.mark.fault(56, "metrics.jsonl cannot be written at the end", "the run is not called finished; later it is")
def test_the_last_line_is_not_lost(train, seen, place, whole):
    ended = train("run_dir=run", before=partial(metrics_full, range(2, 99)))
    assert ended.code == 2
    assert not (place / "run" / "finished").exists()
    assert train("run_dir=run").code == 0
    assert metrics(place / "run") == metrics(whole)
    seen(ended)


@pytest.mark.fault(56, "a folder where metrics.jsonl is to be", "refused before the first step")
def test_metrics_is_a_folder(train, seen, place):
    (place / "run" / "metrics.jsonl").mkdir(parents=True)
    ended = train("run_dir=run")
    assert ended.code == 2
    assert "metrics.jsonl cannot be read or written" in ended.refusal
    seen(ended)


def tensorboard_full():
    append, count = records.append, [0]

    def broken(path, data):
        count[0] += "tfevents" in path.name
        if "tfevents" in path.name and count[0] > 2:
            raise FULL
        append(path, data)

    records.append = broken


@pytest.mark.fault(56, "train.log and TensorBoard's files cannot be written", "each said once; training goes on")
def test_logs_are_no_reason_to_end(train, seen, place, whole):
    (place / "run" / "train.log").mkdir(parents=True)
    ended = train("run_dir=run", before=tensorboard_full)
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.out + ended.err
    assert ended.out.count("train.log: lines are left out") == 1
    assert ended.out.count("no TensorBoard files are written") == 1
    assert metrics(place / "run") == metrics(whole)
    seen("survived: two warnings")


def shown_on_a_full_disk():
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)


@pytest.mark.fault(56, "what stdout leads to is full", "training goes on, its log and report are written")
@pytest.mark.slow
def test_a_full_terminal(train, seen, place, whole):
    ended = train("run_dir=run", before=shown_on_a_full_disk)
    assert "Traceback" not in ended.err
    assert "Exception ignored" not in ended.err
    assert metrics(place / "run") == metrics(whole)
    assert (place / "run" / "report.html").exists()
    assert "step 12/12" in (place / "run" / "train.log").read_text()
    seen(ended)


@pytest.mark.slow
def test_a_small_disk(command, place, tmp_path, whole):
    """A file system of its own, which a run fills to the brim; then there is room, and it goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = [f"size={LESS * 4}"]
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", *size, "small", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        (disk / "ballast").write_bytes(bytes(LESS))
        line = ["stec-train", *TINY, "data=shards", f"run_dir={disk}/run", "training.keep=1"]
        ended = command(*line)
        assert ended.code == 2
        assert "cannot be written" in ended.refusal
        assert left_over(disk / "run") == []
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        ended = command(*line)
        assert ended.code == 0, ended.err
        assert same(weights(disk / "run"), weights(whole))
        assert metrics(disk / "run") == metrics(whole)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
        shutil.rmtree(disk)
