"""What is promised of any action space. Each check takes a `Space` and raises a Fault that says what is wrong.

Legend: B pairs, P parameters, K components, d dimensions of the signal.
"""

import pickle
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stec.actions import Component, Relative
from stec.rng import make_keys
from stec.testing.fault import Fault, Skip, require, same, shape

MANY = 4096
_FEW = 8
_EXACT = 1e-4


class Space(NamedTuple):
    """space: what is checked; extents int64 [N, d]: sizes of samples; x float [N, ...]: samples of these sizes on which
    it can act, None if it never does so itself, as when a decoder performs its actions."""

    space: Any
    extents: Tensor
    x: Tensor | None

    def draw(self, num: int, view: int = 0, seed: int = 0) -> Tensor:
        """Actions [num, P] for the extents in turn."""
        numbers = torch.arange(num)
        drawn: Tensor = self.space.sample(make_keys(seed, 0, numbers), self.extents[numbers % len(self.extents)], view)
        return drawn

    def act(self, num: int = _FEW) -> tuple[Tensor, Tensor]:
        """Samples [num, ...] and actions [num, P] for them."""
        if self.x is None:
            raise Skip("no decoder leaves these actions to `act`, or none could decode a sample for it")
        return self.x[torch.arange(num) % len(self.x)], self.draw(num)


def scramble(seed: int) -> None:
    """Leave the global random numbers in another state: what is drawn from keys does not notice."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def declaration(one: Space) -> None:
    """num_params is a number of at least 1; components have names of their own and units."""
    num, components = one.space.num_params, one.space.components
    require(isinstance(num, int) and num > 0, f"num_params={num!r}; a whole number of at least 1 was expected.")
    require(isinstance(components, tuple), f"components is a {type(components).__name__}; a tuple was expected.")
    for each in components:
        require(isinstance(each, Component), f"components holds {each!r}; a stec.actions.Component was expected.")
        require(bool(each.name and each.unit), f"the component {each.name!r} has no name or no unit.")
        require(each.low < each.high, f"the component {each.name!r} ranges from {each.low} to {each.high}.")
    names = [each.name for each in components]
    require(len(set(names)) == len(names), f"two components share a name: {', '.join(names)}.")


def shapes(one: Space) -> None:
    """sample gives float32 [B, P], finite; relative gives float values and bool valid [B, K]; trusted bool [B], and so
    disturbs, if there is one."""
    a, b = one.draw(_FEW), one.draw(_FEW, view=1)
    shape(a, [_FEW, one.space.num_params], "what `sample` gives")
    require(a.dtype == torch.float32, f"`sample` gives {a.dtype}; torch.float32 was expected.")
    require(bool(a.isfinite().all()), "`sample` gives numbers that are not finite.")
    copy, num = one.space.relative(a, b), len(one.space.components)
    require(
        isinstance(copy, Relative), f"`relative` gives a {type(copy).__name__}; stec.actions.Relative was expected."
    )
    shape(copy.values, [_FEW, num], "`relative(a, b).values`")
    shape(copy.valid, [_FEW, num], "`relative(a, b).valid` (the mask)")
    require(copy.values.is_floating_point(), f"`relative(a, b).values` is {copy.values.dtype}; floats were expected.")
    require(copy.valid.dtype == torch.bool, f"`relative(a, b).valid` is {copy.valid.dtype}; torch.bool was expected.")
    for name in ("trusted", *(["disturbs"] if hasattr(one.space, "disturbs") else [])):
        verdict = getattr(one.space, name)(a, b)
        shape(verdict, [_FEW], f"`{name}(a, b)`")
        require(verdict.dtype == torch.bool, f"`{name}(a, b)` is {verdict.dtype}; torch.bool was expected.")


def drawn_from_keys(one: Space) -> None:
    """The same keys give the same actions, whatever state the global random numbers are in; others give others."""
    scramble(1)
    first = one.draw(_FEW)
    scramble(2)
    again = one.draw(_FEW)
    require(
        same(first, again),
        "`sample` gives other actions for the same keys: draw with stec.rng.uniform(keys, ...), from nothing else.",
    )
    if one.space.components:
        for words, other in (("seeds", one.draw(MANY, seed=1)), ("views", one.draw(MANY, view=1))):
            alike = same(one.draw(MANY), other)
            require(not alike, f"`sample` gives the same actions for different {words}: there is nothing to predict.")


def alone_as_in_a_batch(one: Space) -> None:
    """A sample's action, view and efference copy do not depend on the others in its batch."""
    a, b = one.draw(_FEW), one.draw(_FEW, view=1)
    keys, extents = make_keys(0, 0, torch.arange(_FEW)), one.extents[torch.arange(_FEW) % len(one.extents)]
    together = one.space.relative(a, b)
    for i in range(_FEW):
        row = slice(i, i + 1)
        lone = one.space.sample(keys[row], extents[row], 0)
        require(same(lone, a[row]), f"`sample` gives row {i} of a batch another action than it gives the row alone.")
        copy = one.space.relative(a[row], b[row])
        alike = same(copy.values, together.values[row], 1e-6) and same(copy.valid, together.valid[row])
        require(alike, f"`relative` gives row {i} of a batch another copy than it gives the row alone.")
    if one.x is not None:
        x, action = one.act()
        views = one.space.act(x, action, 0)
        for i in range(_FEW):
            lone = one.space.act(x[i : i + 1], action[i : i + 1], 0)
            require(same(lone, views[i : i + 1], _EXACT), f"`act` gives row {i} of a batch another view than alone.")


def act_draws_nothing(one: Space) -> None:
    """act gives float [B, ...], finite, the same each time, and leaves samples and actions as they are."""
    x, action = one.act()
    before = x.clone(), action.clone()
    scramble(1)
    first = one.space.act(x, action, 0)
    shape(first, [_FEW, *[None] * (first.dim() - 1)], "what `act` gives")
    require(first.is_floating_point(), f"`act` gives {first.dtype}; floats were expected.")
    require(bool(first.isfinite().all()), "`act` gives numbers that are not finite.")
    kept = same(x, before[0]) and same(action, before[1])
    require(kept, "`act` changes its input in place: other views are made of it, so give a new tensor.")
    scramble(2)
    again = one.space.act(x, action, 0)
    require(same(first, again), "`act` gives another view for the same action: it must draw nothing (`sample` does).")


def relative_draws_nothing(one: Space) -> None:
    """relative gives the same each time and leaves the actions as they are."""
    a, b = one.draw(_FEW), one.draw(_FEW, view=1)
    before = a.clone(), b.clone()
    scramble(1)
    first = one.space.relative(a, b)
    scramble(2)
    again = one.space.relative(a, b)
    alike = same(first.values, again.values) and same(first.valid, again.valid)
    require(alike, "`relative` gives another copy for the same two actions: it must draw nothing.")
    require(same(a, before[0]) and same(b, before[1]), "`relative` changes its input in place.")


def still_does_nothing(one: Space) -> None:
    """still(extent), if there is one, is the action float32 [B, P] that leaves a sample as it is."""
    if not hasattr(one.space, "still"):
        if not one.space.components:
            raise Skip("a nuisance needs no `still`")
        raise Skip("it has no `still(extent)`, so `stec-eval action` cannot show samples as they are")
    action = one.space.still(one.extents)
    shape(action, [len(one.extents), one.space.num_params], "what `still` gives")
    require(action.dtype == torch.float32, f"`still` gives {action.dtype}; torch.float32 was expected.")


def can_be_pickled(one: Space) -> None:
    """It can be sent to a loading process, and draws the same there."""
    try:
        sent = pickle.loads(pickle.dumps(one.space))
    except Exception as error:
        raise Fault(f"it cannot be pickled, so not be sent to a loading process: {error}.") from error
    require(same(one.draw(_FEW), one._replace(space=sent).draw(_FEW)), "a pickled copy of it draws other actions.")


def on_a_gpu(one: Space) -> None:
    """act and relative compute where their input is, and the same as on a CPU."""
    if not torch.cuda.is_available():
        raise Skip("there is no GPU here")
    a, b = one.draw(_FEW), one.draw(_FEW, view=1)
    here, there = one.space.relative(a, b), one.space.relative(a.cuda(), b.cuda())
    require(there.values.is_cuda and there.valid.is_cuda, "`relative` leaves the GPU.")
    near = same(here.values, there.values.cpu(), 1e-3) and same(here.valid, there.valid.cpu())
    require(near, "`relative` tells another copy on a GPU than on a CPU.")
    require(one.space.trusted(a.cuda(), b.cuda()).is_cuda, "`trusted` leaves the GPU.")
    if one.x is not None:
        x, action = one.act()
        seen = one.space.act(x.cuda(), action.cuda(), 0)
        require(seen.is_cuda, "`act` leaves the GPU.")
        require(same(one.space.act(x, action, 0), seen.cpu(), 2e-2), "`act` gives another view on a GPU than on a CPU.")


CHECKS: tuple[Callable[[Space], None], ...] = (
    declaration,
    shapes,
    drawn_from_keys,
    alone_as_in_a_batch,
    act_draws_nothing,
    relative_draws_nothing,
    still_does_nothing,
    can_be_pickled,
    on_a_gpu,
)
