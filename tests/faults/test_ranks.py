"""Several processes of one run: unevenly fed, stopped, killed, failing, or badly started."""

import json
import os
import re
import signal
import socket
from datetime import timedelta
from functools import partial

import pytest
from commands import Commands
from several import a_rank, after, both, fail, send, slowly, torchrun
from tiny_run import TINY, metrics, same, weights

from stec.loading import Stream
from stec.training import checkpoint, ranks

SHORT = "training.stop_after=7"


@pytest.fixture(scope="module")
def three(ground):
    """Shards of 20, 20 and 14 samples."""
    folder = ground / "three"
    words = ["--packer", "image_folder", "--samples-per-shard", "20", "--out", folder.name]
    ended = Commands(ground)("stec-shards", "pack", "pictures", *words)
    assert ended.code == 0, ended.err
    assert len(list((folder / "train").glob("*.tar"))) == 3
    return folder


@pytest.fixture
def begin(command):
    """begin(2, "run_dir=x", ...) -> the ranks, as processes that nobody watches over."""

    def start(num, *words, before=None, data="shards"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        common = {"WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        hook = partial(both, *([before] if before else []), a_rank)
        return [
            command.start("stec-train", *TINY, f"data={data}", *words, env=common | {"RANK": str(number)}, before=hook)
            for number in range(num)
        ]

    return start


def note_samples():
    """Each rank writes down which samples it learns from."""
    batches = Stream.batches

    def noted(stream, epoch, first=0):
        for batch in batches(stream, epoch, first):
            with open(f"samples-{os.environ['RANK']}", "a") as file:
                print(batch.keys[:, 2].tolist(), file=file)
            yield batch

    Stream.batches = noted


def shared_out(started, place):
    """The samples of each rank, after all came to their end; AssertionError if two learnt from the same in an epoch."""
    for one in started:
        ended = one.wait()
        assert ended.code == 0, ended.err
    taken = [
        [json.loads(line) for line in (place / f"samples-{number}").read_text().splitlines()]
        for number in range(len(started))
    ]
    assert len({tuple(map(len, batches)) for batches in taken}) == 1, "all take equal batches"
    samples = [sample for batches in taken for batch in batches for sample in batch]
    assert len(set(samples)) == len(samples)
    return len(samples)


@pytest.mark.fault(22, "3 shards of unequal size for 2 ranks", "equal batches for both, each sample once")
def test_uneven_shards(begin, three, seen, place):
    assert shared_out(begin(2, "run_dir=run", "training.stop_after=6", before=note_samples, data=three), place) == 48
    seen("survived: 6 steps of an epoch, 48 samples")


@pytest.mark.fault(32, "1 shard for 2 ranks with 2 loading processes each", "they share it sample by sample")
def test_fewer_shards_than_loading_processes(begin, seen, place):
    words = ["run_dir=run", "training.stop_after=6", "hardware.num_workers=2"]
    assert shared_out(begin(2, *words, before=note_samples), place) == 48
    seen("survived: 6 steps of an epoch, 48 samples")


@pytest.mark.slow
@pytest.mark.fault(32, "1 shard for 4 ranks", "they share it sample by sample")
def test_fewer_shards_than_ranks(begin, seen, place):
    assert shared_out(begin(4, "run_dir=run", "training.stop_after=6", before=note_samples), place) == 48
    seen("survived: 6 steps of an epoch, 48 samples")


@pytest.mark.slow
@pytest.mark.fault(22, "one of 2 ranks hangs", "the other one ends after hardware.patience, and says which and where")
def test_a_rank_that_hangs(begin, seen, place):
    words = ["run_dir=run", "hardware.patience=12"]
    started = begin(2, *words, before=partial(after, 5, send, signal.SIGSTOP, rank=1))
    ended = started[0].wait()
    started[1].process.kill()
    started[1].process.join()
    assert ended.code == 1
    assert "rank 0 misses rank 1 at step 5: " in ended.refusal
    assert checkpoint.load(place / "run" / "checkpoints" / "last")["step"] == 3
    seen(ended)


@pytest.mark.fault(22, "one of 2 ranks is killed, and nothing watches over them", "the other one says which and where")
def test_a_rank_that_is_killed_unwatched(begin, seen, place):
    started = begin(2, "run_dir=run", before=partial(after, 5, send, signal.SIGKILL, rank=1))
    first, second = [one.wait() for one in started]
    assert (first.code, second.code) == (1, -signal.SIGKILL)
    assert re.match("rank 0 misses rank 1 at step [45]: ", first.refusal)  # as far as it had got
    assert checkpoint.load(place / "run" / "checkpoints" / "last")["step"] == 3
    seen(first._replace(err=re.sub("at step [45]", "at step N", first.err)))


@pytest.mark.fault(15, "a batch that the ranks cannot share equally", "refused, with both numbers")
def test_a_batch_for_unequal_parts(begin, seen):
    first, second = [one.wait() for one in begin(2, "run_dir=run", "batch_size=7")]
    assert (first.code, second.code) == (2, 2)
    assert first.refusal == "batch_size=7 (over all ranks) cannot be shared by 2 ranks equally."
    seen(first)


TWO = ["--standalone", "--nproc-per-node", "2"]


@pytest.mark.fault(4, "SIGTERM to torchrun with 2 ranks", "all stop at one step within seconds, with one checkpoint")
def test_sigterm_to_torchrun(command, seen, place):
    words = [*TINY, "data=shards", "run_dir=run"]
    ended = command("stec-train", *words, before=partial(torchrun, TWO, slow_steps))
    log = place / "run" / "train.log"
    step = checkpoint.load(place / "run" / "checkpoints" / "last")["step"]
    told = f"SIGTERM: left after step {step} of 12; the same command goes on."
    assert (ended.out + ended.err).count(f"stec: error: {told}") == 1
    assert 2 <= step <= 6  # and not at the tenth, with steps as slow as these
    assert [p.name for p in (place / "run" / "checkpoints").iterdir() if ".tmp" in p.name] == []
    assert sum("left after" in line for line in log.read_text().splitlines()) == 1
    seen("survived: SIGTERM: left after a step, the same one on both ranks; the same command goes on.")


def slow_steps():
    slowly(0.7)
    after(2, stop_all)


def stop_all():
    os.kill(os.getppid(), signal.SIGTERM)


@pytest.mark.fault(20, "one of 2 ranks is killed under torchrun --max-restarts", "all begin again; the same weights")
def test_a_rank_that_is_killed_with_restarts(train, seen, place):
    whole = train("run_dir=whole", SHORT, before=partial(torchrun, TWO))
    assert whole.code == 0, whole.err
    ended = train("run_dir=run", SHORT, before=partial(torchrun, [*TWO, "--max-restarts", "2"], killed))
    assert ended.code == 0, ended.err
    assert (place / "run" / "happened").exists()
    assert "starting at step 3 of 12" in ended.out
    assert metrics(place / "run") == metrics(place / "whole")
    assert same(weights(place / "run"), weights(place / "whole"))
    seen("survived: starting at step 3 of 12; exit code 0")


def killed():
    after(5, send, signal.SIGKILL, rank=1)


@pytest.mark.slow
@pytest.mark.fault(20, "one of 2 ranks is killed under torchrun", "all end, and torchrun names the cause")
def test_a_rank_that_is_killed(train, seen, place):
    ended = train("run_dir=run", SHORT, before=partial(torchrun, TWO, killed))
    assert ended.code == 1
    _, _, cause = ended.err.partition("Root Cause")
    assert "rank      : 1 " in cause
    assert "Signal 9 (SIGKILL)" in cause
    assert checkpoint.load(place / "run" / "checkpoints" / "last")["step"] == 3
    seen("survived: exit code 1 of torchrun, root cause: rank 1, Signal 9 (SIGKILL); checkpoint of step 3")


@pytest.mark.fault(21, "a fault of the program on one of 2 ranks", "its traceback is shown, named as the root cause")
def test_a_rank_that_fails(train, seen):
    ended = train("run_dir=run", SHORT, before=partial(torchrun, TWO, failing))
    assert ended.code == 1
    _, _, cause = ended.err.partition("Root Cause")
    assert "rank      : 1 " in cause
    assert "RuntimeError: a fault of one rank" in cause
    assert "several.py" in cause
    seen("survived: exit code 1 of torchrun, root cause: rank 1, with its traceback")


def failing():
    after(5, fail, rank=1)


ENV = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


def without(name):
    return {key: value for key, value in ENV.items() if key != name}


def ours(ended, port="PORT", theirs=""):
    """A refusal without what torch adds in its own words, but for `theirs`, and without the number of a port."""
    return ended._replace(err=re.sub(r"(?<=does it: ).*", f"...{theirs}", ended.err.replace(port, "PORT")))


@pytest.mark.fault(57, "WORLD_SIZE=2 without MASTER_ADDR", "refused, with what is missing")
def test_no_address(train, seen):
    ended = train("run_dir=run", env=without("MASTER_ADDR"))
    assert ended.code == 2
    assert "MASTER_ADDR" in ended.refusal
    seen(ours(ended, theirs=" MASTER_ADDR ..."))


@pytest.mark.fault(57, "WORLD_SIZE=2 without RANK", "refused, with what is missing")
def test_no_rank(train, seen):
    ended = train("run_dir=run", env=without("RANK"))
    assert ended.code == 2
    assert "RANK" in ended.refusal
    seen(ended)


@pytest.mark.fault(57, "RANK=2 where WORLD_SIZE=2", "refused, with what is wrong")
def test_no_such_rank(train, seen):
    ended = train("run_dir=run", env=ENV | {"RANK": "2"})
    assert ended.code == 2
    assert "RANK=2" in ended.refusal
    seen(ended)


@pytest.mark.fault(57, "MASTER_PORT is another program's", "refused, naming address and port")
def test_a_port_that_is_taken(train, seen):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = train("run_dir=run", env=ENV | {"MASTER_PORT": port})
    assert ended.code == 2
    assert f"127.0.0.1:{port}" in ended.refusal
    seen(ours(ended, port))


@pytest.mark.fault(57, "one of 2 ranks is never started", "refused after ten minutes (here, a second)")
def test_a_rank_that_never_comes(train, seen):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    ended = train("run_dir=run", "hardware.patience=1", env=ENV | {"MASTER_PORT": port}, before=hurry)
    assert ended.code == 2
    assert f"2 processes (WORLD_SIZE) cannot be brought together at 127.0.0.1:{port}" in ended.refusal
    seen(ours(ended, port))


def hurry():
    ranks._TO_COME = timedelta(seconds=1)
