"""What it takes to make a batch, part by part: a few are made here, on one core, as a loading process makes them."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from stec.actions import ActionSpace
from stec.decoder import Decoder
from stec.samples import Source, make_batch
from stec.shards.order import epoch_order

PARTS = ("read", "open", "draw", "decode", "stack")


class Making(NamedTuple):
    """seconds: per sample, {part: seconds}. read: bytes from the disk, checked; open: the header; draw: the actions;
    decode: and whatever of the actions is performed there; stack: the rest, mostly a batch of single samples."""

    seconds: dict[str, float]

    @property
    def rate(self) -> float:
        """Samples a second that one core makes."""
        return 1 / max(sum(self.seconds.values()), 1e-9)

    @property
    def shares(self) -> str:
        """In words: which part takes how much of the time."""
        return ", ".join(f"{part} {seconds * self.rate:.0%}" for part, seconds in self.seconds.items())

    def __str__(self) -> str:
        return f"one core makes {self.rate:,.0f} samples/s: {self.shares}"


def time_making(
    source: Source, decoder: Decoder, space: ActionSpace, *, num_views: int, batch_size: int, least: float = 1.0
) -> Making:
    """Make batches for at least so many seconds, on one thread; errors are those of `make_batch`."""
    spent = dict.fromkeys(PARTS, 0.0)
    reads: Any = _Timed(source, {"read": "read"}, spent)
    decodes: Any = _Timed(decoder, {"open": "open", "whole": "decode", "__call__": "decode"}, spent)
    draws: Any = _Timed(space, {"sample": "draw"}, spent)
    order = epoch_order(source.shard_sizes, seed=0, epoch=0, window=8)
    threads, made, begun = torch.get_num_threads(), 0, 0.0
    torch.set_num_threads(1)
    try:
        make_batch(source, decoder, space, num_views, 0, 0, order[:4].tolist())  # files are open, libraries loaded
        begun = time.perf_counter()
        while not made or time.perf_counter() - begun < least:
            start = made % max(1, len(order) - batch_size + 1)
            numbers = order[start : start + batch_size].tolist()
            make_batch(reads, decodes, draws, num_views, 0, 0, numbers)
            made += len(numbers)
        whole = time.perf_counter() - begun
    finally:
        torch.set_num_threads(threads)
    spent["stack"] = max(0.0, whole - sum(spent.values()))
    return Making({part: seconds / made for part, seconds in spent.items()})


class _Timed:
    """Stands for a source, decoder or action space; the time in some of its methods, {method: part}, is counted."""

    def __init__(self, original: Any, methods: Mapping[str, str], spent: dict[str, float]):
        self._original, self._methods, self._spent = original, methods, spent

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._original, name)
        return self._counted(found, self._methods[name]) if name in self._methods else found

    def __call__(self, *given: Any) -> Any:
        return self._counted(self._original, self._methods["__call__"])(*given)

    def _counted(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def counted(*given: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*given)
            finally:
                self._spent[part] += time.perf_counter() - begun

        return counted
