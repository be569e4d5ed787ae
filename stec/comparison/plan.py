"""Which runs of a table come next: evidence per hour.

The unit is a pair: the two runs of a contrast with one seed. A pair is worth `evidence.gain`, the drop of the variance
of that contrast's difference in units of the difference looked for, squared; it costs the hours of those of its runs
that are still missing. Contrasts that have no pair yet come first, the best of them first; then whatever tells most in
an hour. A run that several contrasts share is paid for once. Runs that no contrast asks for come last.
"""

from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from stec.comparison.evidence import gain
from stec.comparison.tables import Table


class Planned(NamedTuple):
    """A run to come. hours: what it should take; worth: of the pair it belongs to, per hour (0: no pair)."""

    row: str
    seed: int
    hours: float
    worth: float


def order(
    table: Table,
    scale: str,
    done: Set[tuple[str, int]],
    barred: Set[tuple[str, int]],
    seeds: int,
    hours: Mapping[str, float],
    spread: float | None,
    spent: Mapping[tuple[str, int], float] | None = None,
) -> list[Planned]:
    """All runs (row, seed) with seeds below `seeds` that are neither done nor barred, the best first.

    hours: {row: of a run}; spread: standard deviation of a pair's difference at this scale, in points; None: what the
    table assumes; spent: {run: hours} of runs that were begun and stopped, which go on where they were.
    """
    contrasts, got, plan = table.contrasts(scale), set(done), []

    def left(run: tuple[str, int]) -> float:
        whole = hours[run[0]]
        # Some of what was spent since its last checkpoint is lost, and a guess may be too small.
        return max(whole - (spent or {}).get(run, 0.0), whole / 10)

    while True:
        best: tuple[bool, float, list[tuple[str, int]]] | None = None
        for row, other in contrasts:
            n = sum((row.id, seed) in got and (other.id, seed) in got for seed in {seed for _, seed in got})
            for seed in range(seeds):
                # What it is compared with first: other contrasts may want it too.
                missing = [run for run in ((other.id, seed), (row.id, seed)) if run not in got]
                if not missing or not barred.isdisjoint(missing):
                    continue
                worth = gain(table.sought(row), spread or table.assumed(row), n)
                rate = worth / sum(map(left, missing))
                if best is None or (n == 0, rate) > best[:2]:
                    best = (n == 0, rate, missing)
        if best is None:
            break
        plan += [Planned(*run, left(run), best[1]) for run in best[2]]
        got.update(best[2])
    rest = [(name, seed) for seed in range(seeds) for name in table.at(scale)]
    return plan + [Planned(*run, left(run), 0.0) for run in rest if run not in got | barred]


def estimated(table: Table, scale: str, seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """{row: hours of a run at this scale}: the mean of its own runs; else its guess, times the hours of the rows that
    have run over the guesses for them. seconds: {row: of its runs at this scale}."""
    rows = table.at(scale)
    own = {name: _hours(found) for name, found in seconds.items() if found and name in rows}
    slower = sum(own.values()) / sum(rows[name].hours[scale] for name in own) if own else 1.0
    return {name: own.get(name, slower * row.hours[scale]) for name, row in rows.items()}


def _hours(seconds: Sequence[float]) -> float:
    """Their mean in hours, a second at least: nothing is free."""
    return max(sum(seconds) / len(seconds), 1.0) / 3600
