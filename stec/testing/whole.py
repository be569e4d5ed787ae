"""The parts together: one batch is learnt by heart, as training would learn it."""

import math

import torch

from stec.errors import StecError
from stec.identity.simclr import SimCLR
from stec.manipulation.binned import Binned
from stec.objective import STEC, Term
from stec.testing.bench import Bench
from stec.testing.fault import Fault, Skip, require

STEPS = 50
_LEARNT = 0.8
_HIDDEN = 64


def views(bench: Bench) -> None:
    """With each decoder, the samples of the example become a batch, and two views of each."""
    for name in bench.names("decoder"):
        try:
            bench.flow(name)
        except StecError as error:
            raise Fault(f"with decoder {name}: {error}") from error


def overfit(bench: Bench) -> None:
    """In 50 steps on one batch the loss falls to four fifths of its start, or lower."""
    if bench.failed:
        raise Skip(f"{bench.failed[0]} fails by itself: mend that first")
    flow = bench.flowing(bench.first("decoder"))
    torch.manual_seed(0)
    encoder = bench.encoder(_learner(bench))()
    actions, decoder = bench.space, bench.working("decoder", bench.first("decoder"))
    extents = torch.tensor([decoder.open(raw).extent for raw in bench.raws(decoder)])
    identity: dict[str, tuple[float, Term]] = {"simclr": (1.0, SimCLR(encoder.dims, hidden=_HIDDEN, out=_HIDDEN // 2))}
    manipulation: dict[str, tuple[float, Term]] = {}
    try:
        if actions.components:
            manipulation = {"binned": (1.0, Binned(encoder.dims, actions, extents, hidden=_HIDDEN))}
        stec = STEC(encoder, identity, manipulation, {}).train()
    except StecError as error:
        raise Fault(f"the objective cannot be built: {error}") from error
    optimizer = torch.optim.Adam([p for p in stec.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(STEPS):
        loss = stec(flow.views).loss
        losses.append(float(loss.detach()))
        require(math.isfinite(losses[-1]), f"the loss is {losses[-1]} after {len(losses) - 1} steps.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    first, last = losses[0], sum(losses[-5:]) / 5
    require(
        last <= _LEARNT * first,
        f"the loss only went from {first:.2f} to {last:.2f} in {STEPS} steps on one batch: does the encoder see what"
        " was done to its input, and does `act` do what `relative` tells?",
    )


def _learner(bench: Bench) -> str:
    """The first encoder that has anything to learn."""
    for name in bench.names("encoder"):
        if any(p.requires_grad for p in bench.encoder(name)().parameters()):
            return name
    raise Skip("the modality has no encoder that learns")
