"""Numbers that are none, and representations that come to say nothing."""

import math
import os
import socket
from functools import partial

import pytest
import torch
from several import a_rank, both
from tiny_run import BARE, TINY, metrics, same, weights

from stec.identity.simclr import SimCLR
from stec.objective import STEC
from stec.training import checkpoint


def spoilt(number: float, step: int, rank: int = 0) -> None:
    """From this optimiser step on, the identity loss of this rank is no number."""
    before, forward = STEC.before_step, SimCLR.forward
    now = 0

    def counted(stec, done, total):
        nonlocal now
        now = done + 1
        before(stec, done, total)

    def ill(term, features, views):
        out = forward(term, features, views)
        if now != step or int(os.environ.get("RANK", "0")) != rank:
            return out
        bad = out.loss * number
        return out._replace(loss=bad, sums={"train/loss_id": (bad.detach(), torch.ones(()))})

    STEC.before_step, SimCLR.forward = counted, ill


def steep(step: int) -> None:
    """At this step the loss is finite, but its gradient is not."""
    before = STEC.before_step

    def begun(stec, done, total):
        before(stec, done, total)
        if done + 1 == step:
            weight = next(stec.encoder.parameters())
            handle = weight.register_hook(lambda g: (handle.remove(), g * torch.nan)[1])

    STEC.before_step = begun


def good(run, step):
    """The newest checkpoint is that of this step, and all in it is finite."""
    (*_, last) = checkpoint.stored(run / "checkpoints")
    state = checkpoint.load(last)
    assert state["step"] == step
    assert all(t.isfinite().all() for name, t in state["model"].items() if not name.endswith("edges"))
    return True


@pytest.mark.fault(
    43, "a loss of nan at step 7", "named, with step and rate; nothing of it is kept; then resumed exactly"
)
def test_a_loss_that_is_no_number(train, seen, place):
    ended = train("run_dir=run", *BARE, before=partial(spoilt, math.nan, 7))
    assert ended.code == 3
    assert ended.refusal.startswith("train/loss_id is not a finite number, from about step 7 on (learning rate")
    assert "step-00000006.ckpt" in ended.refusal
    assert good(place / "run", 6)
    assert '"step": 8' not in metrics(place / "run")
    assert train("run_dir=run", *BARE).code == 0
    assert train("run_dir=whole", *BARE).code == 0
    assert same(weights(place / "run"), weights(place / "whole"))
    assert metrics(place / "run") == metrics(place / "whole")
    seen(ended)


@pytest.mark.fault(43, "a loss of inf at step 5", "the same")
def test_an_infinite_loss(train, seen, place):
    ended = train("run_dir=run", *BARE, before=partial(spoilt, math.inf, 5))
    assert ended.code == 3
    assert ended.refusal.startswith("train/loss_id is not a finite number, from about step 5 on")
    assert good(place / "run", 3)
    seen(ended)


@pytest.mark.fault(43, "a finite loss whose gradient is nan", "no checkpoint of such weights; the last good one stays")
def test_weights_that_are_no_numbers(train, seen, place):
    ended = train("run_dir=run", *BARE, "training.log_every=100", before=partial(steep, 9))
    assert ended.code == 3
    assert "not finite any more at step 9" in ended.refusal
    assert good(place / "run", 6)
    seen(ended)


@pytest.mark.slow
@pytest.mark.fault(43, "a loss of nan on one rank of two", "both end, and the rank is named")
def test_one_rank_s_loss_is_no_number(command, seen, place):
    with socket.create_server(("127.0.0.1", 0)) as free:
        env = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = [
        command.start("stec-train", *TINY, "data=shards", "run_dir=run", *BARE, env=env | {"RANK": str(rank)},
                      before=partial(both, partial(spoilt, math.nan, 7, 1), a_rank))
        for rank in (0, 1)
    ]  # fmt: skip
    first, second = (one.wait() for one in started)
    assert (first.code, second.code) == (3, 3)
    assert "from about step 7 on (at first on rank 1)" in first.refusal
    assert good(place / "run", 6)
    seen(first)


# A transformer: batch norms would keep the spread of features up for some hundred steps.
NARROW = [
    *("encoder=vit_mini", "encoder.image_size=16", "encoder.depth=2", "encoder.embed_dim=48", "manipulation=none"),
    *("batch_size=16", "training.epochs=5", *BARE),
]
UNSAFE = ["identity.byol.momentum=null", "identity.byol.predictor=false", "identity.byol.stop_gradient=false"]
SMALL = {
    "simclr": [],
    "simsiam": ["identity.simsiam.hidden=32", "identity.simsiam.out=16", "identity.simsiam.bottleneck=8"],
    "byol": ["identity.byol.hidden=32", "identity.byol.out=16"],
    "vicreg": ["identity.vicreg.hidden=32", "identity.vicreg.out=16"],
}
COLLAPSING = [
    ("simclr", "far too high a rate", ["optimizer.lr=1"]),
    ("simsiam", "too high a rate", ["optimizer.lr=0.1"]),
    ("byol", "no teacher, predictor, stopped gradient", [*UNSAFE, "optimizer.lr=1e-2", "training.epochs=12"]),
]


def told(command, place, name, *words):
    """The verdict of a run, as its log has it; AssertionError if its report says something else."""
    tiny = [word for word in TINY if not word.startswith(("encoder.", "manipulation.", "identity."))]
    small = [word for word in SMALL[name] or TINY if word.startswith("identity.")]
    words = ["data=shards", "run_dir=run", *tiny, f"identity={name}", *NARROW, *small, *words]
    ended = command("stec-train", *words)
    assert ended.code == 0, ended.err
    lines = (place / "run" / "train.log").read_text().splitlines()
    verdicts = [line.partition("WARNING ")[2] for line in lines if "collapsing" in line]
    assert ("the representation is collapsing" in (place / "run" / "report.html").read_text()) == bool(verdicts)
    return verdicts


def collapse(name, why, words):
    marks = [pytest.mark.fault(44, f"{name}, {why}", "said once, in log and report; the run goes on")]
    return pytest.param(name, words, id=name, marks=marks if name == "simclr" else [*marks, pytest.mark.slow])


@pytest.mark.parametrize(("name", "words"), [collapse(*each) for each in COLLAPSING])
def test_a_representation_that_collapses(name, words, command, seen, place):
    (verdict,) = told(command, place, name, *words)
    assert "the representation is collapsing" in verdict
    seen("survived: the representation is collapsing ...")  # the step, and the reason, are a matter of the machine


@pytest.mark.parametrize("name", ["simclr", *(pytest.param(n, marks=pytest.mark.slow) for n in SMALL if n != "simclr")])
def test_one_that_does_not_is_left_alone(name, command, place):
    longer = [] if name == "simclr" else ["training.epochs=12"]
    assert told(command, place, name, *longer) == []
