"""A row of the table: what is compared with what, what it should reach, and what was measured."""

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


class Options(NamedTuple):
    """rounds: how often each way is taken; small: little data, to see that a row works rather than what it says;
    photographs, recordings: folders of JPEG and FLAC files to measure on instead of synthesised ones."""

    rounds: int = 9
    small: bool = False
    photographs: Path | None = None
    recordings: Path | None = None

    def described(self) -> str:
        """What was measured on, in a sentence."""
        pictures = f"JPEG files of {self.photographs.name} in R1 and R2" if self.photographs else "synthesised"
        sound = f"FLAC files of {self.recordings.name}" if self.recordings else "synthesised"
        return f"Pictures: {pictures}. Recordings: {sound}."


class Way(NamedTuple):
    """One way of doing the work: its name, its unit ("images/s (CPU)", "MiB"), one value for each round; missing: why
    there are none ("kornia is not installed"); base: the name of the way that it is told in multiples of, if that is
    not the first of its row."""

    name: str
    unit: str
    values: Sequence[float]
    missing: str = ""
    base: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


class Outcome(NamedTuple):
    """values: the figure that the row is about, one for each round (such as ours over theirs, of the same round); ways:
    all that was timed for it, first the base that the others are told in multiples of; limit: what keeps it from being
    better, in a sentence; missing: why there are no values ("no GPU", "kornia is not installed")."""

    values: Sequence[float] = ()
    ways: Sequence[Way] = ()
    limit: str = ""
    missing: str = ""


class Row(NamedTuple):
    """name: as in docs/benchmarks.md; floor, goal: what `values` should reach (None: nothing); most: they should stay
    below it; format: of one value."""

    name: str
    what: str
    floor: float | None
    goal: float | None
    measure: Callable[[Options], Outcome]
    most: bool = False
    format: str = "{:.2f}"

    def verdict(self, outcome: Outcome) -> str:
        """What the median reaches, as far as the rounds tell: "goal", "floor" or "NOT REACHED"; "undecided", if the
        median's interval has the floor inside; "ran", if there is nothing to reach; without values, why there are none.
        """
        if outcome.missing or not outcome.values:
            return outcome.missing or "nothing was measured"
        if self.floor is None:
            return "ran"
        low, high = interval(outcome.values)
        worst, best = (high, low) if self.most else (low, high)
        for name, bound in (("goal", self.goal), ("floor", self.floor)):
            if bound is not None and self._reaches(worst, bound):
                return name
        return "undecided" if self._reaches(best, self.floor) else "NOT REACHED"

    def _reaches(self, value: float, bound: float) -> bool:
        return value <= bound if self.most else value >= bound


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Between which two of the values the true median lies with a probability of 95 %, whatever their distribution: it
    is below the k-th smallest if fewer than k of n coins show heads. All of them, if they are fewer than six."""
    values, n = sorted(values), len(values)
    outside, cut = 0.5**n, 0  # the probability of so few heads, and how many values are left out at either end
    while cut < n // 2 and outside + math.comb(n, cut + 1) * 0.5**n <= 0.025:
        cut += 1
        outside += math.comb(n, cut) * 0.5**n
    return values[cut], values[n - 1 - cut]


def ratios(these: Sequence[float], those: Sequence[float]) -> list[float]:
    """these / those, round by round."""
    return [a / b for a, b in zip(these, those, strict=True)]


def per_second(name: str, seconds: Sequence[float], unit: str) -> Way:
    """A way told in items per second, from seconds per item."""
    return Way(name, unit, [1 / each for each in seconds])
