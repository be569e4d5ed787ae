"""What is installed: pinned, as an auditor of packages reads it, and nothing with a known hole."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINS = dict(line.split("==") for line in LINES if "==" in line and not line.startswith("#"))
EXTRAS = {extra: [Requirement(each) for each in listed] for extra, listed in PROJECT["optional-dependencies"].items()}
NEEDED = [Requirement(each) for each in PROJECT["dependencies"]]
DIRECT = [*NEEDED, *(each for listed in EXTRAS.values() for each in listed)]

# (advisory, what it hits). Of the packages that are ours, or run where ours run, and that had one.
HOLES = {
    "torch": [("CVE-2025-32434", "<2.6"), ("CVE-2026-24747", "<2.10")],  # torch.load with weights_only=True
    "pillow": [("CVE-2026-40192", "<12.2"), ("PYSEC-2026-2253", "<12.3")],
    "opencv-python-headless": [("CVE-2023-4863", "<4.8.1.78"), ("CVE-2026-40962", "<5.0.0.93")],  # what it bundles
    "timm": [("GHSA-pqww-w348-m542", "<1.0.28")],  # weights that are pickles
    "hydra-core": [("GHSA-2cp2-2r3c-7p7r", "<1.3.8")],  # what `_target_` may name
    "scikit-learn": [("CVE-2024-5206", "<1.5")],
    "pytorch-lightning": [("GHSA-w37p-236h-pfx3", "==2.6.2"), ("GHSA-w37p-236h-pfx3", "==2.6.3")],
    "lightning": [("GHSA-w37p-236h-pfx3", "==2.6.2"), ("GHSA-w37p-236h-pfx3", "==2.6.3")],
    "aiohttp": [("CVE-2026-34515", "<3.13.4"), ("CVE-2026-69244", "<3.14.3")],
    "protobuf": [("CVE-2026-0994", "<6.33.5")],
    "werkzeug": [("CVE-2026-27199", "<3.1.6")],
    "jinja2": [("CVE-2025-27516", "<3.1.6")],
    "setuptools": [("CVE-2025-47273", "<78.1.1")],
}


def test_every_line_pins_one_package_under_its_normal_name_in_order():
    pins = [line for line in LINES if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)] == []
    names = [line.partition("==")[0] for line in pins]
    assert names == sorted(set(names))
    assert names == [canonicalize_name(name) for name in names]


@pytest.mark.parametrize("needed", DIRECT, ids=str)
def test_what_is_asked_for_is_pinned_to_a_version_that_it_allows(needed):
    assert needed.specifier.contains(PINS[canonicalize_name(needed.name)])


@pytest.mark.parametrize("needed", [*NEEDED, *EXTRAS["test"]], ids=str)
def test_the_tests_run_with_what_is_pinned(needed):
    assert version(needed.name).partition("+")[0] == PINS[canonicalize_name(needed.name)]


@pytest.mark.parametrize("name", HOLES)
def test_no_version_with_a_known_hole_is_pinned_asked_for_or_here(name):
    asked = [each for each in DIRECT if canonicalize_name(each.name) == name]
    try:
        found = [version(name)]
    except PackageNotFoundError:
        found = []
    found += [PINS[name]] if name in PINS else []
    for advisory, hit in HOLES[name]:
        holed = SpecifierSet(hit)
        assert [each for each in found if each in holed] == [], advisory
        assert [str(each) for each in asked if any(v in each.specifier for v in _just_inside(holed))] == [], advisory


def _just_inside(holed: SpecifierSet) -> list[str]:
    """Versions with the hole: the last below the first without it, or the one that has it."""
    (hit,) = holed
    if hit.operator == "==":
        return [hit.version]
    *front, last = (int(part) for part in hit.version.split("."))
    while last == 0:
        *front, last = front
    return [".".join(map(str, [*front, last - 1, 999]))]


def test_the_versions_just_inside_a_hole_are_in_it():
    assert _just_inside(SpecifierSet("<2.10")) == ["2.9.999"]
    assert _just_inside(SpecifierSet("<5.0")) == ["4.999"]
    assert _just_inside(SpecifierSet("==2.6.3")) == ["2.6.3"]
