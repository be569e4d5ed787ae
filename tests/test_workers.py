"""Processes that make batches: they change nothing, end with whoever needs them, and fail in one sentence."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy_source import SPACE, Faulty, Sources, assert_same, memory

from stec.errors import StecError
from stec.loading import Stream


def stream(decoder=None, **options):
    return Stream(memory(), decoder or Sources(), SPACE, **({"batch_size": 4} | options))


def test_dropping_a_stream_in_mid_epoch_ends_its_workers():
    batches = stream(num_workers=2, batch_size=1).batches(0)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    del batches
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_trainers_random_numbers_are_left_alone(num_workers):
    before = torch.get_rng_state()
    list(stream(num_workers=num_workers).batches(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_that_are_spawned_make_the_same_batches():
    method = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        spawned = list(stream(num_workers=1).batches(0))
    finally:
        multiprocessing.set_start_method(method, force=True)
    assert_same(spawned, list(stream().batches(0)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_fault_of_a_decoder_is_one_sentence_with_its_traceback_as_a_note(num_workers):
    with pytest.raises(StecError, match=r"^toy-1.tar: 0009: the decoder failed: ZeroDivisionError: nothing to") as e:
        list(stream(decoder=Faulty("bug", 63), num_workers=num_workers).batches(0))
    assert type(e.value) is StecError
    assert "toy_source.py" in e.value.__notes__[0]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_sample_that_kills_whoever_decodes_it_is_one_sentence(num_workers, caplog):
    with pytest.raises(
        StecError,
        match=r"^a process that reads data .* is lost: one died .DataLoader worker .*toy-1.tar: 0009.*num_workers",
    ) as error:
        list(stream(decoder=Faulty("death", 63), num_workers=num_workers, batch_size=2).batches(0))
    assert "\n" not in str(error.value)
    assert "begun again" in caplog.text
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_that_die_are_replaced_and_nothing_else_changes(num_workers, caplog):
    found = []
    for batch in stream(num_workers=num_workers, batch_size=1).batches(0):
        found.append(batch)
        if len(found) in (1, 2, 7):
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    assert_same(found, list(stream(batch_size=1).batches(0)))
    assert caplog.text.count("loading processes begun again: one died") in (1, 2, 3)  # not if all was delivered already
    assert multiprocessing.active_children() == []


def test_what_a_dead_worker_leaves_in_shared_memory_is_removed():
    batches = stream(num_workers=1, batch_size=1).batches(0)
    next(batches)
    pid = multiprocessing.active_children()[0].pid
    left = Path("/dev/shm") / f"torch_{pid}_1_1"
    if not left.parent.is_dir():
        pytest.skip("no /dev/shm here")
    left.write_bytes(b"half a batch")
    os.kill(pid, signal.SIGKILL)
    list(batches)
    assert not left.exists()


def test_a_worker_that_dies_does_not_disturb_what_goes_on_meanwhile():
    before = signal.getsignal(signal.SIGCHLD)
    batches = stream(num_workers=1, batch_size=1).batches(0)
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    soon(lambda: not multiprocessing.active_children())
    assert signal.getsignal(signal.SIGCHLD) == before
    next(batches)


def test_workers_that_hang_are_given_up_and_ended():
    with pytest.raises(StecError, match=r"nothing came for 2 s while .*toy-"):
        list(stream(decoder=Faulty("hang", 63), num_workers=1, batch_size=2, patience=2).batches(0))
    assert multiprocessing.active_children() == []


def test_slow_workers_are_waited_for():
    assert len(list(stream(decoder=Faulty("slow", 63), num_workers=1, patience=60).batches(0))) > 2


def test_signals_to_all_processes_are_for_the_main_one_to_answer():
    batches = stream(num_workers=1, batch_size=1).batches(0)
    found = [next(batches)]
    worker = multiprocessing.active_children()[0].pid
    for name in ("-TERM", "-INT", "-TERM"):  # as a scheduler does, from a third process
        subprocess.run(["kill", name, str(worker)], check=True)
    found += list(batches)
    assert_same(found, list(stream(batch_size=1).batches(0)))


def test_workers_do_not_outlive_a_killed_main_process():
    script = (
        "import multiprocessing, signal, test_workers as t\n"
        "batches = t.stream(num_workers=2, batch_size=1).batches(0)\n"
        "next(batches)\n"
        "print(*(p.pid for p in multiprocessing.active_children()), flush=True)\n"
        "signal.pause()\n"
    )
    main = subprocess.Popen(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
    )
    with main:
        workers = [int(pid) for pid in main.stdout.readline().split()]
        main.kill()
    assert len(workers) == 2
    soon(lambda: not any(running(pid) for pid in workers))


def soon(holds):
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
