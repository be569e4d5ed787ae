"""stec-train: compose a recipe, check it, run it. Bare, it lists the recipes. All of hydra is behind this door."""

import os
import re
import sys

import hydra
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch.distributed.elastic.multiprocessing.errors import record

from stec.catalogue import nearest
from stec.cli import recipes
from stec.cli.door import guarded
from stec.errors import UsageError


@guarded
def main(argv: list[str] | None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments:
        _list()
        return 0
    # hydra then lets exceptions through instead of printing them and exiting by itself.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    recipes.listing()  # two recipes of one name: hydra would take the first in silence
    recipes.register()
    before, sys.argv = sys.argv, ["stec-train", *_expanded(arguments)]
    try:
        hydra.main(version_base="1.3", config_path=str(recipes.own()), config_name="train")(_job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_sentence(error, arguments)) from error
    finally:
        sys.argv = before
    return 0


def _job(config: DictConfig) -> None:
    # Imported here, so that listing and --cfg do not wait for torch.
    from stec import experiment

    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    experiment.run({str(key): value for key, value in plain.items() if key != "recipe"})


def _list() -> None:
    print("Recipes (stec-train recipe=NAME [key=value ...]; --cfg job shows all keys; -m sweeps):\n")
    lines = recipes.listing()
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"  {name:{width}}  {line}")


def _expanded(arguments: list[str]) -> list[str]:
    """`encoder=timm/NAME` is short for `encoder=timm encoder.model=NAME`."""
    expanded = []
    for argument in arguments:
        match = re.fullmatch(r"encoder=timm/(.+)", argument)
        expanded += ["encoder=timm", f"encoder.model={match[1]}"] if match else [argument]
    return expanded


def _sentence(error: Exception, arguments: list[str]) -> str:
    """What hydra or omegaconf complain about, in one sentence with the nearest name."""
    text = str(error)
    if isinstance(error, MissingConfigException):
        if match := re.search(r"Could not find '([\w-]+)/([^']+)'", text):
            options = [line.strip() for line in text.partition("Available options in")[2].splitlines()[1:]]
            return f"{match[1]}={match[2]} is unknown: {nearest(match[2], [o for o in options if o and ' ' not in o])}"
        return " ".join(text.split())
    if "You must specify 'recipe'" in text:
        return f"no recipe chosen: recipe=NAME is needed. {nearest('', recipes.listing())}"
    if match := re.search(r"Could not override '([^']+)'", text):
        return f"{match[1]} is unknown: {nearest(match[1].rpartition('.')[2], _siblings(match[1], arguments))}"
    return " ".join(text.split())


def _siblings(key: str, arguments: list[str]) -> list[str]:
    """The keys beside a key that does not exist, in the configuration that the chosen groups compose."""
    groups = [a for a in _expanded(arguments) if re.match(r"[a-z]+=", a) and a.partition("=")[0] in _groups()]
    with initialize_config_dir(version_base="1.3", config_dir=str(recipes.own())):
        node = compose("train", overrides=groups)
    for step in key.split(".")[:-1]:
        node = node.get(step) if isinstance(node, DictConfig) and step in node else DictConfig({})
    return [str(k) for k in node] if isinstance(node, DictConfig) else []


def _groups() -> set[str]:
    return {path.name for path in recipes.own().iterdir() if path.is_dir()}


if __name__ == "__main__":
    sys.exit(record(main)())
