"""The run directory: who may write there, what may change on resume, and how a run ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from toy_run import go

from stec.errors import UsageError
from stec.training import checkpoint, signals
from stec.training.run import Run, flat

SCRIPT = Path(__file__).parent / "toy_run.py"


def toy(directory: Path, **given) -> list[str]:
    return [sys.executable, str(SCRIPT), str(directory), json.dumps(given)]


def start(directory: Path, **given) -> subprocess.Popen:
    return subprocess.Popen(toy(directory, **given), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(process: subprocess.Popen, text: str) -> None:
    while (line := process.stdout.readline()) and text not in line:
        pass
    assert text in line, process.stderr.read()


@pytest.mark.slow
def test_a_directory_in_use_is_refused_and_the_lock_dies_with_its_owner(tmp_path):
    process = start(tmp_path, wait=3)
    try:
        until(process, "now")
        with pytest.raises(UsageError, match=rf"is in use by process {process.pid} on {os.uname().nodename}"):
            Run(tmp_path)
    finally:
        process.kill()
        process.communicate()
    Run(tmp_path).close()


def test_the_lock_is_not_kept_by_a_forked_child(tmp_path):
    hears, tells = os.pipe()
    with Run(tmp_path):
        child = os.fork()
        if child == 0:
            os.write(tells, b"up")
            signal.pause()
            os._exit(0)
    try:
        assert os.read(hears, 2) == b"up"
        Run(tmp_path).close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"run_dir=.*file/run cannot be written: Not a directory"):
        Run(tmp_path / "file" / "run")


def test_never_wants_a_directory_without_a_run(tmp_path):
    go(tmp_path, resume="never", training={"stop_after": 2})
    with pytest.raises(UsageError, match=r"holds a run already: choose another run_dir or resume=auto"):
        go(tmp_path, resume="never")


def test_what_changes_the_training_is_refused_and_shown(tmp_path):
    go(tmp_path, training={"stop_after": 6})
    with pytest.raises(UsageError) as caught:
        go(tmp_path, training={"epochs": 9}, optimizer={"lr": 0.5})
    assert "optimizer.lr: 0.01 -> 0.5; training.epochs: 4 -> 9" in str(caught.value)
    go(tmp_path, training={"log_every": 3, "checkpoint_every": 4}, hardware={"num_workers": 1})
    assert "changed on resume: training.log_every: 4 -> 3" in (tmp_path / "train.log").read_text()
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["training"]["log_every"] == 3


def test_a_name_inside_a_section_is_no_harmless_name():
    assert flat({"identity": {"name": "simclr", "terms": {}}, "seed": 0}) == {"identity.name": "simclr", "seed": 0}


def test_the_kind_of_a_term_may_not_change(tmp_path):
    with Run(tmp_path, {"identity": {"name": "simclr"}, "name": "a"}) as run:
        run.save({"step": 0, "model": {}}, 1)
    with pytest.raises(UsageError, match=r"\(identity\.name: simclr -> byol\)"):
        Run(tmp_path, {"identity": {"name": "byol"}, "name": "b"})


def test_without_a_checkpoint_another_configuration_begins_anew(tmp_path):
    Run(tmp_path, {"seed": 0}).close()
    Run(tmp_path, {"seed": 1}).close()
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"seed": 1}


def test_a_finished_run_says_so_and_touches_nothing(tmp_path):
    go(tmp_path)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()}
    go(tmp_path)
    changed = {p.name for p, old in before.items() if old != (p.stat().st_mtime_ns, p.read_bytes())}
    assert changed == {"train.log", ".lock"}
    assert "this run is finished" in (tmp_path / "train.log").read_text()


def test_other_data_are_refused(tmp_path):
    from toy_run import Stream

    go(tmp_path, training={"stop_after": 5})
    with pytest.raises(UsageError, match=r"other data \(fingerprint: toy 96 -> toy 112\)"):
        go(tmp_path, stream=Stream(num=112))


def test_resume_from_a_path(tmp_path):
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    go(first, training={"stop_after": 10})
    go(second, resume=str(first))
    go(third, resume=str(first / "checkpoints" / "step-00000005.ckpt"))
    end = checkpoint.load(second / "checkpoints" / "last")["model"]
    for name, t in checkpoint.load(third / "checkpoints" / "last")["model"].items():
        assert torch.equal(t, end[name]), name
    with pytest.raises(UsageError, match="holds a run already"):
        go(second, resume=str(first))
    with pytest.raises(UsageError, match="no such file"):
        go(tmp_path / "fourth", resume=str(tmp_path / "nowhere.ckpt"))
    with pytest.raises(UsageError, match="holds no checkpoint"):
        go(tmp_path / "fifth", resume=str(tmp_path))


def test_going_back_to_an_earlier_checkpoint_forgets_what_came_after(tmp_path):
    go(tmp_path, training={"keep": 9})
    told = (tmp_path / "metrics.jsonl").read_text()
    kept = tmp_path / "checkpoints" / "step-00000010.ckpt"
    go(tmp_path, training={"keep": 9, "stop_after": 12}, resume=str(kept))
    assert [p.name[11:13] for p in checkpoint.stored(tmp_path / "checkpoints")] == ["05", "10", "12"]
    go(tmp_path, training={"keep": 9})
    assert (tmp_path / "metrics.jsonl").read_text() == told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.slow
def test_a_signal_ends_the_run_in_good_order(tmp_path, number, code):
    process = start(tmp_path, wait=6)
    until(process, "now")
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"{number.name}: left after step" in told
    assert "Traceback" not in told
    assert checkpoint.load(tmp_path / "checkpoints" / "last")["step"] >= 7


def test_asked_twice_with_some_emphasis_it_ends_at_once(tmp_path, monkeypatch):
    """What comes several times at once, or from a scheduler, is one request; Ctrl-C a second later is another."""
    now, ended = [100.0], []
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    ears = signals.Ears()
    try:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            signal.raise_signal(number)
            now[0] += 0.4
        now[0] += 60
        signal.raise_signal(signal.SIGTERM)
        assert ears.heard == signal.SIGTERM
        monkeypatch.setattr(signals.os, "kill", lambda process, number: ended.append((process, number)))
        signal.raise_signal(signal.SIGINT)
        assert ended == [(os.getpid(), signal.SIGINT)]
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        ears.close()


def test_handlers_and_loggers_are_as_before_afterwards(tmp_path):
    import logging

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), [*logging.getLogger("stec").handlers]
    with Run(tmp_path) as run:
        run.start(1)
        assert signal.getsignal(signal.SIGTERM) != before[0]
    after = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), [*logging.getLogger("stec").handlers]
    assert before == after


def test_outside_the_loop_a_signal_is_a_signal(tmp_path, request):
    """While data are packed or baselines evaluated, nobody looks for it: it must not be swallowed."""
    # A shell starts what it puts into the background with SIGINT ignored: here it is to mean what it usually does.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    handlers = [signal.getsignal(number) for number in signals.HEARD]
    with Run(tmp_path) as run:
        assert [signal.getsignal(number) for number in signals.HEARD] == handlers
        run.start(1)
        signal.raise_signal(signal.SIGINT)
        assert run.asked_to_stop(torch.device("cpu")) == signal.SIGINT
        run.stop()
        assert [signal.getsignal(number) for number in signals.HEARD] == handlers
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_going_back_compares_steps_not_names(tmp_path):
    with Run(tmp_path) as run:
        for run.step in (99_999_999, 100_000_000):
            run.save({"step": run.step, "model": {}}, 9)
    with Run(tmp_path, resume=str(tmp_path / "checkpoints" / "step-99999999.ckpt")) as run:
        run.restore()
    assert [checkpoint.step_of(p) for p in checkpoint.stored(tmp_path / "checkpoints")] == [99_999_999]


def test_values_that_are_no_numbers_are_left_out_and_named(tmp_path, caplog):
    with Run(tmp_path) as run:
        run.restore()
        run.record(0.5, {"eval/a": float("nan"), "eval/b": 1.0})
        run.record(0.5, {"eval/a": float("nan")})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 0, "epoch": 0.5, "eval/b": 1.0}
    assert "eval/a" in caplog.text


def test_tensorboard_files_hold_the_metrics_and_the_times(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    go(tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/lr", "time/samples_per_s", "time/data_wait"} <= {*events.Tags()["scalars"]}
    assert [e.step for e in events.Scalars("train/loss")] == [1, 4, 8, 12, 16, 20, 24]
