"""Tries of a run: what they took, how they ended, and one at a time."""

import pytest

from stec.comparison import tries
from stec.training.lock import Lock


def test_what_was_noted_is_told(tmp_path):
    run = tmp_path / "a" / "seed-0"
    assert (tries.read(run, "h"), tries.failed(run, "h")) == ([], "")
    with tries.alone(run):
        tries.note(run, {"seconds": 2.5, "code": 3, "hash": "h"})
        tries.note(run, {"seconds": 1.0, "code": 3, "hash": "other"})
        assert tries.failed(run, "h") == "exit code 3"
        tries.note(run, {"seconds": 1.5, "code": 130, "hash": "h"})
    assert (tries.seconds(run, "h"), tries.failed(run, "h")) == (4.0, "")
    tries.note(run, {"seconds": 0, "code": 0, "hash": "h", "why": "no such metric"})
    assert tries.failed(run, "h") == "no such metric"


@pytest.mark.parametrize("torn", [b'{"seconds": 1.0, "co', b"\xff\xfe", b"[]", b'{"hash": "h"}'])
def test_a_torn_line_is_passed_over_and_the_next_one_is_whole(tmp_path, torn):
    run = tmp_path / "seed-0"
    tries.note(run, {"seconds": 2, "code": 1, "hash": "h"})
    with open(tries.path_of(run), "ab") as file:
        file.write(torn)
    tries.note(run, {"seconds": 3, "code": 1, "hash": "h"})
    assert tries.seconds(run, "h") == 5.0


def test_a_run_is_tried_by_one_at_a_time(tmp_path):
    run = tmp_path / "seed-0"
    with tries.alone(run) as first, tries.alone(run) as second:
        assert (first, second) == (True, False)
    with tries.alone(run) as again:
        assert again


def test_a_run_that_somebody_else_holds_is_left_alone(tmp_path):
    run = tmp_path / "seed-0"
    run.mkdir()
    held = Lock(run)
    with tries.alone(run) as alone:
        assert not alone
    held.drop()
    with tries.alone(run) as alone:
        assert alone
