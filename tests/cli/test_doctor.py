"""stec-doctor: what it says of an installation, and what it answers for a modality."""

import subprocess
import sys
from importlib.metadata import version
from unittest import SkipTest

import pytest

from stec import catalogue, testing
from stec.cli import doctor
from stec.errors import UsageError
from stec.testing import Case, Fault


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("STEC_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_installation_is_told(capsys, place):
    assert doctor.main([]) == 0
    told = capsys.readouterr().out
    assert f"torch {version('torch')}" in told
    assert "hardware=auto: " in told
    assert "cores for this process" in told
    assert f"vision (of stec {version('stec')})" in told
    assert "action_space: affine_crop, background" in told
    assert f"packed data is kept in {place / 'cache'}" in told
    assert "recipes (stec-train lists them)" in told
    assert told.endswith("All is well.\n")
    assert "\n! " not in told


def test_what_is_broken_is_marked_and_counted(capsys, place, monkeypatch):
    vision = next(one for one in catalogue.installed()[0] if one.modality.name == "vision")
    parts = {"encoder": {"resnet": "stec_vision.nowhere:ResNet"}}
    other = catalogue.Installed("elsewhere 3", vision.modality._replace(name="other", parts=parts))
    monkeypatch.setattr(catalogue, "installed", lambda: ([vision, other], ["farm:M of farm 2 failed on import."]))
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "einops" else "1.0")
    (place / "cache").write_text("a file where a folder should be")
    assert doctor.main([]) == 1
    told = capsys.readouterr().out
    marked = [line for line in told.splitlines() if line.startswith("! ")]
    assert [line[:30] for line in marked] == [
        "! einops is missing: pip insta",
        "!   encoder='resnet' of elsewh",
        "! farm:M of farm 2 failed on i",
        f"! the cache {place / 'cache'}"[:30],
    ]
    assert "set STEC_CACHE" in marked[-1]
    assert told.endswith("4 things to mend, marked with !\n")


def test_extras_are_told_with_what_they_lack(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "hypothesis" else "1.0")
    doctor.main([])
    assert "stec[test]: not here: hypothesis (pip install 'stec[test]')" in capsys.readouterr().out


def checks(*outcomes):
    """Cases that end so."""

    def case(number, outcome):
        def run():
            if outcome is not None:
                raise outcome

        return Case("encoder one", f"check {number}", "A promise.", run)

    return lambda name: [case(number, outcome) for number, outcome in enumerate(outcomes)]


def test_a_modality_that_keeps_its_contract(capsys, monkeypatch):
    monkeypatch.setattr(testing, "cases", checks(None, SkipTest("no GPU")))
    assert doctor.main(["plugin", "toy"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok      encoder one: check 0",
        "--      encoder one: check 1",
        "toy keeps its contract: 1 checks passed, 0 failed, 1 skipped (--all says why).",
    ]
    assert doctor.main(["plugin", "toy", "--all"]) == 0
    assert "        skipped: no GPU\n" in capsys.readouterr().out


def test_a_modality_that_breaks_it(capsys, monkeypatch):
    monkeypatch.setattr(testing, "cases", checks(Fault("It is too wide."), None))
    assert doctor.main(["plugin", "toy"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "FAILED  encoder one: check 0",
        "        It is too wide.",
        "        (what is promised: A promise.)",
        "ok      encoder one: check 1",
        "toy breaks its contract: 1 checks passed, 1 failed.",
    ]


def test_an_unknown_name_is_a_sentence_with_the_nearest(capsys):
    assert doctor.main(["plugin", "visoin"]) == UsageError.exit_code
    assert "no modality 'visoin' installed: did you mean 'vision'?" in capsys.readouterr().err


def test_its_help_does_not_wait_for_torch():
    code = (
        "import sys; from stec.cli import doctor\n"
        "try: doctor.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("usage: stec-doctor")
    assert ended.stdout.endswith("False\n")
