"""Two gloo ranks against one rank on the global batch, and under torchrun.

There is no SyncBatchNorm on a CPU, and the heads have batch norm: each rank's training-mode statistics would be those
of its half. So the equality is tested with all norms in eval mode (fixed statistics), for both ways to the gradient.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import toy_run
from apart import WORLD, on_two_ranks
from toy_run import Stream, go, model

from stec.errors import StecError
from stec.training import checkpoint
from stec.training.ranks import leave, ranks


def fixed_norms(**options):
    """A model whose norms stay in eval mode, whatever the loop asks for."""
    stec = model(**options)
    for module in stec.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.train(False)
            module.train = lambda mode=True, module=module: module
    return stec


def sgd_run(directory: Path, **given):
    return go(directory, stec=fixed_norms(), optimizer={"name": "sgd", "lr": 0.3}, **given)


def as_a_rank(folder: str, job: str) -> int:
    """What each process of torchrun does (see the end of this file)."""
    torch.set_num_threads(1)
    directory = Path(folder)
    with ranks(torch.device("cpu"), 600.0):
        if job == "equal":
            sgd_run(directory / "plain")
            sgd_run(directory / "cached", hardware={"micro_batch": 3})
            sgd_run(directory / "halfway", training={"stop_after": 11})
            sgd_run(directory / "halfway")
            try:
                sgd_run(directory / "plain", training={"epochs": 9})
            except StecError as error:
                told = f"{type(error).__name__}, {error.shared}: {error}"
                (directory / f"refused-{dist.get_rank()}").write_text(told)
        elif job == "wait":
            try:
                go(directory, complete=slow, training={"epochs": 200})
            except StecError as error:
                return error.exit_code
    return 0


def without_torchrun(number: int, port: int, folder: str) -> None:
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(WORLD)}
    os.environ.update(where, RANK=str(number), LOCAL_RANK=str(number), LOCAL_WORLD_SIZE=str(WORLD))
    assert as_a_rank(folder, "equal") == 0


def slow(batch):
    name = Path(sys.argv[1]) / f"up-{dist.get_rank()}"
    if not name.exists():
        name.with_suffix(".tmp").write_text(str(os.getpid()))
        name.with_suffix(".tmp").rename(name)
    time.sleep(0.05)
    return toy_run.complete(batch)


def torchrun(folder: Path, job: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*command, __file__, str(folder), job],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def lines(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_two_ranks_are_one_rank_on_the_global_batch_with_norms_in_eval_mode(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    on_two_ranks(without_torchrun, port, str(tmp_path))
    refusals = {(tmp_path / f"refused-{number}").read_text() for number in range(2)}
    assert len(refusals) == 1, "all ranks say the same"
    assert refusals.pop().startswith(f"UsageError, True: run_dir={tmp_path / 'plain'} holds a run with another config")
    assert "each rank's own part of the batch" in (tmp_path / "plain/train.log").read_text()
    one = sgd_run(tmp_path / "one").state_dict()
    for name in ("plain", "cached", "halfway"):
        two = checkpoint.load(tmp_path / name / "checkpoints" / "last")["model"]
        for key, tensor in one.items():
            assert torch.allclose(two[key], tensor, rtol=1e-3, atol=1e-5), (name, key)
        # Losses and accuracies line by line; what is measured on each rank's own features is another number.
        for ours, theirs in zip(lines(tmp_path / "one"), lines(tmp_path / name), strict=True):
            own = {"train/z_std", "train/rankme", "train/grad_share_manip"}
            assert {k: v for k, v in theirs.items() if k not in own} == pytest.approx(
                {k: v for k, v in ours.items() if k not in own}, rel=1e-4, abs=1e-5
            )
    assert (tmp_path / "plain/metrics.jsonl").read_text() == (tmp_path / "halfway/metrics.jsonl").read_text()


def test_a_run_of_two_ranks_goes_on_with_one(tmp_path):
    """Any topology continues: the sums that ranks had gathered since the last line are taken up by one."""
    stream = Stream()
    sgd_run(tmp_path, training={"stop_after": 11})
    path = tmp_path / "checkpoints" / "step-00000011.ckpt"
    state = checkpoint.load(path)
    (sums,) = state["log"]["meter"]["ranks"]
    halves = [{name: [total / 2, count / 2] for name, (total, count) in sums.items()} for _ in range(2)]
    state["log"]["meter"]["ranks"] = halves
    checkpoint.save(path, state)
    sgd_run(tmp_path, stream=stream)
    sgd_run(tmp_path / "whole")
    assert stream.asked[0] == (1, 5)
    for ours, theirs in zip(lines(tmp_path), lines(tmp_path / "whole"), strict=True):
        assert ours == pytest.approx(theirs)


@pytest.mark.slow  # tests/faults/test_ranks.py has it in fewer seconds, but for the signal to both
def test_sigterm_stops_all_ranks_at_one_step(tmp_path):
    """As Slurm sends it: to the ranks and to torchrun, which sends it to the ranks again."""
    process, up = torchrun(tmp_path, "wait"), [tmp_path / "up-0", tmp_path / "up-1"]
    until = time.monotonic() + 120
    while not all(path.exists() for path in up) and time.monotonic() < until:
        time.sleep(0.05)
    for path in up:
        os.kill(int(path.read_text()), signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=60)
    state = checkpoint.load(tmp_path / "checkpoints" / "last")
    assert state["step"] % 10 == 0
    assert f"left after step {state['step']}" in (tmp_path / "train.log").read_text(), told
    assert not [p for p in (tmp_path / "checkpoints").iterdir() if p.name.endswith(".tmp")]


if __name__ == "__main__":
    leave(as_a_rank(*sys.argv[1:]))
