"""What runs can tell: intervals over seeds, differences of pairs, and how small a difference could have been seen.

Paired runs share their seed (so, the order of the data and the draws of the actions), and it is their differences that
are averaged. All tests are two-sided at 5 %, Student's t; powers are of the noncentral t distribution. Values, effects
and spreads (standard deviations of single differences) are in one unit, whichever.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

LEVEL = 0.05
POWER = 0.8
# More seeds than these nobody runs.
MOST = 10_000


class Mean(NamedTuple):
    """mean of n values; half: half the width of its 95 % interval, spread: standard deviation; None if n < 2."""

    n: int
    mean: float
    half: float | None
    spread: float | None

    @property
    def differs(self) -> bool:
        """Does the interval leave out 0?"""
        return self.half is not None and abs(self.mean) > self.half


def mean(values: Sequence[float]) -> Mean:
    """The mean of one or more independent values, with Student's interval."""
    n, middle = len(values), statistics.fmean(values)
    if n < 2:
        return Mean(n, middle, None, None)
    spread = statistics.stdev(values)
    return Mean(n, middle, float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * spread / math.sqrt(n), spread)


def paired(row: Mapping[int, float], other: Mapping[int, float]) -> Mean | None:
    """Mean of row - other over the seeds {seed: value} that both have; None if they share none."""
    seeds = sorted(row.keys() & other.keys())
    return mean([row[seed] - other[seed] for seed in seeds]) if seeds else None


def pooled(groups: Sequence[Mean]) -> float | None:
    """One standard deviation for all groups, sqrt(sum (n - 1) s^2 / sum (n - 1)); None if no group has one."""
    known = [(group.n - 1, group.spread) for group in groups if group.spread is not None]
    freedom = sum(n for n, _ in known)
    return math.sqrt(sum(n * spread**2 for n, spread in known) / freedom) if freedom else None


def power(effect: float, spread: float, n: int) -> float:
    """The chance that n pairs show a true difference of size `effect`: P(|T| > t_crit), T noncentral with n - 1 degrees
    of freedom and noncentrality effect / (spread / sqrt(n)). LEVEL if the effect is 0; 0 for a single pair."""
    if n < 2:
        return 0.0
    if effect == 0 or spread == 0:
        return LEVEL if effect == 0 else 1.0
    # T^2 is noncentral F, which covers both tails, and is computed without losing far ones.
    critical = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) ** 2
    found = float(stats.ncf.sf(critical, 1, n - 1, n * (effect / spread) ** 2))
    return found if math.isfinite(found) else 1.0


def detectable(spread: float, n: int) -> float | None:
    """The smallest true difference that n pairs show with a chance of POWER; None for fewer than two."""
    if n < 2:
        return None
    if spread == 0:
        return 0.0
    high = 2.0
    while power(high, 1.0, n) < POWER:
        high *= 2
    return spread * float(optimize.brentq(lambda effect: power(effect, 1.0, n) - POWER, 0.0, high))


def needed(effect: float, spread: float) -> int | None:
    """The fewest pairs that show a true difference of this size with a chance of POWER; None if not even MOST do."""
    effect = abs(effect)
    if power(effect, spread, MOST) < POWER:
        return None
    few, enough = 1, MOST  # power grows with n
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if power(effect, spread, middle) >= POWER else (middle, enough)
    return enough


def gain(effect: float, spread: float, n: int) -> float:
    """What the pair after the n-th is worth: the drop of the variance of a contrast, in units of the effect's square.

    The true difference is given a normal prior with the effect looked for as its standard deviation: after n pairs its
    variance is 1 / (1 / effect^2 + n / spread^2), that is r / (r + n) effects squared, r = (spread / effect)^2.
    """
    r = (spread / effect) ** 2
    return (r / (r + n) if n else 1.0) - r / (r + n + 1)


class Verdict(NamedTuple):
    """In words: is there a difference? brief: the same in few of them, for a narrow table."""

    full: str
    brief: str


def verdict(found: Mean | None, sought: Sequence[float], assumed: float | None) -> Verdict:
    """Whether the interval leaves out 0; if it does not, whether it leaves out all that is sought.

    sought: the difference looked for, with its sign, or two of the same size where either sign would do; empty if
    nobody says how large one would matter. assumed: the spread to reckon with as long as the pairs have none of their
    own; None if nobody knows it.
    """
    n = 0 if found is None else found.n
    seeds = f"{n} seed{'s' * (n != 1)}"
    if found is None or found.half is None:
        more = _count(needed(sought[0], assumed)) if sought and assumed else ""
        return Verdict(
            f"cannot be seen with {seeds}" + f": would need {more}" * bool(more),
            seeds + f", needs {more}" * bool(more),
        )
    if found.differs:
        return Verdict(*("higher",) * 2) if found.mean > 0 else Verdict(*("lower",) * 2)
    if sought and all(abs(each - found.mean) > found.half for each in sought):
        size = f"{sought[0]:+.2g}" if len(sought) == 1 else f"±{abs(sought[0]):.2g}"
        return Verdict(f"not seen: {size} is ruled out", "not seen")
    if not sought:
        return Verdict("undecided", "undecided")
    more = _count(_deciding(found, sought))
    return Verdict(f"undecided: would need {more}", f"undecided, needs {more}")


def _deciding(found: Mean, sought: Sequence[float]) -> int | None:
    """How many pairs, more than there are: those that decide 4 times in 5 (0 or the difference sought: either is ruled
    out as often if the other is true); if there are so many already, those that do if the mean stays what it is."""
    assert found.spread is not None
    usual = needed(sought[0], found.spread)
    if usual is None or usual > found.n:
        return usual
    gap = max(abs(found.mean), min(abs(each - found.mean) for each in sought))
    n = np.arange(found.n + 1, MOST + 1)
    enough = n[stats.t.ppf(1 - LEVEL / 2, n - 1) * found.spread / np.sqrt(n) < gap]
    return int(enough[0]) if len(enough) else None


def _count(seeds: int | None) -> str:
    return f"more than {MOST}" if seeds is None else str(seeds)
