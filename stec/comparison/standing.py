"""How a table stands: for each row the paper's number, ours, and what its difference to another row can tell."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stec.catalogue import nearest
from stec.comparison import evidence, ledger
from stec.comparison.evidence import Mean, Verdict
from stec.comparison.ledger import Line
from stec.comparison.tables import Row, Table
from stec.errors import UsageError

# Both are linear accuracies: a converged reader of frozen features, and the probe beside training that papers report.
_ALIKE = ("eval/linear/top1", "eval/online/top1")


class Standing(NamedTuple):
    """A row; all numbers in points, or in the metric's own unit if it is no share. exists: the scales that it exists
    at, if the one asked for is not among them; runs: how many count, with this metric or without; seeds: those with
    it; stale: lines of an older recipe, not counted; ours: None without any; difference: to the row it is compared
    with, over the seeds of both; published: the paper's, None if the metric is another than the paper's."""

    row: Row
    against: Row | None
    exists: tuple[str, ...]
    runs: int
    seeds: tuple[int, ...]
    stale: int
    paper: str
    ours: Mean | None
    published: float | None
    difference: Mean | None
    detectable: float | None
    verdict: Verdict | None


def is_share(metric: str) -> bool:
    """Is it a share of samples, told in points?"""
    return metric.endswith(("/top1", "/acc"))


def values(lines: Mapping[int, Line], metric: str) -> dict[int, float]:
    """{seed: points} of the runs that have this metric: accuracies, which are shares, in per cent."""
    factor = 100.0 if is_share(metric) else 1.0
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
    """All rows of a table; those that do not exist at this scale say where they do. hashes: {row: the hash of its
    recipe of today}. UsageError if the runs have other metrics, and none of them this one."""
    rows = table.at(scale)
    split = {name: ledger.counted(list(lines), table.name, scale, name, hashes[name]) for name in rows}
    measured = {name: values(found, metric) for name, (found, _) in split.items()}
    known = {name for found, _ in split.values() for line in found.values() for name in line.metrics}
    if known and metric != table.metric and not any(measured.values()):
        raise UsageError(f"metric={metric}: no run of {table.name} at scale={scale} has it: {nearest(metric, known)}")
    ours = metric == table.metric or {metric, table.metric} <= set(_ALIKE)
    usual = spread(table, scale, measured)
    told = []
    for name, row in table.rows.items():
        own, other = measured.get(name, {}), rows.get(row.against or "") if name in rows else None
        difference, smallest, verdict = None, None, None
        if other is not None:
            difference = evidence.paired(own, measured[other.id])
            reckoned = usual or (table.assumed(row) if ours else None)
            if difference is not None and (usually := difference.spread or reckoned):
                smallest = evidence.detectable(usually, difference.n)
            verdict = evidence.verdict(difference, _sought(table, row) if ours else (), reckoned)
        told.append(
            Standing(
                row=row,
                against=other,
                exists=() if name in rows else tuple(row.words),
                runs=len(split[name][0]) if name in rows else 0,
                seeds=tuple(sorted(own)),
                stale=split[name][1] if name in rows else 0,
                paper=_paper(row) if ours else "",
                ours=evidence.mean(list(own.values())) if own else None,
                published=table.published(row) if ours and other is not None else None,
                difference=difference,
                detectable=smallest,
                verdict=verdict,
            )
        )
    return told


def _sought(table: Table, row: Row) -> tuple[float, ...]:
    """The paper's difference with its sign; where it has none, one that matters, of either sign."""
    published = table.published(row)
    return (published,) if published else (table.effect, -table.effect)


HEADS = ("row", "paper", "ours", "seeds", "compared with", "paper's gain", "our gain", "could be seen", "verdict")


def cells(one: Standing, brief: bool = False) -> tuple[str, ...]:
    """A line of the table under HEADS, as plain text. brief: the verdict in few words."""
    stale = f" ({one.stale} stale)" if one.stale else ""
    verdict = "" if one.verdict is None else one.verdict.brief if brief else one.verdict.full
    return (
        one.row.label,
        one.paper,
        _ours(one),
        "" if one.exists else f"{len(one.seeds)}{stale}",
        "" if one.against is None else one.against.label,
        "" if one.published is None else f"{one.published:+.2g}",
        "" if one.difference is None else _mean(one.difference, "+"),
        "" if one.detectable is None else f"{one.detectable:.2f}",
        _where(one, brief) if one.exists else verdict,
    )


def _ours(one: Standing) -> str:
    if one.ours is not None:
        return _mean(one.ours, "")
    return "" if one.exists else "no such metric" if one.runs else "not run"


def _where(one: Standing, brief: bool) -> str:
    return f"{'only at' if brief else 'not at this scale: there is'} {', '.join(one.exists)}"


def _paper(row: Row) -> str:
    paper = row.paper
    return "-" if paper is None else f"{paper.mean:g}" + (f" ± {paper.std:g}" if paper.std is not None else "")


def _mean(found: Mean, sign: str) -> str:
    half = "" if found.half is None else f" ± {found.half:.2f}"
    return f"{found.mean:{sign}.2f}{half}"
