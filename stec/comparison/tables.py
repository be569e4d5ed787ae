"""Tables of experiments: what the paper (or a question of our own) compares, as rows that are words for stec-train.

A file says, in this order:

    title, source: what is compared, and where the numbers come from
    metric: a metric of a finished run's table, such as eval/linear/top1
    effect: the difference that matters, in points, wherever the paper prints none, or prints no difference
    spread: standard deviation of the difference of one pair of runs, in points, until there are pairs to tell it
    needs: keys of a packer without which samples that are no shards have no such metric; none, if it is not said
    scales: {name: {words: [...], hours: of one run (a guess, until the ledger knows), about: one line, gpus: if they
        are several}}, largest first
    rows: [{id, group, label, recipe, overrides, paper: {mean, std} | null, against: id | null, scales, hours}]

A row's `recipe` is a name, or a name for each scale; its `scales` lists those it exists at, or gives each of them words
(which stand last). Without `scales` it exists at those that its recipe is given for, else at all. Its `hours`, {scale:
hours}, are said where they are not the scale's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stec.errors import UsageError
from stec.stored import from_yaml


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What the paper reports, in points. std: over its own runs, None if it prints none."""

    mean: float
    std: float | None = None


@dataclass(frozen=True, kw_only=True)
class Scale:
    """words: what makes a run so large or small; hours: of one run, a guess; about: in words; gpus: more than one, if a
    run is made by so many processes at once."""

    words: tuple[str, ...] = ()
    hours: float
    about: str = ""
    gpus: int = 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """words: {scale: the words of stec-train, but for seed, data and run_dir}; against: the row it is compared with;
    hours: {scale: of one run, a guess}, for all scales that it exists at."""

    id: str
    label: str
    group: str = ""
    paper: Paper | None = None
    against: str | None = None
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hours: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Table:
    """See the head of this file. rows: {id: row}; scales: {name: scale}, largest first; effect, spread: points."""

    name: str
    title: str
    source: str
    metric: str
    effect: float
    spread: float
    scales: Mapping[str, Scale]
    rows: Mapping[str, Row]
    needs: tuple[str, ...] = ()

    def at(self, scale: str) -> dict[str, Row]:
        """The rows that exist at a scale."""
        return {name: row for name, row in self.rows.items() if scale in row.words}

    def contrasts(self, scale: str) -> list[tuple[Row, Row]]:
        """(row, the row it is compared with), where both exist at this scale."""
        found = self.at(scale)
        return [(row, found[row.against]) for row in found.values() if row.against in found]

    def published(self, row: Row) -> float | None:
        """The paper's difference between a row and the one it is compared with, in points."""
        other = self.rows.get(row.against or "")
        return None if other is None or row.paper is None or other.paper is None else row.paper.mean - other.paper.mean

    def sought(self, row: Row) -> float:
        """The size of difference to look for, in points: the paper's, or `effect` where the paper has none."""
        return abs(self.published(row) or 0.0) or self.effect

    def assumed(self, row: Row) -> float:
        """Standard deviation of the difference of one pair, in points, before there are pairs: from the paper's, as if
        its runs had not been paired; else `spread`."""
        other = self.rows.get(row.against or "")
        stds = [each.paper.std for each in (row, other) if each is not None and each.paper is not None]
        known = [std for std in stds if std]
        return sum(std**2 for std in known) ** 0.5 if len(known) == 2 else self.spread


def listing(folder: Path) -> dict[str, str]:
    """{name: title} of the tables in a folder."""
    return {path.stem: read(path).title for path in sorted(folder.glob("*.yaml"))}


def read(path: Path) -> Table:
    """The table of a file; UsageError says what is wrong with it."""
    try:
        node = from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a table: {' '.join(str(error).split())}") from error
    return parsed(node, path.stem, str(path))


def parsed(node: Any, name: str, where: str) -> Table:
    """The table that a parsed file describes; UsageError names the place `where` and the key."""
    head = ("title", "source", "metric", "effect", "spread", "scales", "rows")
    _keys(node, (*head, "needs"), head, where)
    needs = node.get("needs") or []
    if not isinstance(needs, list) or not all(str(key).startswith("dataset.packer.") for key in needs):
        raise UsageError(f"{where}: needs={needs!r} must be a list of keys such as dataset.packer.labels.")
    if not isinstance(node["scales"], dict) or not node["scales"]:
        raise UsageError(f"{where}: scales must be {{name: {{words, hours, about}}}}, one or more.")
    if not isinstance(node["rows"], list) or not node["rows"]:
        raise UsageError(f"{where}: rows must be a list of rows, one or more.")
    for key in ("effect", "spread"):
        _above_0(node[key], f"{where}: {key}")
    scales = {str(key): _scale(each, f"{where}: scales.{key}") for key, each in node["scales"].items()}
    rows: dict[str, Row] = {}
    for number, each in enumerate(node["rows"]):
        row = _row(each, scales, f"{where}: rows[{number}]")
        if row.id in rows:
            raise UsageError(f"{where}: there are two rows with the id {row.id!r}.")
        rows[row.id] = row
    for row in rows.values():
        if row.against is not None and (row.against not in rows or row.against == row.id):
            raise UsageError(f"{where}: row {row.id!r} is compared with {row.against!r}, which is no other row.")
    plain = {key: str(node[key]) for key in ("title", "source", "metric")}
    numbers = {key: float(node[key]) for key in ("effect", "spread")}
    return Table(name=name, scales=scales, rows=rows, needs=tuple(needs), **plain, **numbers)  # type: ignore[arg-type]


def _scale(node: Any, where: str) -> Scale:
    _keys(node, ("words", "hours", "about", "gpus"), ("hours",), where)
    hours, gpus = _above_0(node["hours"], f"{where}.hours"), node.get("gpus", 1)
    if not isinstance(gpus, int) or isinstance(gpus, bool) or gpus < 1:
        raise UsageError(f"{where}.gpus={gpus!r} must be a whole number, 1 or more.")
    words = _words(node.get("words"), f"{where}.words")
    return Scale(words=words, hours=hours, about=str(node.get("about", "")), gpus=gpus)


def _row(node: Any, scales: Mapping[str, Scale], where: str) -> Row:
    known = ("id", "group", "label", "recipe", "overrides", "paper", "against", "scales", "hours")
    _keys(node, known, ("id", "label", "recipe"), where)
    paper, against, hours = node.get("paper"), node.get("against"), node.get("hours") or {}
    if paper is not None:
        _keys(paper, ("mean", "std"), ("mean",), f"{where}.paper")
        for key, value in paper.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(f"{where}.paper.{key}={value!r} must be a number.")
        paper = Paper(**paper)
    if not (against is None or isinstance(against, str)):
        raise UsageError(f"{where}.against={against!r} must be the id of another row.")
    words = dict(_at_each_scale(node, scales, where))
    if not isinstance(hours, dict) or (odd := [scale for scale in hours if scale not in words]):
        told = odd[0] if isinstance(hours, dict) else hours
        raise UsageError(f"{where}.hours: {told!r} is none of this row's scales: {', '.join(words)}.")
    own = {scale: _above_0(each, f"{where}.hours.{scale}") for scale, each in hours.items()}
    return Row(
        id=str(node["id"]),
        label=str(node["label"]),
        group=str(node.get("group", "")),
        paper=paper,
        against=against,
        words=words,
        hours={scale: own.get(scale, scales[scale].hours) for scale in words},
    )


def _above_0(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UsageError(f"{where}={value!r} must be a number above 0.")
    return float(value)


def _at_each_scale(node: Any, scales: Mapping[str, Scale], where: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    recipe, given = node["recipe"], node.get("scales")
    if not (given is None or isinstance(given, list | dict)):
        raise UsageError(f"{where}.scales={given!r} must be a list of scales, or {{scale: words}}.")
    chosen = list(recipe) if given is None and isinstance(recipe, dict) else list(scales if given is None else given)
    for scale in chosen:
        if not isinstance(scale, str) or scale not in scales:
            raise UsageError(f"{where}: scale {scale!r} is not one of the table's: {', '.join(scales)}.")
        name = recipe.get(scale) if isinstance(recipe, dict) else recipe
        if not isinstance(name, str):
            raise UsageError(f"{where}: recipe names none for the scale {scale!r}.")
        last = given[scale] if isinstance(given, dict) else ()
        words = (
            *_words(node.get("overrides"), f"{where}.overrides"),
            *scales[scale].words,
            *_words(last, f"{where}.scales.{scale}"),
        )
        yield scale, (f"recipe={name}", *words)


def _words(node: Any, where: str) -> tuple[str, ...]:
    words = tuple(node) if isinstance(node, list | tuple) else ()
    if not (node is None or isinstance(node, list | tuple)) or not all(
        isinstance(word, str) and "=" in word for word in words
    ):
        raise UsageError(f"{where}: {node!r} must be a list of words of the form key=value.")
    return words


def _keys(node: Any, known: tuple[str, ...], needed: tuple[str, ...], where: str) -> None:
    if not isinstance(node, dict):
        raise UsageError(f"{where} must be a group of keys: {', '.join(known)}.")
    if odd := [str(key) for key in node if key not in known]:
        raise UsageError(f"{where}: {odd[0]} is unknown; known are {', '.join(known)}.")
    if missing := [key for key in needed if key not in node]:
        raise UsageError(f"{where}: {missing[0]} is missing.")
