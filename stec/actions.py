"""Actions: plain tensors [B, P], drawn once from keys, performed anywhere; and what the first view would feel of them.

Legend: B pairs, V views, P parameters, K components, d dimensions of the signal.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from stec.errors import UsageError


class Component(NamedTuple):
    """One number of a relative action: name, unit, range. `levels`: values, if discrete; `period` > 0: circular."""

    name: str
    unit: str
    low: float = float("-inf")
    high: float = float("inf")
    levels: tuple[float, ...] = ()
    period: float = 0.0


class Relative(NamedTuple):
    """The efference copy of a pair: values float [B, K] and whether each may be learnt from, bool [B, K]."""

    values: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> "Relative":
        return Relative(self.values.to(device, non_blocking=True), self.valid.to(device, non_blocking=True))


class ActionSpace(Protocol):
    """What can be done to a signal. `components` = () makes it a nuisance: performed, never predicted.

    A space may have two things more. num_views: the fewest views of each sample with which all that it is told to do is
    done (1 without it). disturbs(a, b) -> bool [B]: pairs of which the *other* parts' copies would be wrong, and only
    theirs, because this action changes the frame they are told in (none without it).
    """

    num_params: int
    components: tuple[Component, ...]

    def sample(self, keys: Tensor, extent: Tensor, view: int) -> Tensor:
        """Draw float32 [B, P] on the CPU from keys int64 [B, 3], for samples of size extent int64 [B, d]."""

    def act(self, x: Tensor, action: Tensor, view: int) -> Tensor:
        """Perform the actions [B, P] on x [B, ...]; deterministic, draws nothing."""

    def relative(self, a: Tensor, b: Tensor) -> Relative:
        """The action that leads from a [B, P] to b [B, P], in the space's frame."""

    def trusted(self, a: Tensor, b: Tensor) -> Tensor:
        """bool [B]: may this pair's efference copies, of every part, be learnt from?"""


class Compose:
    """Several action spaces one after the other; parameters and components side by side.

    UsageError if there is none, or if two components share a name (metrics and answers are told by name).
    """

    def __init__(self, parts: Mapping[str, ActionSpace]):
        if not parts:
            raise UsageError("the action space is empty: at least one part is needed.")
        self.parts = dict(parts)
        self.components = tuple(c for part in self.parts.values() for c in part.components)
        names = [c.name for c in self.components]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"two parts of the action space ({', '.join(parts)}) have a component {twice[0]!r}.")
        self.slices: dict[str, slice] = {}
        self.num_params = 0
        for name, part in self.parts.items():
            self.slices[name] = slice(self.num_params, self.num_params + part.num_params)
            self.num_params += part.num_params

    def sample(self, keys: Tensor, extent: Tensor, view: int) -> Tensor:
        return torch.cat([part.sample(keys, extent, view) for part in self.parts.values()], dim=-1)

    def act(self, x: Tensor, action: Tensor, view: int, start: int = 0) -> Tensor:
        """Perform the parts from number `start` on (the decoder may have performed the leading ones)."""
        for name, part in list(self.parts.items())[start:]:
            x = part.act(x, action[:, self.slices[name]], view)
        return x

    def relative(self, a: Tensor, b: Tensor) -> Relative:
        each = {n: part.relative(a[:, self.slices[n]], b[:, self.slices[n]]) for n, part in self.parts.items()}
        valid = {name: copy.valid for name, copy in each.items()}
        for disturber, part in self.parts.items():
            if hasattr(part, "disturbs"):
                columns = self.slices[disturber]
                clear = ~part.disturbs(a[:, columns], b[:, columns])[:, None]
                valid = {name: mask if name == disturber else mask & clear for name, mask in valid.items()}
        values = torch.cat([copy.values for copy in each.values()], dim=-1)
        return Relative(values, torch.cat([*valid.values()], dim=-1) & self.trusted(a, b)[:, None])

    def trusted(self, a: Tensor, b: Tensor) -> Tensor:
        each = [part.trusted(a[:, self.slices[name]], b[:, self.slices[name]]) for name, part in self.parts.items()]
        return torch.stack(each).all(dim=0)


def sample_views(space: ActionSpace, keys: Tensor, extent: Tensor, num_views: int) -> Tensor:
    """The actions float32 [V, B, P] of all views of the samples named by keys int64 [B, 3]."""
    return torch.stack([space.sample(keys, extent, view) for view in range(num_views)])
