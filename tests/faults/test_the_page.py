"""docs/faults.md has a line for each fault that is tested, slowly or not, and no others."""

import json
import re
import sys
from pathlib import Path

import pytest
from commands import ROOT, Commands, plain


class Marks:
    """A plugin of pytest: tells the number and the fault of each test that it collects."""

    def pytest_collection_finish(self, session):
        marks = [mark.args[:2] for item in session.items for mark in item.iter_markers("fault")]
        Path("marks.json").write_text(json.dumps(marks))


def collect():
    words = [
        "--collect-only",
        "-m",
        "slow or not slow",
        "-p",
        "no:xdist",
        "--assert=plain",
        str(ROOT / "tests" / "faults"),
    ]
    sys.exit(pytest.main(words, plugins=[Marks()]))


def test_a_line_for_each_fault(tmp_path, request):
    pytest.importorskip("aiohttp")  # without it, not all tests are collected
    ended = Commands(tmp_path)("stec-train", before=collect)
    assert ended.code == 0, ended.out + ended.err
    tested = {(number, fault) for number, fault in json.loads((tmp_path / "marks.json").read_text())}
    assert set(range(1, 63)) <= {number for number, _ in tested}
    if not request.config.getoption("--write-faults"):
        page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
        lines = re.findall(r"^\| (\d+) \| (.*?) \| ", page, re.MULTILINE)
        assert {(int(number), fault) for number, fault in lines} == tested


def test_only_our_own_word_for_the_machine_is_replaced(monkeypatch):
    monkeypatch.setattr("os.uname", lambda: type("Machine", (), {"nodename": "this"}))
    said = "in use by process 7 on this: try on this CPU; process 7 on this-one"
    assert plain(said, Path("/x")) == "in use by process N on HOST: try on this CPU; process N on this-one"
