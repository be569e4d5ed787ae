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
from stec.cli import composing, recipes
from stec.comparison import tables
from stec.comparison.tables import Row, Table
from stec.errors import UsageError

LEDGER = Path("results")
RUNS = Path("runs/tables")
# What is known as a scale whatever the table, smallest first.
SCALES = ("small", "gpu30", "paper")


class Asked(NamedTuple):
    """rest: the other words, {key: value}."""

    table: Table
    scale: str
    rest: dict[str, str]


def folder() -> Path:
    """Where our tables are."""
    return recipes.own() / "tables"


def asked(words: Sequence[str], known: Sequence[str], free: tuple[str, ...] = (), anywhere: bool = False) -> Asked:
    """The table and scale that words key=value name. known: the keys there are; free: prefixes of others;
    anywhere: may the scale be one of SCALES that this table has no rows at?"""
    given: dict[str, str] = {}
    for word in words:
        key, is_pair, value = word.partition("=")
        if not is_pair or not value:
            raise UsageError(f"{word!r} is not of the form key=value.")
        if key not in known and not key.startswith(free):
            raise UsageError(f"{key} is unknown: {nearest(key, [*known, *(f'{start}NAME' for start in free)])}")
        given[key] = value
    if "table" not in given:
        raise UsageError("table=NAME is needed; `stec-report` alone lists the tables there are.")
    table = _table(given.pop("table"))
    scale = given.pop("scale", list(table.scales)[-1])
    if scale in SCALES and scale not in table.scales and not anywhere:
        raise UsageError(f"scale={scale}: {table.name} has no rows at this scale; there is {', '.join(table.scales)}.")
    if scale not in table.scales and scale not in SCALES:
        raise UsageError(f"scale={scale} is unknown: {nearest(scale, {*table.scales, *SCALES})}")
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
            config = compose("train", overrides=composing.expanded(listed))
        # What a recipe says of a model that a row does not choose is left out here in silence.
        with redirect_stderr(io.StringIO()):
            return composing.plain(config)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UsageError(f"{shlex.join(listed)}: {composing.sentence(error, listed)}") from error


def place(table: Table, scale: str, row: Row, seed: int) -> Path:
    """The run directory of a run of a table."""
    return RUNS / table.name / scale / row.id / f"seed-{seed}"


def words_of(table: Table, scale: str, row: Row, seed: int, places: Sequence[str]) -> list[str]:
    """All words of a run for stec-train. places: those that say where its data are."""
    return [*row.words[scale], f"seed={seed}", *places, f"run_dir={place(table, scale, row, seed)}"]


def program(table: Table, scale: str) -> list[str]:
    """What these words are for."""
    gpus = table.scales[scale].gpus
    return ["torchrun", "--nproc-per-node", str(gpus), "-m", "stec.cli.train"] if gpus > 1 else ["stec-train"]


def command(table: Table, scale: str, row: Row, config: Mapping[str, Any]) -> str:
    """The line that makes a run (seed 0) by hand; PATH and FILE stand for its data, if it needs any."""
    wanted = data_of(config) is not None
    places = ["data=PATH"] * wanted + [f"{key}=FILE" for key in table.needs]
    return shlex.join([*program(table, scale), *words_of(table, scale, row, 0, places)])


def data_of(config: Mapping[str, Any]) -> str | None:
    """The name of the data set that a configuration wants a path for; None if it needs none."""
    return str(config["dataset"]["name"]) if config["dataset"]["needs_data"] and config["data"] is None else None
