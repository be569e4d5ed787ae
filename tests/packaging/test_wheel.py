"""What is given away: a wheel with all packages and the recipes, which works anywhere, and an sdist that makes it too;
no file names a machine."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from tiny_run import TINY, draw, weights

from stec import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return built(WheelBuilder, ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    return built(SdistBuilder, ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """bin/ of an environment of its own, with the wheel; what it needs is lent by ours, without the .pth files in which
    ours names the checkout."""
    root = tmp_path_factory.mktemp("elsewhere")
    venv.create(root, with_pip=False)
    (site,) = root.glob("lib/python*/site-packages")
    lent = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    (site / "lent.pth").write_text("".join(f"{path}\n" for path in sorted(lent)))
    pip = [sys.executable, "-m", "pip", "--python", str(root / "bin" / "python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    return root / "bin"


def built(builder: type[WheelBuilder] | type[SdistBuilder], root: Path, out: Path) -> Path:
    (path,) = builder(str(root)).build(directory=str(out), versions=["standard"])
    return Path(path)


def run(*words: str | Path, place: Path) -> str:
    """What a command says that runs in `place`, with nothing in the environment that leads to the checkout."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env |= {"STEC_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(list(map(str, words)), env=env, cwd=place, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


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


def test_the_sdist_builds_the_same_wheel(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as file:
        file.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    assert {"tests", "tools", "docs", "recipes", "constraints.txt", "LICENSE"} <= {path.name for path in root.iterdir()}
    assert list(root.rglob("__pycache__")) == []
    assert contents(built(WheelBuilder, root, tmp_path / "out")) == contents(wheel)


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_installed_elsewhere_it_is_found_there_and_not_in_the_checkout(installed, tmp_path):
    code = (
        "import sys, stec, stec_vision, stec_audio; from stec.cli.recipes import folders\n"
        "parts = [stec, stec_vision, stec_audio]\n"
        "print(*(part.__file__ for part in parts), *(path for _, path in folders()), *sys.path, sep='\\n')\n"
    )
    said = run(installed / "python", "-c", code, place=tmp_path).splitlines()
    (site,) = installed.parent.glob("lib/python*/site-packages")
    inside = ["stec/__init__.py", "stec_vision/__init__.py", "stec_audio/__init__.py", "stec/recipes"]
    assert said[: len(inside)] == [str(site / name) for name in inside]
    assert {str(ROOT), str(ROOT / "modalities"), str(ROOT / "tests")}.isdisjoint(said)


def test_installed_elsewhere_its_commands_answer(installed, tmp_path):
    assert "quickstart" in run(installed / "stec-train", place=tmp_path)
    config = run(installed / "stec-train", "recipe=cifar10_simclr_stec", "--cfg", "job", place=tmp_path)
    assert "name: cifar10_simclr_stec\n" in config
    assert f"stec {__version__}" in run(installed / "stec-doctor", place=tmp_path)


def test_installed_elsewhere_it_packs_and_trains(installed, tmp_path):
    draw(tmp_path / "pictures", num=24)
    run(installed / "stec-train", *TINY, "data=pictures", "run_dir=run", "training.stop_after=2", place=tmp_path)
    assert "metrics.jsonl" in {path.name for path in (tmp_path / "run").iterdir()}
    assert weights(tmp_path / "run")


HOSTS = {"www.apache.org", "semver.org", "github.com", "arxiv.org", "doi.org", "pytorch.org", "www.w3.org"}
HOSTS |= {"ui.perfetto.dev", "127.0.0.1"}  # which shows traces; this machine


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
        # A name without a dot is that of no machine: HOST, localhost.
        hosts = [host for host in re.findall(r"https?://([\w.-]+)", text) if "." in host.strip(".")]
        slips += [f"{name}: {host}" for host in hosts if host not in HOSTS]
    assert [slip for slip in slips if not slip.startswith("tests/packaging/test_wheel.py")] == []
