"""What is given away: a wheel with all packages and the recipes, which works anywhere; and no file names a machine."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    builders = pytest.importorskip("hatchling.builders.wheel", reason="hatchling, which builds the wheel, is missing")
    out = tmp_path_factory.mktemp("wheel")
    (built,) = builders.WheelBuilder(str(ROOT)).build(directory=str(out), versions=["standard"])
    return Path(built)


def sources(folder: str, pattern: str) -> set[str]:
    root = ROOT / folder
    return {path.relative_to(root.parent).as_posix() for path in root.rglob(pattern) if path.is_file()}


def test_the_packages_and_the_recipes_are_inside_and_nothing_else(wheel):
    found = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f"stec/{name}" for name in sources("recipes", "*.yaml")}
    packages = {
        name
        for folder in ("stec", "modalities/stec_vision", "modalities/stec_audio")
        for name in sources(folder, "*")
        if "__pycache__" not in name
    }
    about = {name for name in found if name.startswith(f"stec-{wheel.name.split('-')[1]}.dist-info/")}
    assert found - about == packages | recipes
    assert {
        "stec/recipes/train.yaml",
        "stec/recipes/recipe/quickstart.yaml",
        "stec_vision/__init__.py",
        "stec_audio/__init__.py",
    } <= found
    assert {name.partition("/")[2] for name in about} == {
        "METADATA",
        "WHEEL",
        "RECORD",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_every_command_of_the_wheel_has_its_module(wheel):
    found = zipfile.ZipFile(wheel).namelist()
    for target in PROJECT["scripts"].values():
        module, _, function = target.partition(":")
        assert f"{module.replace('.', '/')}.py" in found
        assert function == "main"


def test_unpacked_anywhere_it_finds_its_recipes_and_parts(wheel, tmp_path):
    """In a place without a checkout around it."""
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    script = (
        "import sys, stec, stec_vision; from stec.cli.train import main; from stec.cli.recipes import own\n"
        "from stec.catalogue import find\n"
        "print(stec.__file__, stec_vision.__file__, own(), find('decoder', 'image').__module__)\n"
        "sys.exit(main(['recipe=cifar10_simclr_stec', '--cfg', 'job']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    places, _, config = ended.stdout.partition("\n")
    site = tmp_path / "site"
    assert places.split() == [
        str(site / "stec/__init__.py"),
        str(site / "stec_vision/__init__.py"),
        str(site / "stec/recipes"),
        "stec_vision.decode",
    ]
    assert "name: cifar10_simclr_stec\n" in config


HOSTS = {"www.apache.org", "semver.org", "github.com", "arxiv.org", "doi.org", "pytorch.org", "www.w3.org"}
HOSTS |= {"ui.perfetto.dev"}  # which shows traces


def test_no_file_names_a_machine_or_a_registry():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("which files are tracked is known in a checkout only")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    slips = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", errors="replace")
        slips += [
            f"{name}: {found}" for found in re.findall(r"(?<![\w.~])/(?:work|root|home|Users|mnt|opt)/[\w.]+", text)
        ]
        slips += [f"{name}: {found}" for found in re.findall(r"(?:extra-)?index-url|trusted-host|find-links", text)]
        slips += [f"{name}: {host}" for host in re.findall(r"https?://([\w.-]+)", text) if host not in HOSTS]
    assert [slip for slip in slips if not slip.startswith("tests/packaging/test_wheel.py")] == []
