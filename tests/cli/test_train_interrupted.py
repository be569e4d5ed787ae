"""stec-train in processes of its own: killed, asked to end, or one of two ranks; the end is that of a whole run."""

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import torch
from faults.commands import Commands
from faults.several import two
from tiny_run import TINY, metrics, same, weights

from stec.cli.train import main
from stec.training import checkpoint
from stec.training.run import Run


def happens(when: int, what: str, num_threads: int) -> None:
    """Killed, or made to wait, after step `when`, just before the next one begins."""
    torch.set_num_threads(num_threads)
    advance = Run.advance

    def advanced(run: Run, step: int) -> None:
        advance(run, step)
        if step == when:
            if what == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            Path("now").touch()
            while not Path("on").exists():
                time.sleep(0.005)

    Run.advance = advanced  # type: ignore[method-assign]


def start(place, what, step, *words):
    before = partial(happens, step, what, torch.get_num_threads())
    return Commands(place).start("stec-train", *TINY, *words, before=before)


def test_killed_in_the_middle_it_goes_on_as_if_nothing_had_been(place, whole):
    assert start(place, "killed", 8, "data=pictures", "run_dir=killed").wait().code == -signal.SIGKILL
    assert [path.name for path in checkpoint.stored(place / "killed" / "checkpoints")] == [
        checkpoint.name(step) for step in (3, 6)
    ]
    assert main([*TINY, "data=pictures", "run_dir=killed"]) == 0
    assert metrics(place / "killed") == metrics(whole)
    assert same(weights(place / "killed"), weights(whole))


def test_asked_to_end_it_saves_and_goes_on_later(place, whole, capsys):
    words = ["data=pictures", "run_dir=asked"]
    started = start(place, "paused", 5, *words)
    started.wait_for((place / "now").exists)
    assert main([*TINY, *words]) == 2
    assert f"run_dir=asked is in use by process {started.pid}" in capsys.readouterr().err
    os.kill(started.pid, signal.SIGTERM)
    (place / "on").touch()
    ended = started.wait()
    assert ended.code == 128 + signal.SIGTERM
    assert ended.err == "stec: error: SIGTERM: left after step 5 of 12; the same command goes on.\n"
    assert main([*TINY, *words, "optimizer.lr=0.5"]) == 2
    assert "another configuration (optimizer.lr: 0.001 -> 0.5): choose" in capsys.readouterr().err
    assert main([*TINY, *words]) == 0
    assert metrics(place / "asked") == metrics(whole)
    assert same(weights(place / "asked"), weights(whole))


def test_two_ranks_share_a_run_and_write_one_table(place, tmp_path):
    fresh = {"STEC_CACHE": str(tmp_path)}  # to be packed by one of them
    ended = Commands(place)("stec-train", *TINY, "data=pictures", "run_dir=ranks", env=fresh, before=two())
    assert ended.code == 0, ended.err
    for once in ("packing ", "2 ranks", "step 12: evaluating", "report: "):
        assert ended.out.count(once) == 1, ended.out
    lines = [json.loads(line) for line in metrics(place / "ranks").splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 4, 6, 8, 10, 12, 12]
    assert list(json.loads((place / "ranks" / "table.json").read_text())["rows"]) == [
        "raw input",
        "untrained",
        "trained",
    ]
