"""The node `evaluation` of a configuration as a suite of protocols; every one of its keys is checked."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stec import build, catalogue
from stec.errors import UsageError
from stec.evaluation.decodability import Reader
from stec.evaluation.knn import Knn
from stec.evaluation.linear import Logistic
from stec.evaluation.probes import READERS, Configured
from stec.evaluation.suite import Suite
from stec.nodes import checked, group, keywords

# A probe's key becomes a metric's name, eval/KEY/acc: these are taken, and so is whatever begins with action_.
_TAKEN = ("knn", "linear", "linear_sgd", "online", "action")
_ROWS = ("raw input", "untrained", "before training", "trained")


def suite(node: Mapping[str, Any]) -> Suite:
    """UsageError names the key `evaluation.KEY` that does not fit. knn, linear and action may be null: left out."""
    node = group(node, "evaluation")
    known = ["knn", "linear", "action", "probes", *keywords(Suite)]
    if strange := [key for key in node if key not in known]:
        raise UsageError(f"evaluation.{strange[0]} is unknown: {catalogue.nearest(str(strange[0]), known)}")
    rest = {key: value for key, value in node.items() if key not in known[:4]}
    return Suite(
        _made(Knn, node, "knn"),
        _made(Logistic, node, "linear"),
        _made(Reader, node, "action"),
        _probes(node.get("probes")),
        **checked(Suite, rest, "evaluation"),
    )


def _made(make: Any, node: Mapping[str, Any], key: str) -> Any:
    given = node.get(key, {})
    return None if given is None else make(**checked(make, given, f"evaluation.{key}"))


def _probes(nodes: Any) -> dict[str, Configured]:
    """{key: probe}. A node may carry the name of its class (its own key, if not); null nodes are left out."""
    found = {}
    for key, node in group({} if nodes is None else nodes, "evaluation.probes").items():
        if node is None:
            continue
        where = f"evaluation.probes.{key}"
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", str(key)) or key in _TAKEN or key.startswith("action_"):
            raise UsageError(f"{where}: choose another name, of letters and digits and none of {', '.join(_TAKEN)}.")
        node = {"name": key, **group(node, where)}
        limit = checked(_limit, {k: v for k, v in node.items() if k == "max_rows"}, where)
        if limit and limit["max_rows"] < 1:
            raise UsageError(f"{where}.max_rows={limit['max_rows']} must be at least 1.")
        reader = node.get("reader", "lbfgs")
        chosen = build.choice(READERS, {"name": reader} if isinstance(reader, str) else reader, f"{where}.reader")
        try:
            made = chosen()
        except UsageError as error:
            raise UsageError(f"{where}.{error}") from error
        own = {k: v for k, v in node.items() if k not in ("reader", "max_rows")}
        found[str(key)] = Configured(str(key), build.part("probe", own, where), made, **limit)
    return found


def _limit(*, max_rows: int = 200_000) -> None:
    """What a probe's node may say beside the keywords of its class and its reader."""


def baselines(node: Any) -> dict[str, str | None]:
    """{label: source} of the rows to compare with, checked as far as can be without what lies elsewhere; see
    `Measure.baselines` for the sources."""
    found: dict[str, str | None] = {}
    for label, source in group({} if node is None else node, "evaluation.baselines").items():
        where = f"evaluation.baselines.{label}"
        if label in _ROWS:
            raise UsageError(f"{where}: the table has a row of this name already; choose another label.")
        if not (source is None or isinstance(source, str)):
            raise UsageError(
                f"{where}={source!r} has the wrong type: an encoder, ENCODER/NAME, a run, a checkpoint, an exported"
                " folder, or null was expected."
            )
        if source is not None and not Path(source).expanduser().exists():
            try:
                if build.is_published(source):
                    build.published_spec(source)
                elif not re.search(r"[/.~]", source):  # not a path, then: an encoder by its name alone
                    build.part("encoder", {"name": source}, "encoder")
            except UsageError as error:
                raise UsageError(f"{where}={source}: {error}") from error
        found[str(label)] = source
    return found
