"""A third party's package: installed by pip, listed, checked and trained with, in processes of their own."""

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from faults.commands import Commands

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


def with_it(site: str) -> None:
    sys.path.insert(0, site)


@pytest.fixture(scope="module")
def run(site, tmp_path_factory):
    """run(command, words) in a process that has the package, as it would be after `pip install`."""
    return partial(Commands(tmp_path_factory.mktemp("place")), before=partial(with_it, str(site)))


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
    ended = run("stec-train")
    assert ended.code == 0, ended.err
    assert "  toy_motion  " in ended.out
    assert "Motion sensors" in ended.out


def test_its_recipe_runs_to_its_table_and_report(run):
    few = ["evaluation.linear.grid=[0.1]", "evaluation.action.epochs=2", "evaluation.train_pairs=96"]
    here = ["hardware=cpu", "hardware.num_workers=0", "run_dir=run"]
    ended = run("stec-train", "recipe=toy_motion", *here, *few)
    place = run.func.place
    assert ended.code == 0, ended.err
    told = ended.out + ended.err
    table = json.loads((place / "run" / "table.json").read_text(encoding="utf-8"))
    assert 0 <= table["rows"]["trained"]["eval/activity/acc"] <= 1
    for words in ("step 12/12", "raw input", "untrained", "trained", "gain"):
        assert words in told
    assert {"table.json", "report.html", "checkpoints", "config.yaml"} <= {p.name for p in (place / "run").iterdir()}
    page = (place / "run" / "report.html").read_text(encoding="utf-8")
    assert "orange: view 2" in page
    assert "How much stronger view 2 is." in page


def test_its_keys_are_checked_like_ours(run):
    ended = run("stec-train", "recipe=toy_motion", "actions.motion_gain.mots=3")
    assert ended.code == 2
    assert "actions.motion_gain.mots is unknown: did you mean 'most'?" in ended.err


def test_it_keeps_its_contract(run):
    ended = run("stec-doctor", "plugin", "toy", "--all")
    assert ended.code == 0, ended.out + ended.err
    assert "toy keeps its contract" in ended.out
    for line in ("ok      action_space motion_window: group law", "ok      all parts: overfit"):
        assert line in ended.out


def test_the_page_that_tells_it_quotes_it():
    page = (Path(__file__).parents[2] / "docs" / "add-a-modality.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^```(?:toml|python|yaml)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    texts = [
        *(path.read_text(encoding="utf-8") for path in SOURCES),
        re.sub("^    ", "", stec.testing.__doc__ or "", flags=re.MULTILINE),
    ]
    assert len(quoted) >= 6
    assert [block for block in quoted if not any(block.strip("\n") in text for text in texts)] == []
