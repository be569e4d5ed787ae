"""What is printed and written: a table of the rows, and below it one of all ways. Markdown, for both."""

import re
import statistics
from collections.abc import Sequence

from row import Outcome, Row, Way

Measured = Sequence[tuple[Row, Outcome]]

_HEAD = """# Benchmarks

Written by `make bench`, on one machine, in one run: median [min..max] over the rounds. Ways that are compared in speed
are taken in turn, round after round. (CPU): by the CPU time of one thread; (wall): by the clock on the wall. "Reached"
says what the median reaches with a confidence of 95 %: the goal, the floor, or neither; "undecided", if more rounds
are needed to tell. With augment=fast colour is one matrix, clamped once: its pixels differ a little from torchvision's;
the default, exact, is among the ways. `python tools/bench --help` tells how to measure on files of your own.
"""


def page(machine: str, measured: Measured, problems: Sequence[str], growth: Sequence[str]) -> str:
    """The text of docs/benchmarks.md."""
    lines = [
        _HEAD,
        machine,
        "",
        *rows(measured),
        "",
        *problems,
        *([""] if problems else []),
        "## All ways",
        "",
        *ways(measured),
        "",
    ]
    return "\n".join([*lines, "## How the cost grows", "", *growth]) + "\n"


def rows(measured: Measured) -> list[str]:
    """A line for each row; one that does not reach its floor says so, one without values says why."""
    lines = ["| row | what | floor | goal | measured | reached | limit |", "|---|---|---|---|---|---|---|"]
    for row, outcome in measured:
        sign = "<=" if row.most else ">="
        floor, goal = (f"{sign} {row.format.format(b)}" if b is not None else "" for b in (row.floor, row.goal))
        cells = [row.name, row.what, floor, goal, value(row, outcome), row.verdict(outcome), outcome.limit]
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return lines


def ways(measured: Measured) -> list[str]:
    """A line for each row, with all its ways below each other: name, value with unit, and times the base."""
    lines = ["| row | way | median [min..max] | x its base |", "|---|---|---|---|"]
    for row, outcome in measured:
        if outcome.ways:
            columns = zip(*(_told(way, outcome.ways) for way in outcome.ways), strict=True)
            lines.append(f"| {row.name} | {' | '.join('<br>'.join(map(_cell, column)) for column in columns)} |")
    return lines


def plain(measured: Measured) -> list[str]:
    """The same for a console: a line for each way."""
    told = [(row.name, *_told(way, outcome.ways)) for row, outcome in measured for way in outcome.ways]
    wide = [max(map(len, column)) for column in zip(*told, strict=True)] if told else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, wide, strict=True)).rstrip() for line in told]


def value(row: Row, outcome: Outcome) -> str:
    """The row's figure; with one more digit, if the median would look like the floor that it does not reach."""
    if not outcome.values:
        return ""
    form, median = row.format, statistics.median(outcome.values)
    if row.verdict(outcome) == "NOT REACHED" and form.format(median) == form.format(row.floor):
        form = re.sub(r"\.(\d+)", lambda digits: f".{int(digits[1]) + 1}", form)
    return spread(outcome.values, form)


def spread(values: Sequence[float], form: str) -> str:
    """median [min..max]"""
    median, least, most = (form.format(v) for v in (statistics.median(values), min(values), max(values)))
    return f"{median} [{least}..{most}]"


def _told(way: Way, ways: Sequence[Way]) -> tuple[str, str, str]:
    """Name, value and multiple of the base, if both have values in the same unit."""
    if not way.values:
        return way.name, way.missing or "nothing was measured", ""
    base = next((other for other in ways if other.name == way.base), ways[0])
    value = f"{spread(way.values, _form(way.median))} {way.unit}"
    if way is base or way.unit != base.unit or not base.values or not base.median:
        return way.name, value, ""
    return way.name, value, f"{way.median / base.median:.2f}"


def _form(value: float) -> str:
    """At least three digits, without an exponent unless it is tiny."""
    return "{:.0f}" if abs(value) >= 100 else "{:.1f}" if abs(value) >= 10 else "{:.3g}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
