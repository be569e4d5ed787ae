"""What a run writes as it goes, on a disk that takes no more after so many bytes."""

import resource
from contextlib import contextmanager

import pytest

from stec.training.records import LogFile, Metrics, TensorBoard, append


@contextmanager
def room(num_bytes):
    """No file may become longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def lines(steps):
    return "".join(f'{{"step": {step}, "epoch": 0.5, "a": 1.0}}\n' for step in steps)


@pytest.fixture
def metrics(tmp_path):
    found = Metrics(tmp_path / "metrics.jsonl")
    found.cut_back(-1)
    return found


def test_what_is_added_is_added_whole_or_not_at_all(tmp_path):
    append(tmp_path / "file", b"12345")
    with room(8), pytest.raises(OSError, match="too large"):
        append(tmp_path / "file", b"6789")
    assert (tmp_path / "file").read_bytes() == b"12345"
    append(tmp_path / "file", b"6789")
    assert (tmp_path / "file").read_bytes() == b"123456789"


def test_lines_wait_until_there_is_room(metrics, caplog):
    with room(len(lines([1])) + 5):
        for step in (1, 2, 3):
            metrics.write(step, 0.5, {"a": 1.0})
        metrics.sync()
        assert metrics.path.read_text() == lines([1])
        assert metrics.unwritten == lines([2, 3]).splitlines(keepends=True)
    metrics.sync()
    assert metrics.path.read_text() == lines([1, 2, 3])
    assert metrics.unwritten == []
    assert [record.getMessage() for record in caplog.records] == [
        f"{metrics.path} cannot be written (File too large): its lines wait."
    ]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_checkpoint_s_lines_are_there_once_whatever_came_after_it(metrics, written):
    """The run was killed after none, one or both of them had been written after all, in the middle of another."""
    metrics.path.write_text(lines([1, *[2, 3][:written]]) + '{"step": 4, "ep')
    metrics.cut_back(3, lines([2, 3]).splitlines(keepends=True))
    assert metrics.path.read_text() == lines([1, 2, 3])


def test_garbage_between_lines_is_forgotten(metrics):
    metrics.path.write_bytes(lines([1]).encode() + b'\xff\xfe\n[]\n5\n"a"\n' + lines([2, 9]).encode())
    metrics.cut_back(2)
    assert metrics.path.read_text() == lines([1, 2])


def test_the_log_leaves_out_what_does_not_fit_and_says_so_once(tmp_path, caplog):
    log = LogFile(tmp_path / "train.log")
    log.line("first")
    with room((tmp_path / "train.log").stat().st_size + 5):
        log.line("second")
        log.line("third")
    log.line("fourth")
    log.close()
    assert [line.split()[-1] for line in (tmp_path / "train.log").read_text().splitlines()] == ["first", "fourth"]
    assert len(caplog.records) == 1


def test_tensorboard_ends_with_a_whole_record_and_says_so_once(tmp_path, caplog):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path / "tensorboard", 0)
    board.write(1, {"a": 1.0})
    with room(board.path.stat().st_size + 5):
        for step in (2, 3):
            board.write(step, {"a": 2.0})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [(1, 1.0)]
    assert len(caplog.records) == 1
