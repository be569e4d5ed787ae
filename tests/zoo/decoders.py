"""A good decoder, and some that are each wrong in one way."""

import numpy as np
import torch
from toy_source import Corners, Sources

from stec.decoder import Opened
from zoo.astray import astray


class Ignores(Corners):
    """Says that it performs the window, and shows the same corner whatever the action."""

    def __init__(self, space):
        pass

    def __call__(self, opened, actions):
        return tuple(self.whole(opened)[:, :1, :1] for _ in actions)


class Plain(Sources):
    def __init__(self, space):
        pass


class Dotted(Plain):
    extensions = (".toy",)


class Swapped(Plain):
    def open(self, raw):
        extent, raw = super().open(raw)
        return Opened(extent[::-1], raw)

    def whole(self, opened):
        return super().whole(Opened(opened.extent[::-1], opened.content))


class Flickers(Plain):
    def whole(self, opened):
        return super().whole(opened) + int(astray())


class Unfinished(Plain):
    def finish(self, x):
        return x


class Crashes(Plain):
    def open(self, raw):
        return Opened((raw[0], raw[1]), raw)


class Swallows(Plain):
    """Fills up what is not there."""

    def open(self, raw):
        return Opened((*raw[:2], 1, 1)[:2] if len(raw) >= 2 and raw[0] * raw[1] else (1, 1), raw)

    def whole(self, opened):
        (height, width), raw = opened
        return torch.from_numpy(np.resize(np.frombuffer(raw[2:] or b"\0", np.uint8), (1, height, width)).copy())
