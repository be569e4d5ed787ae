"""Where recipes come from: ours, and those of installed packages, none of which is imported to find out."""

import sys
from importlib import invalidate_caches

import pytest
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins

from stec.cli import recipes
from stec.errors import UsageError


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """An installed package with a recipe; importing it is an error."""
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "stec_sounds" / "recipes" / "recipe"
    folder.mkdir(parents=True)
    (tmp_path / "stec_sounds" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "whales.yaml").write_text("# One line: Whales: what they say.\n")
    info = tmp_path / "stec_sounds-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stec-sounds\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[stec.modalities]\nsounds = stec_sounds:MODALITY\n")
    invalidate_caches()
    return folder


def test_every_recipe_of_ours_has_its_line():
    lines = recipes.listing()
    assert {"quickstart", "my_images", "cifar100_simclr_stec"} <= set(lines)
    assert [name for name, line in lines.items() if not line] == []


def test_a_strangers_recipes_are_listed_and_searched_without_importing_it(stranger):
    assert recipes.listing()["whales"] == "Whales: what they say."
    assert "stec_sounds" not in sys.modules
    searched: list[tuple[str, str]] = []

    class Path(ConfigSearchPath):
        def append(self, provider, path, anchor=None):
            searched.append((provider, path))

        def get_path(self):
            return []

        def prepend(self, provider, path, anchor=None):
            raise AssertionError

    recipes.Recipes().manipulate_search_path(Path())
    assert searched == [("stec-sounds", f"file://{stranger.parent}")]


def test_one_recipe_of_two_owners_is_refused(stranger):
    (stranger / "quickstart.yaml").write_text("# One line: Mine.\n")
    with pytest.raises(UsageError, match=r"recipe 'quickstart' is in both stec and stec-sounds: uninstall one\."):
        recipes.listing()


@pytest.mark.parametrize("leftover", ["nowhere:MODALITY", "stec.modality:Modality"])
def test_entry_points_without_recipes_are_passed_over(stranger, leftover):
    info = stranger.parents[2] / "stec_sounds-0.1.dist-info" / "entry_points.txt"
    info.write_text(f"[stec.modalities]\nsounds = {leftover}\n")
    assert "whales" not in recipes.listing()


def test_registering_twice_is_registering_once():
    recipes.register()
    recipes.register()
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    assert Plugins.instance().discover(SearchPathPlugin).count(recipes.Recipes) == 1
