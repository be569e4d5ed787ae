"""A good decoder, and some that are each wrong in one way."""

import numpy as np
import torch
from toy_source import Corners, Sources

from zoo.astray import astray


class Ignores(Corners):
    """Says that it performs the window, and shows the same corner whatever the action."""

    def __init__(self, space):
        pass

    def __call__(self, raw, actions=None):
        return tuple(self.whole(raw)[:, :1, :1] for _ in actions)


class Plain(Sources):
    def __init__(self, space):
        pass


class Dotted(Plain):
    extensions = (".toy",)


class Swapped(Plain):
    def extent(self, raw):
        return super().extent(raw)[::-1]

    def whole(self, raw):
        return super().whole(raw) if len(raw) < 2 else Sources().whole(bytes([raw[0], raw[1]]) + raw[2:])


class Flickers(Plain):
    def whole(self, raw):
        return super().whole(raw) + int(astray())


class PerformsInSecret(Plain):
    def __call__(self, raw, actions=None):
        whole = self.whole(raw)
        return (whole if actions is None else whole + int(1000 * float(actions[0].sum())) % 7,)


class Unfinished(Plain):
    def finish(self, x):
        return x


class Crashes(Plain):
    def extent(self, raw):
        return raw[0], raw[1]


class Swallows(Plain):
    """Fills up what is not there."""

    def extent(self, raw):
        return (*raw[:2], 1, 1)[:2] if len(raw) >= 2 and raw[0] * raw[1] else (1, 1)

    def whole(self, raw):
        height, width = self.extent(raw)
        return torch.from_numpy(np.resize(np.frombuffer(raw[2:] or b"\0", np.uint8), (1, height, width)).copy())
