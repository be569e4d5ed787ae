"""A machine that is not what the run asks for."""

from functools import partial

import pytest
import torch
from several import after
from tiny_run import metrics, same, weights

from stec.training import checkpoint

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
SHORT = "training.stop_after=7"


@pytest.mark.fault(45, "hardware=gpu where there is none", "refused, with what was found")
def test_no_gpu(train, seen):
    ended = train("run_dir=run", "hardware=gpu", env=NO_GPU)
    assert ended.code == 2
    seen(ended)


@pytest.mark.fault(45, "a GPU of a number that there is not", "refused, with what was found")
def test_no_such_gpu(train, seen):
    ended = train("run_dir=run", "hardware.device=cuda:7", env=NO_GPU)
    assert ended.code == 2
    assert "cuda:7" in ended.refusal
    seen(ended)


@pytest.mark.fault(45, "hardware=auto where there is no GPU", "trained on the CPU, which is said")
def test_whatever_there_is(train, seen):
    ended = train("run_dir=run", "hardware.device=auto", "training.stop_after=1", env=NO_GPU)
    assert ended.code == 0, ended.err
    assert "machine: cpu (" in ended.out
    seen("survived: machine: cpu")


def out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.fault(46, "the GPU runs out of memory", "refused, with what to try; the last checkpoint goes on")
@pytest.mark.slow
def test_out_of_memory(train, seen, place):
    ended = train("run_dir=run", SHORT, before=partial(after, 5, out_of_memory))
    assert ended.code == 2
    assert "try hardware.micro_batch=4" in ended.refusal
    run, whole = place / "run", place / "whole"
    assert checkpoint.load(run / "checkpoints" / "last")["step"] == 3
    assert train("run_dir=run", SHORT).code == train("run_dir=whole", SHORT).code == 0
    assert metrics(run) == metrics(whole)
    assert same(weights(run), weights(whole))
    seen(ended)


@pytest.mark.fault(47, "fp16 on a CPU", "refused, with what can be chosen")
def test_fp16_on_a_cpu(train, seen):
    ended = train("run_dir=run", "hardware.precision=fp16")
    assert ended.code == 2
    seen(ended)
