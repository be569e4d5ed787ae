"""A good action space, and some that are each wrong in one way."""

import torch
from toy_space import Windows

from stec import affine
from stec.actions import Component, Relative
from stec.rng import uniform
from zoo.astray import astray


class Level:
    """Something added to all numbers, uniform within 0 and 1; felt as the difference."""

    num_params = 1
    components: tuple[Component, ...] = (Component("level", "units", -1, 1),)

    def sample(self, keys, extent, view):
        return uniform(keys, view, "level", 1).float()

    def act(self, x, action, view):
        return x + action.view(-1, *[1] * (x.dim() - 1))

    def relative(self, a, b):
        return Relative(b - a, torch.ones_like(a, dtype=torch.bool))

    def trusted(self, a, b):
        return torch.ones(len(a), dtype=torch.bool, device=a.device)

    def still(self, extent):
        return torch.zeros(len(extent), 1)


class Unitless(Level):
    components = (Component("level", ""),)


class Double(Level):
    def sample(self, keys, extent, view):
        return super().sample(keys, extent, view).double()


class NarrowMask(Level):
    components = (*Level.components, Component("twice", "units"))

    def relative(self, a, b):
        return Relative(torch.cat([b - a, 2 * (b - a)], dim=1), torch.ones(len(a), 1, dtype=torch.bool))


class Astray(Level):
    def sample(self, keys, extent, view):
        return super().sample(keys, extent, view) + astray()


class AstrayAct(Level):
    def act(self, x, action, view):
        return super().act(x, action, view) + astray()


class AstrayRelative(Level):
    components = (Component("level", "units"),)

    def relative(self, a, b):
        return Relative((b - a) * astray(), torch.ones_like(a, dtype=torch.bool))


class SeesItsNeighbours(Level):
    def act(self, x, action, view):
        return super().act(x, action, view) - x.mean()


class Blended(Level):
    """The first action leaks into what should be a difference."""

    components = (Component("level", "units"),)

    def relative(self, a, b):
        return Relative(b - 0.9 * a, torch.ones_like(a, dtype=torch.bool))


class WrongOrder(Windows):
    """A2 inv(A1): the way there and back are right, but two steps do not make the whole way."""

    def act(self, x, action, view):
        return x + 0

    def relative(self, a, b):
        values = affine.entries(affine.compose(self.matrix(b), affine.invert(self.matrix(a))))
        return Relative(values.float(), self.trusted(a, b)[:, None].expand_as(values))


class OutOfRange(Level):
    components = (Component("level", "units", -0.5, 0.5),)


class OffItsLevels(Level):
    components = (Component("level", "units", levels=(0.0, 1.0)),)

    def relative(self, a, b):
        return Relative(1.1 * (b > a), torch.ones_like(a, dtype=torch.bool))


class Deaf(Level):
    """Whatever was done, it feels nothing."""

    def relative(self, a, b):
        return Relative(torch.zeros_like(a), torch.ones_like(a, dtype=torch.bool))


class SeedBound(Level):
    """Another seed draws from a corner of what the first drew from."""

    def sample(self, keys, extent, view):
        return super().sample(keys, extent, view) * (1.0 if int(keys[0, 0]) == 0 else 0.01)


class HalfStill(Level):
    def still(self, extent):
        return torch.zeros(1, 1)


class Unsendable(Level):
    def __init__(self):
        self.how = lambda: None
