"""A third party's package: installed by pip, listed, checked and trained with, in processes of their own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stec.testing

PACKAGE = Path(__file__).parent / "stec_toy"
SOURCES = sorted(p for p in PACKAGE.rglob("*") if p.suffix in (".py", ".yaml", ".toml"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("hatchling", reason="hatchling, which builds the package, is missing")
    target = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(PACKAGE)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return target


@pytest.fixture(scope="module")
def run(site, tmp_path_factory):
    """run(module, words) in a process that has the package, as it would be after `pip install`."""
    place = tmp_path_factory.mktemp("place")

    def run(module: str, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(site), "STEC_CACHE": str(place / "cache")}
        command = [sys.executable, "-m", module, *words]
        ended = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True)
        ended.place = place  # type: ignore[attr-defined]
        return ended

    return run


def test_it_is_small_and_whole():
    """Under 150 lines that are not blank; nothing of the core knows of it."""
    lines = [line for path in SOURCES for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) < 150
    assert {path.suffix for path in SOURCES} == {".py", ".yaml", ".toml"}
    core = Path(__file__).parents[2]
    files = [path for folder in ("stec", "modalities", "recipes") for path in (core / folder).rglob("*.*")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".yaml")]
    assert [text for text in texts if "stec_toy" in text or "motion" in text] == []


def test_its_recipe_is_listed(run):
    ended = run("stec.cli.train")
    assert ended.returncode == 0, ended.stderr
    assert "  toy_motion  " in ended.stdout
    assert "Motion sensors" in ended.stdout


def test_its_recipe_runs_to_its_table_and_report(run):
    few = ["evaluation.linear.grid=[0.1]", "evaluation.action.epochs=2", "evaluation.train_pairs=96"]
    here = ["hardware=cpu", "hardware.num_workers=0", "run_dir=run"]
    ended = run("stec.cli.train", "recipe=toy_motion", *here, *few)
    assert ended.returncode == 0, ended.stderr
    told = ended.stdout + ended.stderr
    table = json.loads((ended.place / "run" / "table.json").read_text(encoding="utf-8"))
    assert 0 <= table["rows"]["trained"]["eval/activity/acc"] <= 1
    for words in ("step 12/12", "raw input", "untrained", "trained", "gain"):
        assert words in told
    assert {"table.json", "report.html", "checkpoints", "config.yaml"} <= {
        p.name for p in (ended.place / "run").iterdir()
    }
    page = (ended.place / "run" / "report.html").read_text(encoding="utf-8")
    assert "orange: view 2" in page
    assert "How much stronger view 2 is." in page


def test_its_keys_are_checked_like_ours(run):
    ended = run("stec.cli.train", "recipe=toy_motion", "actions.motion_gain.mots=3")
    assert ended.returncode == 2
    assert "actions.motion_gain.mots is unknown: did you mean 'most'?" in ended.stderr


def test_it_keeps_its_contract(run):
    ended = run("stec.cli.doctor", "plugin", "toy", "--all")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "toy keeps its contract" in ended.stdout
    for line in ("ok      action_space motion_window: group law", "ok      all parts: overfit"):
        assert line in ended.stdout


def test_the_page_that_tells_it_quotes_it():
    page = (Path(__file__).parents[2] / "docs" / "add-a-modality.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^```(?:toml|python|yaml)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    texts = [
        *(path.read_text(encoding="utf-8") for path in SOURCES),
        re.sub("^    ", "", stec.testing.__doc__ or "", flags=re.MULTILINE),
    ]
    assert len(quoted) >= 6
    assert [block for block in quoted if not any(block.strip("\n") in text for text in texts)] == []
