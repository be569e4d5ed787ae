"""stec-train in processes of its own: killed, asked to end, or one of two ranks; the end is that of a whole run."""

import json
import os
import signal
import subprocess
import sys

import torch
from tiny_run import TINY, metrics, same, weights

from stec.cli.train import main
from stec.training import checkpoint

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
    process.communicate(timeout=600)
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
    _, told = process.communicate("\n", timeout=600)
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
        timeout=600,
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
