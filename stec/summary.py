"""What a run tells when it is done: the table, on the terminal and in table.json, and the report."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from stec.account import facts
from stec.commit import commit
from stec.errors import UsageError
from stec.evaluation.suite import Row
from stec.measure import Measure
from stec.report.facts import Column
from stec.report.page import write_page
from stec.training.run import Run

REPORT = "report.html"


def tell(run: Run, measure: Measure, rows: Mapping[str, Row], name: str, batch_size: int) -> None:
    """Keep the table as table.json, write report.html, both into the run directory, and print it.

    UsageError if they cannot be written: the same command does it once they can.
    """
    protocol = measure.protocol(rows)
    # Of so many samples the shares that are read right are: their noise is known to who compares runs.
    test = measure.splits.test
    num_test = None if test is None else min(test.num_samples, measure.suite.num_samples["test"])
    learnt = measure.splits.train
    data = {"fingerprint": learnt.fingerprint, "num_train": learnt.num_samples}
    told = {"rows": rows, "protocol": protocol, "num_test": num_test, "data": data, "commit": commit()}
    run.write("table.json", json.dumps(told, indent=2) + "\n")
    path = run.directory / REPORT
    try:
        write_page(path, facts(run, measure, rows, columns(rows), name, batch_size))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error
    print_table(rows, protocol, held_out=measure.splits.test is not None)  # last: a full disk may be behind stdout, too
    run.say(f"report: {path}")


def columns(rows: Mapping[str, Row]) -> list[Column]:
    """The measures that any of the rows has, in the order of a table, with what a guesser gets."""
    found = {name: value for row in rows.values() for name, value in row.items()}
    read, done = "labels read right", "what was done: bits read of each component of the action"
    table = [Column("eval/knn/top1", "k-NN", group=read), Column("eval/linear/top1", "linear", group=read)]
    table.append(Column("eval/online/top1", "online probe", group=read))
    for name in found:
        if name.endswith("/acc"):
            chance = found[name.removesuffix("acc") + "majority"]
            table.append(Column(name, name.split("/")[1], chance=chance, group=read))
    for name in found:
        if name.startswith("eval/action_bits/"):
            component = name.rpartition("/")[2]
            most = found[f"eval/action_chance/{component}"] / np.log(2)
            table.append(Column(name, component, "bits", 0.0, float(most), done))
    return [column for column in table if column.key in found]


def print_table(rows: Mapping[str, Row], protocol: Mapping[str, str], held_out: bool) -> None:
    """Rows to the terminal; under them, how they were measured."""
    samples = "held-out samples" if held_out else "no held-out samples: other views of those learnt from"
    shown = columns(rows)
    bits = "; action: bits of each component that a fresh reader finds in both views"
    title = samples + bits * any(column.unit == "bits" for column in shown)
    console = Console()
    table = _table(rows, shown, title, heads=[column.label for column in shown])
    if Measurement.get(console, console.options.update(width=10_000), table).maximum > console.width:
        # A word a line in the heads: 80 characters are enough for any row.
        heads = [column.label.replace("_", "_\n").replace(" ", "\n") for column in shown]
        table = _table(rows, shown, title, heads)
    console.print(table if shown else "Nothing could be measured: there are too few samples.")
    for start, words in protocol.items():
        console.print(f"{start}: {words}", style="dim", highlight=False)


def _table(rows: Mapping[str, Row], shown: Sequence[Column], title: str, heads: Sequence[str]) -> Table:
    """Without upright lines, which would cost a character a column."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", overflow="fold")
    for name, row in rows.items():
        table.add_row(name, *(_cell(column, row.get(column.key)) for column in shown))
    return table


def _cell(column: Column, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if column.unit == "%" else f"{value:.2f}"
