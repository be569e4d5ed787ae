"""A node of the configuration against the constructor it is meant for: the keyword-only parameters are its YAML keys.

The types are omegaconf's to check; ranges are checked by the constructors themselves.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stec.catalogue import nearest
from stec.errors import UsageError


def keywords(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a class or function: its YAML keys, in order."""
    return {n: p for n, p in inspect.signature(target).parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def checked(target: Callable[..., Any], node: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`node` as keyword arguments for `target`; UsageError names the key `where.key`, what it got and what was expected."""
    parameters = keywords(target)
    for key in node:
        if key not in parameters:
            raise UsageError(f"{where}.{key} is unknown: {nearest(str(key), parameters)}")
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in node:
            raise UsageError(f"{where}.{key} is missing: it has no default.")
    init = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(init)
    result = {}
    for key, value in node.items():
        one = dataclasses.make_dataclass("Node", [(key, hints[key])])
        try:
            merged = OmegaConf.merge(OmegaConf.structured(one), {key: value})
            result[key] = OmegaConf.to_container(merged)[key]  # type: ignore[call-overload, index]
        except OmegaConfBaseException as error:
            raise UsageError(
                f"{where}.{key}={value!r} has the wrong type: {_plain(hints[key])} was expected."
            ) from error
    return result


def _plain(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
