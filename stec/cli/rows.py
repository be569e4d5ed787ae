"""What the commands on tables share: which table and scale are meant, a row's configuration, command and folder."""

import io
import shlex
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from stec.catalogue import nearest
from stec.cli import recipes, train
from stec.errors import UsageError
from stec.report import tables
from stec.report.tables import Row, Table

LEDGER = Path("results")
RUNS = Path("runs/tables")


class Asked(NamedTuple):
    """rest: the other words, {key: value}."""

    table: Table
    scale: str
    rest: dict[str, str]


def folder() -> Path:
    """Where our tables are."""
    return recipes.own() / "tables"


def asked(words: Sequence[str], known: Sequence[str], free: str = "") -> Asked:
    """The table and scale that words key=value name. known: the keys there are; free: a prefix of any others."""
    given: dict[str, str] = {}
    for word in words:
        key, is_pair, value = word.partition("=")
        if not is_pair or not value:
            raise UsageError(f"{word!r} is not of the form key=value.")
        if key not in known and not (free and key.startswith(free)):
            raise UsageError(f"{key} is unknown: {nearest(key, [*known, *([f'{free}NAME'] if free else [])])}")
        given[key] = value
    if "table" not in given:
        raise UsageError("table=NAME is needed; `stec-report` alone lists the tables there are.")
    table = _table(given.pop("table"))
    scale = given.pop("scale", list(table.scales)[-1])
    if scale not in table.scales:
        raise UsageError(f"scale={scale} is unknown: {nearest(scale, table.scales)}")
    return Asked(table, scale, given)


def _table(name: str) -> Table:
    if name.endswith(".yaml"):
        return tables.read(Path(name).expanduser())
    known = {path.stem.removeprefix("table"): path for path in sorted(folder().glob("*.yaml"))}
    if (short := name.removeprefix("table")) not in known:
        raise UsageError(f"table={name} is unknown: {nearest(name, known)}")
    return tables.read(known[short])


def row_of(table: Table, scale: str, name: str) -> Row:
    """The row of this id; UsageError if there is none at this scale."""
    found = table.at(scale)
    if name not in found:
        raise UsageError(f"row={name} is unknown at scale={scale}: {nearest(name, found)}")
    return found[name]


def composed(words: Sequence[str]) -> dict[str, Any]:
    """The configuration that stec-train would make of these words; UsageError in its words if it would not."""
    recipes.register()
    listed = list(words)
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(recipes.own())):
            config = compose("train", overrides=train._expanded(listed))
        # What a recipe says of a model that a row does not choose is left out here in silence.
        with redirect_stderr(io.StringIO()):
            return train._plain(config)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UsageError(f"{shlex.join(listed)}: {train._sentence(error, listed)}") from error


def place(table: Table, scale: str, row: Row, seed: int) -> Path:
    """The run directory of a run of a table."""
    return RUNS / table.name / scale / row.id / f"seed-{seed}"


def words_of(table: Table, scale: str, row: Row, seed: int, data: str | None) -> list[str]:
    """All words of a run for stec-train."""
    given = [] if data is None else [f"data={data}"]
    return [*row.words[scale], f"seed={seed}", *given, f"run_dir={place(table, scale, row, seed)}"]


def command(table: Table, scale: str, row: Row, config: Mapping[str, Any]) -> str:
    """The line that makes a run (seed 0) by hand; PATH stands for its data, if it needs any."""
    data = None if data_of(config) is None else "PATH"
    return shlex.join(["stec-train", *words_of(table, scale, row, 0, data)])


def data_of(config: Mapping[str, Any]) -> str | None:
    """The name of the data set that a configuration wants a path for; None if it needs none."""
    return str(config["dataset"]["name"]) if config["dataset"]["needs_data"] and config["data"] is None else None
