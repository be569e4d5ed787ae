"""Ways of doing the same work, taken in turn: on a machine that others use too, only what ran side by side compares."""

import re
import time
from collections.abc import Callable, Mapping

Work = Callable[[], int]
"""Does some work and says how many items that were."""


def interleaved(
    ways: Mapping[str, Work], rounds: int, *, least: float = 0.2, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Seconds per item, {way: one number for each round}: in every round each way works for at least `least` seconds,
    in every second round the last one first.

    clock: process_time counts the CPU time of this process alone; what waits for others (workers, a GPU) is timed with
    perf_counter. One more round before the first warms up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in reversed(ways.items()) if number % 2 else ways.items():
            begun, items = clock(), 0
            while not items or clock() - begun < least:
                items += way()
            if number:
                seconds[name].append((clock() - begun) / items)
    return seconds


def excuse(error: BaseException) -> str:
    """One sentence of what went wrong."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name.partition('.')[0]} is not installed"
    if "libtorchcodec" in str(error):
        return "torchcodec finds no FFmpeg here"
    said = re.sub(r" at 0x[0-9a-f]+", "", (str(error).strip().splitlines() or [""])[0])
    return f"{type(error).__name__}: {said.rstrip('.')[:120]}"
