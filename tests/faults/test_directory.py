"""The run directory: in use, taken by another run, not to be written to; and the other places that a run writes to."""

import pytest
from tiny_run import TINY

KERNEL = "/sys/kernel"


@pytest.mark.fault(6, "a run directory that cannot be written to", "refused before anything is built")
def test_a_read_only_directory(command, seen):
    """One that cannot be made, and one that is there but takes no files, whoever asks."""
    started = [command.start("stec-train", *TINY, "data=shards", f"run_dir={way}") for way in ("/proc/stec", KERNEL)]
    ended, there = (one.wait() for one in started)
    for one, way in ((ended, "/proc/stec"), (there, KERNEL)):
        assert one.code == 2
        assert one.refusal.startswith(f"run_dir={way} cannot be written: ")
        assert "data: " not in one.out
    seen(ended)


@pytest.mark.fault(6, "a cache that cannot be written to", "refused, and told how to choose another")
def test_a_read_only_cache(train, seen):
    ended = train("data=pictures", "run_dir=run", env={"STEC_CACHE": "/proc/stec"})
    assert ended.code == 2
    assert "STEC_CACHE" in ended.refusal
    seen(ended)


@pytest.mark.fault(6, "a table that cannot be written at the end", "refused; the same command writes it later")
@pytest.mark.slow
def test_no_room_for_the_table(train, seen, place):
    (place / "run" / "table.json").mkdir(parents=True)
    ended = train("run_dir=run")
    assert ended.code == 2
    (place / "run" / "table.json").rmdir()
    again = train("run_dir=run")
    assert again.code == 0, again.err
    assert "step 12/12" not in again.out  # nothing is learnt twice
    assert (place / "run" / "report.html").is_file()
    seen(ended)


@pytest.mark.fault(7, "two runs in one directory", "the second is refused, and told whose it is")
def test_two_runs_in_one_directory(command, train, seen, place):
    first = command.start("stec-train", *TINY, "data=shards", "run_dir=run", "training.epochs=200")
    first.wait_for((place / "run" / ".lock").exists)
    ended = train("run_dir=run")
    first.kill()
    assert ended.code == 2
    assert f"in use by process {first.pid} on" in ended.refusal
    seen(ended)


@pytest.mark.fault(8, "a directory with a run, and resume=never", "refused, and told what may be done")
def test_another_run_is_there(train, seen, place):
    assert train("run_dir=run", "training.stop_after=1").code == 0
    before = {path: path.stat().st_mtime_ns for path in (place / "run" / "checkpoints").iterdir()}
    ended = train("run_dir=run", "resume=never")
    assert ended.code == 2
    assert {path: path.stat().st_mtime_ns for path in (place / "run" / "checkpoints").iterdir()} == before
    seen(ended)
