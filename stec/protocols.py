"""The node `evaluation` of a configuration as a suite of protocols; every one of its keys is checked."""

from collections.abc import Mapping
from typing import Any

from stec.catalogue import nearest
from stec.errors import UsageError
from stec.evaluation.decodability import Reader
from stec.evaluation.knn import Knn
from stec.evaluation.linear import Logistic
from stec.evaluation.suite import Suite
from stec.nodes import checked, group, keywords


def suite(node: Mapping[str, Any]) -> Suite:
    """UsageError names the key `evaluation.KEY` that does not fit."""
    node = group(node, "evaluation")
    parts = {"knn": Knn, "linear": Logistic, "action": Reader}
    known = [*parts, *keywords(Suite)]
    if strange := [key for key in node if key not in known]:
        raise UsageError(f"evaluation.{strange[0]} is unknown: {nearest(strange[0], known)}")
    made = [make(**checked(make, node.get(name, {}), f"evaluation.{name}")) for name, make in parts.items()]
    rest = {key: value for key, value in node.items() if key not in parts}
    return Suite(*made, **checked(Suite, rest, "evaluation"))
