"""How a table stands: for each row the paper's number, ours, and what its difference to another row can tell."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stec.report import evidence, ledger
from stec.report.evidence import Mean
from stec.report.ledger import Line
from stec.report.tables import Row, Table


class Standing(NamedTuple):
    """A row at one scale; all numbers in points. seeds: those that count; stale: lines of an older recipe, not counted;
    ours: None if it was never run; difference: to the row it is compared with, over the seeds of both."""

    row: Row
    against: Row | None
    seeds: tuple[int, ...]
    stale: int
    ours: Mean | None
    published: float | None
    difference: Mean | None
    detectable: float | None
    verdict: str


def values(lines: Mapping[int, Line], metric: str) -> dict[int, float]:
    """{seed: points} of the runs that have this metric: accuracies, which are shares, in per cent."""
    factor = 100.0 if metric.endswith(("/top1", "/acc")) else 1.0
    return {seed: factor * line.metrics[metric] for seed, line in lines.items() if metric in line.metrics}


def spread(table: Table, scale: str, measured: Mapping[str, Mapping[int, float]]) -> float | None:
    """Standard deviation of a paired difference at this scale, pooled over the contrasts with two pairs or more."""
    found = [
        evidence.paired(measured[row.id], measured[other.id])
        for row, other in table.contrasts(scale)
        if row.id in measured and other.id in measured
    ]
    return evidence.pooled([each for each in found if each is not None])


def standing(table: Table, scale: str, lines: Sequence[Line], hashes: Mapping[str, str], metric: str) -> list[Standing]:
    """All rows of a table at a scale. hashes: {row: the hash of its recipe of today}."""
    rows = table.at(scale)
    split = {name: ledger.counted(list(lines), table.name, scale, name, hashes[name]) for name in rows}
    measured = {name: values(found, metric) for name, (found, _) in split.items()}
    usual = spread(table, scale, measured)
    told = []
    for name, row in rows.items():
        own, other = measured[name], rows.get(row.against or "")
        difference, smallest, verdict = None, None, ""
        if other is not None:
            difference = evidence.paired(own, measured[other.id])
            reckoned = usual or table.assumed(row)
            if difference is not None:
                smallest = evidence.detectable(difference.spread or reckoned, difference.n)
            verdict = evidence.verdict(difference, table.sought(row), reckoned)
        told.append(
            Standing(
                row,
                other,
                tuple(sorted(own)),
                split[name][1],
                evidence.mean(list(own.values())) if own else None,
                None if other is None else table.published(row),
                difference,
                smallest,
                verdict,
            )
        )
    return told


HEADS = ("row", "paper", "ours", "seeds", "compared with", "paper's", "ours", "could be seen", "verdict")


def cells(one: Standing) -> tuple[str, ...]:
    """A line of the table under HEADS, as plain text."""
    paper = one.row.paper
    stale = f" ({one.stale} stale)" if one.stale else ""
    return (
        one.row.label,
        "-" if paper is None else f"{paper.mean:g}" + (f" ± {paper.std:g}" if paper.std is not None else ""),
        "not run" if one.ours is None else _mean(one.ours, ""),
        f"{len(one.seeds)}{stale}",
        "" if one.against is None else one.against.label,
        "" if one.published is None else f"{one.published:+.2g}",
        "" if one.difference is None else _mean(one.difference, "+"),
        "" if one.detectable is None else f"{one.detectable:.2f}",
        one.verdict,
    )


def _mean(found: Mean, sign: str) -> str:
    half = "" if found.half is None else f" ± {found.half:.2f}"
    return f"{found.mean:{sign}.2f}{half}"
