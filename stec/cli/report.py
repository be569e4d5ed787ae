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
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from stec.cli import rows
from stec.cli.door import guarded
from stec.report import ledger, tables
from stec.report.standing import HEADS, Standing, cells, standing

# Each a module with run(words) -> exit code, imported only when asked for.
COMMANDS = {
    "run": "stec.cli.report_run",
    "enter": "stec.cli.report_enter",
    "dynamics": "stec.cli.dynamics",
    "pick": "stec.cli.pick",
}

KEYS = """words:
  table=NAME        1, 2, 3, fig3a, ...; or the path of a table's YAML file
  scale=NAME        one of the table's; default: its smallest
  metric=NAME       another metric of the runs than the table's, such as eval/knn/top1"""


@guarded
def main(argv: list[str] | None = None) -> int:
    """0; 2 for a slip of the user; 4 for a damaged ledger."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in COMMANDS:
        code: int = importlib.import_module(COMMANDS[words[0]]).run(words[1:])
        return code
    return show(words)


def show(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="stec-report", description=__doc__, epilog=KEYS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="key=value")
    parser.add_argument("--markdown", action="store_true", help="print Markdown, for a page")
    parser.add_argument("--ledger", type=Path, default=rows.LEDGER, metavar="FOLDER", help="default: %(default)s")
    arguments = parser.parse_intermixed_args(words)
    if not arguments.words:
        for name, title in tables.listing(rows.folder()).items():
            print(f"  {name.removeprefix('table'):12}  {title}")
        print("\nstec-report table=NAME [scale=NAME]; stec-report run table=NAME --budget 4h; stec-report --help")
        return 0
    asked = rows.asked(arguments.words, ("table", "scale", "metric"))
    table, scale, metric = asked.table, asked.scale, asked.rest.get("metric", asked.table.metric)
    lines = ledger.read_all(arguments.ledger)
    configs = {name: rows.composed(row.words[scale]) for name, row in table.at(scale).items()}
    hashes = {name: ledger.fingerprint(config) for name, config in configs.items()}
    told = standing(table, scale, lines, hashes, metric)
    missing = [rows.command(table, scale, one.row, configs[one.row.id]) for one in told if one.ours is None]
    about = f"scale {scale}{': ' * bool(table.scales[scale].about)}{table.scales[scale].about}; {metric} in points"
    if arguments.markdown:
        print(markdown(f"{table.title} ({about})", told, missing))
        return 0
    _print(f"{table.title}\n{about}", told)
    console = Console(soft_wrap=True)
    if missing:
        console.print("not run; each of them once, with seed=0 and PATH for its data:", style="dim", highlight=False)
    for line in missing:
        console.print(f"  {line}", style="dim", highlight=False, markup=False)
    console.print(
        f"{table.source}. ±: 95 % (Student's t), the paper's own ± its standard deviation. Differences are of runs "
        "with the same seed. could be seen: the smallest true difference that so many pairs show 4 times in 5.",
        style="dim",
        highlight=False,
    )
    return 0


def markdown(title: str, told: list[Standing], missing: list[str]) -> str:
    """The table for a page, and the commands of what was not run."""
    lines = [f"**{title}**", "", f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    lines += [f"| {' | '.join(text.replace('|', '/') for text in cells(one))} |" for one in told]
    if missing:
        lines += ["", "Not run:", "", "```sh", *missing, "```"]
    return "\n".join(lines)


def _print(title: str, told: list[Standing]) -> None:
    grid = Grid(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, head in enumerate(HEADS):
        grid.add_column(head, justify="right" if number in (1, 2, 3, 5, 6, 7) else "left", overflow="fold")
    group = ""
    for one in told:
        if one.row.group != group:
            group = one.row.group
            grid.add_row(f"[bold]{group}[/]")
        grid.add_row(*cells(one), style="dim" if one.ours is None else "")
    Console().print(grid)


if __name__ == "__main__":
    sys.exit(main())
