"""Loading processes that die, hang, or find no shared memory."""

import os
import re
import resource
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from tiny_run import metrics, same, weights

from stec import workers
from stec.shards.reader import Shards

SHORT = "training.stop_after=7"
HINT = "Was it killed for want of memory, is /dev/shm full, or does the disk hang?"


def reading(number, what):
    """what() happens to the loading process that reads this sample."""
    main, read = os.getpid(), Shards.read

    def reads(shards, sample):
        if sample == number and os.getpid() != main:
            what()
        return read(shards, sample)

    Shards.read = reads


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_once():
    mark = Path("died")
    if not mark.exists():
        mark.touch()
        die()


def hang():
    time.sleep(600)


def little_shared_memory():
    """No file of a loading process, and what it shares is one, may become longer than this."""
    begin = workers._begin_worker

    def begun(number):
        begin(number)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    workers._begin_worker = begun


@pytest.mark.fault(23, "a loading process is killed", "another takes its place; the same weights and metrics")
def test_a_worker_that_is_killed(train, seen, place):
    assert train("run_dir=whole", SHORT).code == 0
    ended = train("run_dir=run", SHORT, "hardware.num_workers=2", before=partial(reading, 20, die_once))
    assert ended.code == 0, ended.err
    assert (place / "died").exists()
    assert "loading processes begun again: one died" in ended.out
    assert metrics(place / "run") == metrics(place / "whole")
    assert same(weights(place / "run"), weights(place / "whole"))
    seen("survived: loading processes begun again, with a warning")


@pytest.mark.fault(23, "whichever loading process reads a certain sample is killed", "refused, with what to look at")
def test_a_worker_that_dies_again_and_again(train, seen):
    ended = train("run_dir=run", SHORT, "hardware.num_workers=2", before=partial(reading, 20, die))
    assert ended.code == 1
    assert HINT in ended.refusal
    assert "train-000000.tar" in ended.refusal
    seen(ended._replace(err=re.sub(r"pid\(s\) [\d, ]+", "pid N", ended.err)))


@pytest.mark.fault(24, "a loading process hangs", "refused after hardware.patience, with what was waited for")
@pytest.mark.slow
def test_a_worker_that_hangs(train, seen):
    words = ["run_dir=run", SHORT, "hardware.num_workers=1", "hardware.patience=10"]
    ended = train(*words, before=partial(reading, 20, hang))
    assert ended.code == 1
    assert "nothing came for 10 s while a batch of 8 samples (train-000000.tar: " in ended.refusal
    seen(ended)


@pytest.mark.fault(58, "too little shared memory for a batch", "refused, with a hint")
def test_no_shared_memory(train, seen):
    ended = train("run_dir=run", SHORT, "hardware.num_workers=1", before=little_shared_memory)
    assert ended.code == 1
    assert "/dev/shm" in ended.refusal
    seen(ended._replace(err=re.sub(r"hands over \(.*\): is", "hands over (...): is", ended.err)))
