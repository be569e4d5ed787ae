"""stec-train: compose a recipe, check it, run it. Bare, it lists the recipes. All of hydra is behind this door."""

import os
import sys

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch.distributed.elastic.multiprocessing.errors import record
from yaml import YAMLError

from stec.cli import composing, recipes
from stec.cli.door import guarded
from stec.errors import UsageError


class Failed(BaseException):
    """Carries the error of a job past hydra, which would print a line of its own and begin the next job of a sweep."""

    def __init__(self, error: Exception):
        self.error = error


@guarded
def main(argv: list[str] | None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or {"-h", "--help"} & set(arguments):
        _list()
        return 0
    # hydra then lets exceptions through instead of printing them and exiting by itself.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    recipes.listing()  # two recipes of one name: hydra would take the first in silence
    recipes.register()
    before, sys.argv = sys.argv, ["stec-train", *composing.expanded(arguments)]
    try:
        hydra.main(version_base="1.3", config_path=str(recipes.own()), config_name="train")(_job)()
    except Failed as failed:
        raise failed.error from None
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(composing.sentence(error, arguments)) from error
    finally:
        sys.argv = before
    return 0


def _job(config: DictConfig) -> None:
    try:
        # Imported here, so that listing and --cfg do not wait for torch.
        from stec import experiment

        experiment.run(composing.plain(config))
    except Exception as error:
        raise Failed(error) from error


def _list() -> None:
    print("Recipes (stec-train recipe=NAME [key=value ...]; --cfg job shows all keys; -m sweeps):\n")
    lines = recipes.listing()
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"  {name:{width}}  {line}")


if __name__ == "__main__":
    from stec.training.ranks import leave

    leave(record(main)() or 0)
