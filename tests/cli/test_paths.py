"""Paths on the command line of stec-train: taken as they are written, whatever hydra's grammar makes of their signs."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from stec.cli import composing


def understood(argument: str, *options: str):
    *_, expanded = composing.expanded([*options, argument])
    override = OverridesParser.create().parse_override(expanded)
    return None if override.is_sweep_override() else override.value()


@pytest.mark.parametrize("key", ["data", "weights", "resume", "run_dir"])
@pytest.mark.parametrize("name", ["plain", "Summer, 2024 (1)", "photos ü 写真", 'a "quoted" one', "it's", "007", "[x]"])
def test_a_folder_that_is_there_is_found_under_its_name(key, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    assert str(understood(f"{key}={name}")) == name
    assert str(understood(f"{key}={tmp_path / name}")) == str(tmp_path / name)


def test_a_tilde_is_home_and_a_new_folder_may_have_any_letters(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert understood("data=~/nowhere") == str(tmp_path / "nowhere")
    assert understood("run_dir=läufe/erster Lauf") == "läufe/erster Lauf"


def test_what_is_no_path_stays_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert composing.expanded(["data=null", "run_dir=runs/${name}", "seed=0,1"]) == [
        "data=null",
        "run_dir=runs/${name}",
        "seed=0,1",
    ]
    assert understood("data=one,two", "-m") is None  # to be swept over
    assert understood("data=one,two") == "one,two"
    assert composing.expanded(["recipe=x", "encoder=timm/resnet18", "-m"]) == [
        "-m",
        "recipe=x",
        "encoder=timm",
        "encoder.model=resnet18",
    ]
