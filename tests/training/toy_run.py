"""A whole training run without a modality: vectors under the toy window space, an encoder of two layers.

As a script it is one run of a command line: python toy_run.py DIRECTORY '{"json": "options"}'. `die` kills it without
notice after so many steps.
"""

import copy
import functools
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from toy_space import Windows

from stec.actions import Compose, sample_views
from stec.distributed import rank, world_size
from stec.encoder import Encoder, Features
from stec.errors import StecError
from stec.identity.simclr import SimCLR
from stec.manipulation.binned import Binned
from stec.objective import STEC, Out, Term, tally
from stec.probe import OnlineProbe
from stec.rng import make_keys, permutation
from stec.training.loop import train
from stec.training.optim import OPTIMIZERS
from stec.training.options import Hardware, Training
from stec.training.run import Run
from stec.views import Batch, Views, make_views

DIMS = {"pooled": 8}
EXTENT = torch.tensor([[32, 32]])


class Seen(Windows):
    """The window can be read off the sample: what was done is there to be learnt."""

    def act(self, x: Tensor, action: Tensor, view: int) -> Tensor:
        return x + F.pad(action / 16, (0, x.shape[1] - self.num_params))


SPACE = Compose({"window": Seen()})


class Small(Encoder):
    """[B, 12] -> [B, 8]; the options: batch norm, dropout."""

    def __init__(self, batch_norm: bool = False, dropout: float = 0.0):
        super().__init__()
        self.dims = dict(DIMS)
        self.first, self.second = nn.Linear(12, 16), nn.Linear(16, 8)
        self.norm = nn.BatchNorm1d(16) if batch_norm else nn.Identity()
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Features:
        return Features(self.second(self.drop(self.norm(self.first(x)).tanh())))


class Align(Term):
    """Brings the two views together and nothing else: with no identity to keep, everything collapses."""

    couples_batch = False

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        centre = torch.cat([f.pooled for f in features]).mean(dim=0)
        losses = sum((1 - F.cosine_similarity(f.pooled, centre[None])) for f in features)
        return Out(losses.mean(), {"train/loss_id": tally(losses)})


class Stream:
    """96 labelled vectors; batch `step` of an epoch is a pure function of (seed, epoch, step), as Stream's is."""

    replaced = 0

    def __init__(self, batch_size: int = 16, seed: int = 0, num: int = 96, poison: int | None = None):
        self.batch_size, self.seed, self.num, self.poison = batch_size, seed, num, poison
        self.steps_per_epoch = num // batch_size
        self.asked: list[tuple[int, int]] = []
        g = torch.Generator().manual_seed(1)
        self.labels = torch.arange(num) % 3
        self.x = torch.randn(num, 12, generator=g) + 2 * torch.randn(3, 12, generator=g)[self.labels]

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        order = torch.from_numpy(permutation(self.num, self.seed, epoch, "order"))
        mine = self.batch_size // world_size()
        for step in range(first, self.steps_per_epoch):
            self.asked.append((epoch, step))
            rows = order[step * self.batch_size + rank() * mine :][:mine]
            keys = make_keys(self.seed, epoch, rows)
            x = self.x[rows]
            if self.poison == epoch * self.steps_per_epoch + step:
                x = x * torch.nan
            yield Batch((x,), sample_views(SPACE, keys, EXTENT.expand(mine, 2), 2), keys, labels=self.labels[rows])


def complete(batch: Batch) -> Views:
    return make_views(batch, SPACE, ((0, 1),))


@functools.cache
def _binned() -> Binned:
    return Binned(DIMS, SPACE, EXTENT, hidden=16)


def binned() -> Binned:
    """A fresh head on bins that are fitted once."""
    fresh = copy.deepcopy(_binned())
    for layer in fresh.head.layers:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return fresh


def model(seed: int = 0, identity: Term | None = None, **options: Any) -> STEC:
    _binned()
    torch.manual_seed(seed)
    encoder = Small(**options)
    if identity is not None:
        return STEC(encoder, {"align": (1.0, identity)}, {}, {})
    return STEC(
        encoder,
        {"simclr": (2.0, SimCLR(DIMS, hidden=16, out=8))},
        {"binned": (0.5, binned())},
        {"online": (1.0, OnlineProbe(DIMS, 3))},
    )


def go(
    directory: Path | str,
    *,
    stec: STEC | None = None,
    stream: Stream | None = None,
    training: dict[str, Any] | None = None,
    hardware: dict[str, Any] | None = None,
    optimizer: dict[str, Any] | None = None,
    resume: str = "auto",
    evaluate: Any = None,
    complete: Any = complete,
) -> STEC:
    """One call of the command line, in this process; returns the trained model."""
    training = {"epochs": 4, "warmup_epochs": 1.0, "log_every": 4, "checkpoint_every": 5} | (training or {})
    optimizer = {"name": "adamw", "lr": 1e-2} | (optimizer or {})
    stream = stream or Stream()
    config = {"training": training, "optimizer": optimizer, "hardware": hardware or {}, "seed": stream.seed}
    with Run(directory, config, resume=resume) as run:
        if run.finished:
            run.say("this run is finished")
            return stec or model()
        options = Training(**training)
        machine = Hardware(**{"device": "cpu", "precision": "fp32", "num_workers": 0} | (hardware or {}))
        stec = stec or model()
        step = OPTIMIZERS[optimizer["name"]](
            stec, stream.batch_size, **{k: v for k, v in optimizer.items() if k != "name"}
        )
        data = {"fingerprint": f"toy {stream.num}", "batch_size": stream.batch_size, "seed": stream.seed}
        train(stec, stream, complete, step, options, machine, run, evaluate, spec={"format": 1}, data=data)
    return stec


def main(directory: str, text: str) -> int:
    given = json.loads(text)
    torch.set_num_threads(1)
    die, wait = given.pop("die", None), given.pop("wait", 0)
    done = 0

    def careless(batch: Batch) -> Views:
        nonlocal done
        done += 1
        if die is not None and done > die:
            os.kill(os.getpid(), signal.SIGKILL)
        if wait and done > wait:
            print("now", flush=True)
            signal.sigtimedwait([], 0.2)
        return complete(batch)

    stec = model(**given.pop("model", {}))
    try:
        go(directory, stec=stec, complete=careless, evaluate=lambda step: {"eval/step": float(step)}, **given)
    except StecError as error:
        print(f"stec: error: {error}", file=sys.stderr)
        return error.exit_code
    torch.save(stec.state_dict(), Path(directory) / "end.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
