"""Rows, found in the modules beside this one and measured: a process for each module, so that no row inherits the
threads, caches or crashes of another."""

import importlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from clock import excuse
from row import Options, Outcome, Row
from table import value


def modules() -> list[str]:
    return sorted(path.stem for path in Path(__file__).parent.glob("rows_*.py"))


def found(names: Sequence[str]) -> tuple[dict[str, list[Row]], list[str]]:
    """{module: its rows} in the order of the table, and a sentence for each module that cannot be imported."""
    rows, problems = {}, []
    for name in names:
        try:
            rows[name] = list(importlib.import_module(name).ROWS)
        except Exception as error:
            problems.append(f"{name}: {excuse(error)}")
    return dict(sorted(rows.items(), key=lambda item: min(map(order, item[1])))), problems


def order(row: Row) -> tuple[bool, int, str]:
    """R1, R1b, R2, ..., then G1, ..."""
    letter, number, rest = re.fullmatch(r"([A-Z]+)(\d+)(\w*)", row.name).groups()
    return letter == "G", int(number), rest


def measured(
    rows: dict[str, list[Row]], options: Options, say: Callable[[str], None] = print
) -> list[tuple[Row, Outcome]]:
    """The outcome of every row, in the order of the table; one that raises is a sentence in its place."""
    done: list[tuple[Row, Outcome]] = []
    for module, own in rows.items():
        pool = ProcessPoolExecutor(1)
        for row in own:
            say(f"{row.name}: {row.what} ...")
            try:
                outcome = pool.submit(_outcome, module, row.name, options).result()
            except BrokenProcessPool:
                outcome = Outcome(missing="its process died")
                pool.shutdown()
                pool = ProcessPoolExecutor(1)  # for the rows after it
            except Exception as error:  # an outcome that cannot be sent
                outcome = Outcome(missing=excuse(error))
            say(f"{row.name}: {' '.join([value(row, outcome), row.verdict(outcome)]).strip()}")
            done.append((row, outcome))
        pool.shutdown()
    return sorted(done, key=lambda pair: order(pair[0]))


def _outcome(module: str, name: str, options: Options) -> Outcome:
    row = next(row for row in importlib.import_module(module).ROWS if row.name == name)
    try:
        return row.measure(options)
    except Exception as error:
        return Outcome(missing=excuse(error))
