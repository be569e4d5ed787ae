"""A node of the configuration against the constructor it is meant for: the keyword-only parameters are its YAML keys.

The types are omegaconf's to check; ranges are checked by the constructors themselves.
"""

import dataclasses
import inspect
import re
import reprlib
import typing
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stec.catalogue import nearest
from stec.errors import UsageError


def keywords(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a class or function: its YAML keys, in order."""
    return {n: p for n, p in inspect.signature(target).parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def positional(target: Callable[..., Any]) -> list[str]:
    """The positional parameters of a class or function: what it is made of, injected by name."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [n for n, p in inspect.signature(target).parameters.items() if p.kind in kinds]


def group(node: Any, where: str) -> Mapping[str, Any]:
    """`node`, if it is a group of keys; UsageError if not."""
    if not isinstance(node, Mapping):
        raise UsageError(f"{where}={node!r} has the wrong type: a group of keys was expected.")
    return node


def checked(target: Callable[..., Any], node: Any, where: str) -> dict[str, Any]:
    """`node` as keyword arguments for `target`; UsageError names the key `where.key` (`key`, if `where` is empty), what
    it is and should be."""
    node, start = group(node, where), f"{where}." if where else ""
    parameters, hints = keywords(target), typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    for key in node:
        if key not in parameters:
            raise UsageError(f"{start}{key} is unknown: {nearest(str(key), parameters)}")
    for key, parameter in parameters.items():
        if node.get(key, parameter.default) in (inspect.Parameter.empty, MISSING):
            raise UsageError(f"{start}{key} is missing: {_plain(hints.get(key, Any))} is needed.")
    return {key: _converted(value, hints.get(key, Any), f"{start}{key}") for key, value in node.items()}


def _converted(value: Any, hint: Any, where: str) -> Any:
    """`value` as the annotated type, by omegaconf's rules ("3" is an int, 3 is a float, 1.5 is no int)."""
    schema = OmegaConf.structured(dataclasses.make_dataclass("Node", [("value", hint)]))
    refusal = UsageError(f"{where}={reprlib.repr(value)} has the wrong type: {_plain(hint)} was expected.")
    try:
        container = OmegaConf.to_container(OmegaConf.merge(schema, {"value": _literal(value)}), resolve=True)
    except (OmegaConfBaseException, OverflowError, ValueError, RecursionError) as error:
        raise refusal from error
    found = typing.cast("dict[str, Any]", container)["value"]
    if isinstance(found, str) and hint is not Any and str not in (hint, *typing.get_args(hint)):
        raise refusal  # "???" and ${...} would pass for anything
    if not isinstance(found, list):
        return found
    # One by one: omegaconf lets a list of lists pass for a list of numbers.
    lists = (each for each in (hint, *typing.get_args(hint)) if typing.get_origin(each) is list)
    item = next((typing.get_args(each)[0] for each in lists), Any)
    return [
        one if type(one) is item else _converted(one, item, f"{where}[{number}]") for number, one in enumerate(found)
    ]


def _literal(value: Any) -> Any:
    """`value` with ${...} meant as it stands: references are resolved where a configuration is composed, and what is
    found in a checkpoint must not look into the environment."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: f"{found[1] * 2}\\${{", value)
    if isinstance(value, Mapping):
        return {key: _literal(one) for key, one in value.items()}
    return [_literal(one) for one in value] if isinstance(value, list | tuple) else value


def _plain(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
