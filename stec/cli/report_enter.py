"""`stec-report enter table=1 row=ID scale=small RUN`: add a finished run that was made elsewhere to the ledger."""

import argparse
from pathlib import Path

from stec.cli import rows
from stec.comparison import ledger
from stec.errors import UsageError


def run(words: list[str]) -> int:
    """0, also if the ledger has it already; UsageError if it is not finished, or not a run of this row."""
    parser = argparse.ArgumentParser(prog="stec-report enter", description=__doc__)
    parser.add_argument("words", nargs="+", metavar="key=value ... RUN")
    parser.add_argument("--ledger", type=Path, default=rows.LEDGER, metavar="FOLDER", help="default: %(default)s")
    arguments = parser.parse_intermixed_args(words)
    runs = [Path(word).expanduser() for word in arguments.words if "=" not in word or Path(word).is_dir()]
    asked = rows.asked(
        [word for word in arguments.words if Path(word).expanduser() not in runs], ("table", "scale", "row")
    )
    if len(runs) != 1 or "row" not in asked.rest:
        raise UsageError("one run directory and row=ID are needed: stec-report enter table=1 row=ID scale=small RUN.")
    (run,) = runs
    row = rows.row_of(asked.table, asked.scale, asked.rest["row"])
    config, expected = ledger.config_of(run), rows.composed(row.words[asked.scale])
    if keys := ledger.differing(config, expected):
        shown = ", ".join(keys[:8]) + f" and {len(keys) - 8} more" * (len(keys) > 8)
        raise UsageError(f"{run}: not a run of row={row.id} at scale={asked.scale}; these keys differ: {shown}.")
    line = ledger.entry(run, asked.table.name, row.id, asked.scale, list(row.words[asked.scale]))
    path, lines = ledger.path_of(arguments.ledger, asked.table.name), ledger.read_all(arguments.ledger)
    if why := ledger.lacking(line, asked.table.metric, lines):
        raise UsageError(f"{run}: {why}.")
    known, _ = ledger.counted(lines, asked.table.name, asked.scale, row.id, line.hash)
    if line.seed in known:
        print(f"{arguments.ledger} has seed {line.seed} of {row.id} already.")
        return 0
    ledger.append(path, line)
    print(f"{path}: {row.id} seed {line.seed}, {line.hardware}")
    if ledger.other_data([line, *known.values()]):
        print("Its data are not those of the other runs of this recipe, to the byte: were they packed anew?")
    return 0
