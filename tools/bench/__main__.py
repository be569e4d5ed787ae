"""The table that the speed of stec is judged by: every row beside its peers, on this machine.

    python tools/bench [ROW ...] [--rounds 9] [--small] [--photographs DIR] [--recordings DIR] [--write]

ROW: R1, R1b, ...; all of them without any. The ways of a row are taken in turn, round after round; medians over the
rounds are printed. `--write` measures all rows, and how the cost grows, and writes docs/benchmarks.md and
docs/growth.png (`make bench`).
"""

import argparse
import importlib
import sys
from pathlib import Path

import machine
import table
from clock import excuse
from measuring import found, measured, modules
from row import Options

DOCS = Path(__file__).parents[2] / "docs"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("tools/bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--small", action="store_true", help="little data: does every row work?")
    parser.add_argument("--photographs", type=Path, metavar="DIR", help="JPEG files to measure on")
    parser.add_argument("--recordings", type=Path, metavar="DIR", help="FLAC files to measure on")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md; all rows, not small")
    given = parser.parse_args(arguments)
    if given.write and (given.rows or given.small):
        parser.error("--write goes with neither rows nor --small: the page has all rows in full.")
    if given.rounds < 1:
        parser.error(f"--rounds {given.rounds}: at least 1 was expected.")
    rows, problems = found(modules())
    known = [row.name for own in rows.values() for row in own]
    if unknown := [name for name in given.rows if name not in known]:
        parser.error(f"there is no row {unknown[0]}: {', '.join([*known, *problems])}.")
    if given.rows:
        rows = {name: kept for name, own in rows.items() if (kept := [row for row in own if row.name in given.rows])}
    if given.small:  # there is nothing that they should reach
        rows = {name: [row._replace(floor=None, goal=None) for row in own] for name, own in rows.items()}
    options = Options(given.rounds, given.small, given.photographs, given.recordings)
    done = measured(rows, options, lambda line: print(line, file=sys.stderr, flush=True))
    described = f"{machine.described()}\n{options.described()}"
    print("\n".join([described, "", *table.rows(done), "", *table.plain(done), *problems]))
    if given.write:
        (DOCS / "benchmarks.md").write_text(table.page(described, done, problems, _growth(options)))
    return 0


def _growth(options: Options) -> list[str]:
    """The lines on growth, whose plots are in docs/growth.png; a sentence if they cannot be made."""
    print("how the cost grows ...", file=sys.stderr, flush=True)
    try:
        return importlib.import_module("growth").main(options, DOCS)
    except Exception as error:
        return [f"Not measured: {excuse(error)}."]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
