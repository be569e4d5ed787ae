"""Where recipes are found: ours, and those of every installed modality; and the list that bare `stec-train` prints."""

from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

import stec
from stec.catalogue import GROUP
from stec.errors import UsageError


def own() -> Path:
    """The folder of our recipes: inside the installed package, or beside it in a checkout."""
    inside = Path(stec.__file__).parent / "recipes"
    return inside if inside.is_dir() else Path(stec.__file__).parent.parent / "recipes"


def folders() -> Iterator[tuple[str, Path]]:
    """(distribution, folder) of every place with recipes, ours first; no modality is imported to find out."""
    yield "stec", own()
    seen = set()
    for point in entry_points(group=GROUP):
        try:
            package = point.module.split(".")[0]
            spec = find_spec(package)
        except (AttributeError, ImportError, ValueError):  # what it leads to is no name of a module
            continue
        if spec is None or not spec.submodule_search_locations or package in seen:
            continue
        seen.add(package)
        folder = Path(next(iter(spec.submodule_search_locations))) / "recipes"
        if folder.is_dir():
            yield point.dist.name if point.dist else package, folder


def listing() -> dict[str, str]:
    """{recipe: its line}, over all distributions; UsageError if two of them use one name."""
    owners: dict[str, str] = {}
    lines: dict[str, str] = {}
    for distribution, folder in folders():
        for path in sorted((folder / "recipe").glob("*.yaml")):
            if path.stem in owners:
                raise UsageError(
                    f"recipe {path.stem!r} is in both {owners[path.stem]} and {distribution}: uninstall one."
                )
            owners[path.stem] = distribution
            found = [
                line.split(":", 1)[1].strip()
                for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
                if line.startswith("# One line:")
            ]
            lines[path.stem] = found[0] if found else ""
    return lines


class Recipes(SearchPathPlugin):
    """Appends the recipe folders of installed modalities to hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for distribution, folder in folders():
            if folder != own():
                search_path.append(provider=distribution, path=f"file://{folder}")


def register() -> None:
    """Tell hydra, in this process only."""
    Plugins.instance().register(Recipes)
