"""What makes two runs of different seeds runs of one recipe: the keys of a configuration that say what is learnt, and
how it is measured.

A key that equals the default of the constructor it is for is left out, as if it had not been written: so a constructor
may gain an option without making all former runs another recipe's. For this a default must never change its value;
whoever wants another one writes it into the recipes.
"""

import functools
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stec import catalogue
from stec.errors import UsageError
from stec.nodes import keywords

# Where, when and how fast; the seed, which has a place of its own; the word that parts of the actions and the decoder
# are told in their own keys; how samples are kept, shown and forgiven; and the rows that a run's table is compared
# with. (Of `hardware`, micro_batch stays: it changes the statistics of a norm.)
_QUIET = ("log_every", "checkpoint_every", "eval_every", "keep", "stop_after")
_MACHINE = ("device", "precision", "compile", "num_workers", "channels_last")
_SERVED = ("picture", "resident", "needs_data", "max_bad")
LEFT_OUT = (
    *("seed", "name", "data", "run_dir", "resume", "augment", "profile"),
    *("evaluation.baselines", "evaluation.raw_input"),
    *(f"training.{key}" for key in _QUIET),
    *(f"hardware.{key}" for key in _MACHINE),
    *(f"dataset.{key}" for key in _SERVED),
)
# How large a sample may be before it is refused, whatever the modality measures it in.
_LIMIT = "dataset.decoder.max_"
_GROUPS = {"actions": "action_space", "identity": "identity", "manipulation": "manipulation"}


def essence(config: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": value} of all that makes a recipe.

    Not what is LEFT_OUT, nor what equals a default. What has no known default is left out if it is null. So is a file
    that a packer is told to read, since a path is a matter of the machine.
    """
    defaults = dict(_defaults(config))
    return {
        key: value
        for key, value in _flat(config)
        if not _same(value, defaults.get(key))
        and not any(key == name or key.startswith(f"{name}.") for name in LEFT_OUT)
        and not key.startswith(_LIMIT)
        and not (key.startswith("dataset.packer.") and is_file_name(value))
    }


def fingerprint(config: Mapping[str, Any]) -> str:
    """sha256 of a composed configuration's essence, in hexadecimal."""
    return hashlib.sha256(_text(essence(config)).encode(errors="surrogatepass")).hexdigest()


def differing(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys in which the essences of two configurations differ."""
    one, two = essence(config), essence(other)
    return sorted(key for key in one.keys() | two.keys() if not _same(one.get(key, "absent"), two.get(key, "absent")))


def is_file_name(value: Any) -> bool:
    """Is this the path of a file, rather than a word?"""
    return isinstance(value, str) and (os.sep in value or Path(value).suffix[1:].isalpha())


def _defaults(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """("a.b", default) of all keys whose constructors are known and have one."""
    for where, made in _sections().items():
        for name, default in made.items():
            yield f"{where}.{name}" if where else name, default
    nodes = [("encoder", "encoder", _node(config, "encoder"))]
    nodes += [(f"dataset.{kind}", kind, _node(config, "dataset", kind)) for kind in ("packer", "decoder", "picture")]
    for group, kind in _GROUPS.items():
        for key, node in _node(config, group).items():
            if isinstance(node, Mapping):  # a term's name may be that of its key; here it tells that the term is there
                nodes.append((f"{group}.{key}", kind, {"name": key, **node}))
                yield f"{group}.{key}.weight", 1.0 if group != "actions" else None
    for key, node in _node(config, "evaluation", "probes").items():
        if isinstance(node, Mapping):
            nodes.append((f"evaluation.probes.{key}", "probe", {"name": key, **node}))
            yield f"evaluation.probes.{key}.reader", "lbfgs"
            yield f"evaluation.probes.{key}.max_rows", 200_000
    nodes.append(("optimizer", "optimizer", _node(config, "optimizer")))
    for where, kind, node in nodes:
        for name, default in _options(kind, str(node.get("name"))).items():
            yield f"{where}.{name}", default


@functools.cache
def _sections() -> dict[str, dict[str, Any]]:
    # Imported here: with them comes torch, and a table's file is read without it.
    from stec.data import Dataset
    from stec.evaluation.decodability import Reader
    from stec.evaluation.knn import Knn
    from stec.evaluation.linear import Logistic
    from stec.evaluation.suite import Suite
    from stec.training.options import Hardware, Training

    made = {"dataset": Dataset, "training": Training, "hardware": Hardware, "evaluation": Suite}
    made |= {"evaluation.knn": Knn, "evaluation.linear": Logistic, "evaluation.action": Reader}
    found = {where: _of(each) for where, each in made.items()}
    found["evaluation"]["online_probe"] = True
    return found


@functools.cache
def _options(kind: str, name: str) -> dict[str, Any]:
    """{key: default} of a class by its name; nothing if there is none of this name here."""
    from stec.training.optim import OPTIMIZERS

    try:
        made: Callable[..., Any] | None = OPTIMIZERS.get(name) if kind == "optimizer" else catalogue.find(kind, name)
    except UsageError:
        return {}
    return {} if made is None else _of(made)


def _of(made: Callable[..., Any]) -> dict[str, Any]:
    return {key: each.default for key, each in keywords(made).items() if each.default is not inspect.Parameter.empty}


def _node(config: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The group at this place; an empty one if there is none."""
    node: Any = config
    for step in path:
        node = node.get(step) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


# Groups that may be null for "none of it", where leaving them out means "with its defaults": so what is there is told.
_TOLD = ("evaluation.knn", "evaluation.linear", "evaluation.action")


def _flat(node: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys; lists are values."""
    for key, value in node.items():
        where = f"{start}{key}"
        if where in _TOLD and value is None:
            yield where, "left out"
        elif isinstance(value, Mapping):
            parent = start.rstrip(".")
            if (parent in _GROUPS or parent == "evaluation.probes") and "name" not in value:
                yield f"{where}.name", key
            yield from _flat(value, f"{where}.")
        else:
            yield where, value


def _same(one: Any, other: Any) -> bool:
    return _text(one) == _text(other)


def _text(value: Any) -> str:
    """JSON in which equal values are equal texts."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    """1 and 1.0 are one number, though two texts; a tuple is a list."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
