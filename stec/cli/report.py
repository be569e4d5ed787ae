"""The paper in one command: tables of experiments, with the paper's numbers, ours, and what they can tell.

stec-report                                  the tables there are
stec-report table=1 [scale=small]            one of them as it stands; what was not run, with its command
stec-report run table=1 --budget 4h          run what is missing, the most telling first
stec-report enter table=1 row=ID RUN         enter a finished run made elsewhere
stec-report dynamics RUN                     losses and bits of the action over training
stec-report pick RUN RUN                     choose a weight from short runs
"""

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from stec.catalogue import nearest
from stec.cli import rows
from stec.cli.door import guarded
from stec.comparison import layout, ledger, tables
from stec.comparison.evidence import LEVEL
from stec.comparison.standing import Standing, is_share, standing
from stec.comparison.tables import Table
from stec.errors import UsageError

# Each a module with run(words) -> exit code, imported only when asked for.
COMMANDS = {
    "run": "stec.cli.report_run",
    "enter": "stec.cli.report_enter",
    "dynamics": "stec.cli.dynamics",
    "pick": "stec.cli.pick",
}

KEYS = """words:
  table=NAME        1, 2, 3, fig3a, ...; or the path of a table's YAML file
  scale=NAME        small, gpu30, paper, or another that the table has; default: its smallest
  metric=NAME       another metric of the runs than the table's, such as eval/knn/top1"""


@guarded
def main(argv: list[str] | None = None) -> int:
    """0; 2 for a slip of the user; 4 for a damaged ledger."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in COMMANDS:
        code: int = importlib.import_module(COMMANDS[words[0]]).run(words[1:])
        return code
    if words and "=" not in words[0] and not words[0].startswith("-"):
        raise UsageError(f"{words[0]!r} is not of the form key=value, nor a command: {nearest(words[0], COMMANDS)}")
    return show(words)


def show(words: list[str]) -> int:
    """Print a table as it stands, or the list of them."""
    parser = argparse.ArgumentParser(
        prog="stec-report", description=__doc__, epilog=KEYS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="key=value")
    parser.add_argument("--markdown", action="store_true", help="print Markdown, for a page")
    parser.add_argument("--ledger", type=Path, metavar="FOLDER", help=f"default: {rows.LEDGER}")
    arguments = parser.parse_intermixed_args(words)
    if not arguments.words:
        known = {name.removeprefix("table"): title for name, title in tables.listing(rows.folder()).items()}
        for name, title in known.items():
            print(f"  {name:{max(map(len, known))}}  {title}")
        print("\nstec-report table=NAME [scale=NAME]; stec-report run table=NAME --budget 4h; stec-report --help")
        return 0
    asked = rows.asked(arguments.words, ("table", "scale", "metric"), anywhere=True)
    table, scale, metric = asked.table, asked.scale, asked.rest.get("metric", asked.table.metric)
    if arguments.ledger is not None and not arguments.ledger.is_dir():
        raise UsageError(f"--ledger {arguments.ledger}: there is no such folder.")
    folder = arguments.ledger or rows.LEDGER
    lines = ledger.read_all(folder)
    configs = {name: rows.composed(row.words[scale]) for name, row in table.at(scale).items()}
    hashes = {name: ledger.fingerprint(config) for name, config in configs.items()}
    told = standing(table, scale, lines, hashes, metric)
    unrun = [one.row for one in told if not (one.runs or one.exists)]
    missing = [rows.command(table, scale, row, configs[row.id]) for row in unrun]
    here = f"{folder}{'' if folder.is_dir() else ', which is not there: it is looked for in the current folder'}"
    notes = [*_notes(table, told), f"ledger: {here}, {len(lines)} run{'s' * (len(lines) != 1)}"]
    if arguments.markdown:
        print(layout.markdown(f"{table.title} ({_about(table, scale, metric)})", told, missing, notes))
        return 0
    console = Console()
    console.print(Text(f"{table.title}\n{_about(table, scale, metric)}\n", style="italic"))
    for grid in layout.printed(told, console.width):
        console.print(grid)
    console.print()
    if missing:
        console.print(Text("not run; each of them once, with seed=0 and PATH for its data:", style="dim"))
    for line in missing:
        console.print(Text(f"  {line}", style="dim"), soft_wrap=True)
    for note in notes:
        console.print(Text(note, style="dim"))
    return 0


def _about(table: Table, scale: str, metric: str) -> str:
    about = table.scales[scale].about if scale in table.scales else ""
    return f"scale {scale}{': ' * bool(about)}{about}; {metric}{' in points' * is_share(metric)}"


def _notes(table: Table, told: Sequence[Standing]) -> Iterator[str]:
    """How the table is to be read."""
    yield (
        f"{table.source}. ±: 95 % (Student's t), the paper's own ± its standard deviation. Gains are over the row that "
        "a row is compared with, ours of runs with the same seed. could be seen: the smallest true difference that so "
        "many pairs show 4 times in 5."
    )
    tested = sum(one.difference is not None and one.difference.half is not None for one in told)
    if tested > 1:
        chance = f"about {LEVEL * tested:.2g} of them by chance, were there no difference at all"
        yield f"{tested} comparisons at {LEVEL:.0%}: {chance}."


if __name__ == "__main__":
    sys.exit(main())
