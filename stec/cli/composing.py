"""What hydra makes of stec-train's words: before it hears them, of the configuration that it composes, and of what it
complains about."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stec.catalogue import nearest
from stec.cli import recipes
from stec.errors import UsageError

# These are taken as they are written: a folder may be called "Summer, 2024 (1)" or 007.
TERMS = ("identity", "manipulation")
PATHS = ("data", "weights", "resume", "run_dir")


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain dicts and lists; UsageError if a reference in it leads nowhere."""
    try:
        found = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UsageError(f"{error.full_key}: {str(error).splitlines()[0]}.") from error
    assert isinstance(found, dict)
    if "recipe" in found:
        raise UsageError("the file of a recipe must begin with the line '# @package _global_'; this one does not.")
    return {str(key): _chosen_terms(key, value) if key in TERMS else value for key, value in found.items()}


def _chosen_terms(kind: str, nodes: Any) -> Any:
    """The models that a chosen file names. What else a recipe says of one, without naming it, is about a model that was
    not chosen: recipe=quickstart manipulation=none leaves nothing but the weight of `binned`."""
    if not isinstance(nodes, dict):
        return nodes
    spare = [key for key, node in nodes.items() if isinstance(node, dict) and "name" not in node]
    for key in spare if os.environ.get("RANK", "0") == "0" else ():
        print(
            f"{kind}.{key}: left out, no such model is chosen ({kind}=[...], or {key}: {{name: ...}})", file=sys.stderr
        )
    return {key: node for key, node in nodes.items() if key not in spare}


def expanded(arguments: list[str]) -> list[str]:
    """As hydra wants them: options before overrides, paths in quotes, `encoder=timm/NAME` in two words."""
    options, overrides = [], []
    sweeps = bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))
    for argument in arguments:
        key, is_override, value = argument.partition("=")
        if argument.startswith("-") or not (is_override or argument.startswith("~")):
            options.append(argument)
        elif argument.startswith("encoder=timm/"):
            overrides += ["encoder=timm", f"encoder.model={value.removeprefix('timm/')}"]
        elif key in PATHS and value and _path(value, sweeps):
            # Backslashes mean something to hydra only before a quote.
            quoted = re.sub(
                r'(\\*)("|$)', lambda found: 2 * found[1] + found[2].replace('"', '\\"'), os.path.expanduser(value)
            )
            overrides.append(f'{key}="{quoted}"')
        else:
            overrides.append(argument)
    return options + overrides


def _path(value: str, sweeps: bool) -> bool:
    """Is this a path or an address, rather than several to sweep over, null, one to be composed, or in quotes?"""
    if os.path.lexists(os.path.expanduser(value)) or value.startswith("~"):
        return True
    return "${" not in value and value[0] not in "\"'" and value.lower() != "null" and not (sweeps and value.isascii())


def sentence(error: Exception, arguments: list[str]) -> str:
    """What hydra or omegaconf complain about, in one sentence with the nearest name."""
    text = str(error) or str(error.__cause__)
    if isinstance(error, OverrideParseException):
        return f"{error.override} is not of the form key=value, or its value must be quoted twice: 'key=\"value\"'."
    if isinstance(error, RecursionError):
        return "the configuration is nested too deeply."
    if isinstance(error, ValueError | TypeError):
        odd = [
            word
            for word in _chosen(arguments)
            if not (recipes.own() / word.replace("=", "/", 1)).with_suffix(".yaml").exists()
        ]
        return f"{', '.join(odd)}: a group takes the name of one of its files ({text})." if odd else text
    if isinstance(error, MissingConfigException):
        if match := re.search(r"Could not (?:find|load) '([\w-]+)/([^']*)'", text):
            options = [line.strip() for line in text.partition("Available options in")[2].splitlines()[1:]]
            # Of one in a list, hydra does not tell what there is, only where it looked.
            known = [o for o in options if o and " " not in o] or _files(match[1], text)
            return f"{match[1]}={match[2]} is unknown: {nearest(match[2], known)}"
        return " ".join(text.split())
    if "You must specify 'recipe'" in text:
        return f"no recipe chosen: recipe=NAME is needed. {nearest('', recipes.listing())}"
    if match := re.search(r"Could not override '([^']+)'", text):
        return f"{match[1]} is unknown: {_instead(match[1], arguments)}"
    return " ".join(text.split())


def _files(group: str, text: str) -> list[str]:
    """The names in a group, in all folders of the search path that hydra's text ends with."""
    folders = re.findall(r"path=file://(.+)", text)
    return sorted({path.stem for folder in folders for path in (Path(folder) / group).glob("*.yaml")})


def _instead(key: str, arguments: list[str]) -> str:
    """What may have been meant by a key that does not exist: the same word one level down, or one like it beside."""
    parent, dot, word = key.rpartition(".")
    beside = _siblings(key, arguments)
    if below := [name for name, node in beside.items() if isinstance(node, dict) and word in node]:
        return f"did you mean {' or '.join(f'{parent}{dot}{name}.{word}' for name in below)}?"
    return nearest(word, beside)


def _siblings(key: str, arguments: list[str]) -> dict[str, Any]:
    """What stands beside a key that does not exist, in the configuration that the chosen groups compose."""
    with initialize_config_dir(version_base="1.3", config_dir=str(recipes.own())):
        node: Any = OmegaConf.to_container(compose("train", overrides=_chosen(arguments)))
    for step in key.split(".")[:-1]:
        node = node.get(step) if isinstance(node, dict) else None
    return {str(name): value for name, value in node.items()} if isinstance(node, dict) else {}


def _chosen(arguments: list[str]) -> list[str]:
    """The overrides that choose a file of a group."""
    return [word for word in expanded(arguments) if word.partition("=")[0] in groups()]


def groups() -> set[str]:
    """The names of all groups of files."""
    return {path.name for path in recipes.own().iterdir() if path.is_dir()}
