"""A run that is asked to end: it finishes its step, saves, and says how to go on; the end is that of a whole run."""

import signal
from functools import partial

import pytest
from commands import Commands
from several import after, send, send_twice
from tiny_run import TINY, metrics, same, weights

from stec.training import checkpoint

PROMISE = "the step is finished and saved; the same command goes on to the same weights and metrics"
# Not to the end, where everything is measured: what is compared here is the training.
SHORT = "training.stop_after=9"


@pytest.fixture(scope="module")
def whole(ground):
    assert Commands(ground)("stec-train", *TINY, "data=shards", "run_dir=signals", SHORT).code == 0
    return ground / "signals"


def goes_on(train, run, whole, step):
    assert checkpoint.load(run / "checkpoints" / "last")["step"] == step
    assert train(f"run_dir={run.name}", SHORT).code == 0
    assert metrics(run) == metrics(whole)
    return same(weights(run), weights(whole))


@pytest.mark.fault(3, "SIGTERM in the middle of a run", PROMISE)
def test_sigterm(train, seen, place, whole):
    ended = train("run_dir=run", SHORT, before=partial(after, 5, send, signal.SIGTERM))
    assert ended.code == 143
    assert ended.refusal == "SIGTERM: left after step 5 of 12; the same command goes on."
    assert goes_on(train, place / "run", whole, 5)
    seen(ended)


@pytest.mark.fault(3, "SIGINT (Ctrl-C) in the middle of a run", PROMISE)
def test_sigint(train, seen, place, whole):
    ended = train("run_dir=run", SHORT, before=partial(after, 4, send, signal.SIGINT))
    assert ended.code == 130
    assert goes_on(train, place / "run", whole, 4)
    seen(ended)


@pytest.mark.fault(3, "SIGUSR1 in the middle of a run, as a scheduler sends it to make room", f"{PROMISE}; no error")
def test_sigusr1(train, seen, place, whole):
    ended = train("run_dir=run", SHORT, before=partial(after, 5, send, signal.SIGUSR1))
    assert ended.code == 0, ended.err
    told = "SIGUSR1: left after step 5 of 12; the same command goes on."
    assert ended.err == f"stec: {told}\n"
    assert goes_on(train, place / "run", whole, 5)
    seen(f"survived: exit code 0: {told}")


@pytest.mark.fault(3, "SIGINT, and a second one more than a second later", "ends at once; what was saved goes on")
@pytest.mark.slow
def test_a_second_sigint(train, seen, place, whole):
    ended = train("run_dir=run", SHORT, before=partial(after, 5, send_twice, signal.SIGINT))
    assert ended.code == -signal.SIGINT
    assert ended.err == ""
    assert goes_on(train, place / "run", whole, 3)
    seen("survived: ended by SIGINT within the step, the same command went on from step 3")
