"""Samples in memory with the face of shards, and decoders of a toy format: height, width, height * width bytes."""

import os
import re
import signal
import time
from itertools import accumulate

import torch
from torch import Tensor
from toy_space import Windows

from stec.actions import Compose
from stec.decoder import Opened
from stec.errors import DataError

SPACE = Compose({"windows": Windows()})


class Memory:
    """Samples {extension: bytes} in shards of the given sizes; reading one of `damaged` fails."""

    def __init__(self, samples, shard_sizes=None, damaged=(), classes=None):
        self.samples, self.damaged = list(samples), frozenset(damaged)
        self.num_samples = len(self.samples)
        self.shard_sizes = tuple(shard_sizes or (self.num_samples,))
        self.meta = {} if classes is None else {"classes": classes}

    def read(self, sample):
        if sample in self.damaged:
            raise DataError(f"{self.where(sample)}.toy is damaged: its bytes are not those that were indexed.")
        return self.samples[sample]

    def where(self, sample):
        shard = sum(end <= sample for end in accumulate(self.shard_sizes))
        return f"toy-{shard}.tar: {sample:04d}"


def toy_sample(number, height=5, width=6, label=None):
    pixels = bytes((number * 7 + place) % 256 for place in range(height * width))
    sample = {"toy": bytes((height, width)) + pixels}
    return sample if label is None else sample | {"cls": str(label).encode()}


def memory(num=23, shard_sizes=(7, 4, 12), **options):
    """Samples whose labels are their numbers modulo 5."""
    return Memory([toy_sample(number, label=number % 5) for number in range(num)], shard_sizes, **options)


class Sources:
    """The whole sample; everything is performed later."""

    extensions = ("txt", "toy")
    performs = 0

    def open(self, raw):
        if len(raw) < 2:
            raise DataError("a sample without a header.")
        return Opened((raw[0], raw[1]), raw)

    def whole(self, opened):
        (height, width), raw = opened
        if len(raw) != 2 + height * width:
            raise DataError(f"{len(raw)} bytes are not {height}x{width}.")
        return torch.frombuffer(bytearray(raw[2:]), dtype=torch.uint8).view(1, height, width)

    def finish(self, x: Tensor) -> Tensor:
        return x.float() / 255


class Corners(Sources):
    """Begun views: the value at the corner of the window of each action, and the corner itself, uint8 [3]."""

    performs = 1

    def __call__(self, opened, actions):
        whole = self.whole(opened)
        return tuple(torch.tensor([int(whole[0, int(i), int(j)]), int(i), int(j)]).byte() for i, j in actions[:, :2])


class Faulty(Sources):
    """Does something worse to samples that begin with the value `trigger`: a bug, a death, a slow answer, or one that
    never comes, from where no signal is heard."""

    def __init__(self, fault, trigger):
        self.fault, self.trigger = fault, trigger

    def whole(self, opened):
        if opened.content[2] == self.trigger:
            if self.fault == "bug":
                raise ZeroDivisionError("nothing to divide")
            if self.fault == "death":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "slow":
                time.sleep(2.5)
            else:
                re.match(r"(a+)+$", "a" * 60 + "b")
        return super().whole(opened)


def assert_same(one, other):
    """Two batches, or two lists of them, equal bit for bit."""
    if isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
        return
    assert len(one.x) == len(other.x)
    for a, b in zip((*one.x, *one[1:]), (*other.x, *other[1:]), strict=True):
        assert (a is None and b is None) or (a.dtype == b.dtype and torch.equal(a, b))
