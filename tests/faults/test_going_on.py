"""A run that was killed, or changed between two starts of the same command: it ends as one that was left alone."""

import random
import shutil
import signal
from functools import partial

import pytest
import yaml
from commands import Commands
from dying import dies_writing, difference, notes_keys, order, unfinished
from several import after, send, two
from tiny_run import BARE, SOUND, TINY, metrics, sing

from stec.training import checkpoint

RUN = ["stec-train", *TINY, *BARE, "data=shards", "run_dir=run"]
EQUAL = "weights, optimiser and metrics are those of a run that was left alone, bit for bit"


@pytest.fixture(scope="session")
def whole(ground):
    """12 steps in two epochs, checkpoints 9 and 12, and the keys of the samples of each step."""
    ended = Commands(ground)(*RUN[:-1], "run_dir=alone", before=notes_keys)
    assert ended.code == 0, ended.err
    return ground / "alone"


@pytest.fixture
def run(whole, place):
    """The same run, when it had come to the checkpoint of step 9."""
    return unfinished(whole, place / "run")


@pytest.mark.fault(1, "kill -9 in the middle of each file that a run writes", "nothing is lost, nothing left over")
def test_killed_in_the_middle_of_each_write(command, run, whole, seen):
    """One after the other, in one run: half of the file is there, and then nothing more."""
    writes = {"config.yaml": 1, "metrics.jsonl": 1, "step-00000012.ckpt": 1, "last": 2, "finished": 1, "report.html": 1}
    for what, number in writes.items():
        ended = command(*RUN, before=partial(dies_writing, what, number))
        assert ended.code == -signal.SIGKILL, (what, ended)
        if what not in ("metrics.jsonl", "last"):  # one gets half of a line more, the other is a link
            (half,) = run.rglob(f".{what}.*.tmp")
            assert half.stat().st_size > 0
    assert command(*RUN).code == 0
    assert difference(whole, run) == ""
    seen(f"survived {len(writes)} kills, in the middle of {', '.join(writes)}: {EQUAL}")


def killed(command, words, run):
    """Kill a run of 12 steps after three of the later ones, drawn at random, and let it end; the steps."""
    steps = sorted(random.Random(0).sample(range(4, 12), 3))
    for step in steps:
        ended = command(*words, before=partial(after, step, send, signal.SIGKILL))
        assert ended.code == -signal.SIGKILL, (step, ended)
        (run / "happened").unlink()
    stored = checkpoint.stored(run / "checkpoints")[-1].name
    ended = command(*words)
    assert ended.code == 0, ended.err
    assert f"starting at step {int(stored[5:13])} of 12" in ended.out
    return steps


@pytest.mark.fault(2, "kill -9 at random moments", "the same command goes on as if nothing had been")
def test_killed_at_random_moments(command, place, whole, seen):
    steps = killed(command, RUN, place / "run")
    assert difference(whole, place / "run") == ""
    seen(f"survived 3 kills, after steps {', '.join(map(str, steps))} of 12: {EQUAL}")


@pytest.mark.fault(2, "kill -9 in a run on recordings", "the same command goes on as if nothing had been")
@pytest.mark.slow
def test_killed_with_recordings(command, place, seen):
    sing(place / "recordings")
    words = ["stec-train", *SOUND, "evaluation.action=null", "data=recordings"]
    assert command(*words, "run_dir=alone").code == 0
    steps = killed(command, [*words, "run_dir=run"], place / "run")
    assert difference(place / "alone", place / "run") == ""
    seen(f"survived 3 kills, after steps {', '.join(map(str, steps))} of 12: {EQUAL}")


@pytest.mark.fault(14, "a run goes on with another learning rate", "refused, with the difference")
def test_another_configuration(command, run, seen):
    ended = command(*RUN, "optimizer.lr=0.5")
    assert ended.code == 2
    assert "(optimizer.lr: 0.001 -> 0.5)" in ended.refusal
    assert yaml.safe_load((run / "config.yaml").read_text())["optimizer"]["lr"] == 0.001
    seen(ended)


@pytest.mark.fault(14, "a run goes on with another interval of its log lines", "goes on, and says so")
def test_a_harmless_change(command, run, seen):
    ended = command(*RUN, "training.log_every=5")
    assert ended.code == 0
    assert "changed on resume: training.log_every: 2 -> 5" in ended.out
    assert [line.split(",")[0] for line in metrics(run).splitlines()][-3:] == [f'{{"step": {n}' for n in (10, 12, 12)]
    seen("survived: changed on resume: training.log_every: 2 -> 5")


@pytest.mark.fault(15, "a run of one process goes on with two", "the same samples in each step")
def test_another_number_of_ranks(command, run, whole, seen):
    ended = command(*RUN, before=two(notes_keys, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"))
    assert ended.code == 0, ended.err
    assert order(run) == {step: keys for step, keys in order(whole).items() if step > 9}
    assert len(metrics(run).splitlines()) == len(metrics(whole).splitlines())
    seen("survived: the same samples in each step, in the same order")


@pytest.mark.fault(16, "a run goes on with other loading processes", "the same samples, the same weights")
def test_another_number_of_loading_processes(command, run, whole, seen):
    assert command(*RUN, "hardware.num_workers=2", before=notes_keys).code == 0
    assert order(run) == {step: keys for step, keys in order(whole).items() if step > 9}
    assert difference(whole, run) == ""
    seen(f"survived: {EQUAL}")


@pytest.mark.fault(17, "a run goes on with another batch size", "refused, with the difference")
def test_another_batch_size(command, run, seen):
    ended = command(*RUN, "batch_size=4")
    assert ended.code == 2
    assert "(batch_size: 8 -> 4)" in ended.refusal
    seen(ended)


@pytest.mark.fault(18, "a shard is another one when a run goes on", "refused, and the shard is named")
def test_another_shard(command, run, place, seen):
    shutil.copytree(place / "shards", place / "others")
    shard = place / "others" / "train" / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[content.index(b"IEND") + 4] ^= 1  # of the checksum at the end of a picture
    shard.write_bytes(content)
    assert command("stec-shards", "index", "others/train").code == 0
    ended = command(*RUN, "data=others")
    assert ended.code == 2
    assert "train-000000.tar is another" in ended.refusal
    seen(ended)


@pytest.mark.fault(19, "a finished run is started again", "it says so, and changes nothing")
def test_finished(command, whole, place, seen):
    shutil.copytree(whole, place / "run", symlinks=True)

    def state():
        files = [path for path in (place / "run").rglob("*") if path.name not in ("train.log", ".lock")]
        return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in files}

    before = state()
    ended = command(*RUN)
    assert ended.code == 0
    assert "run: this run is finished" in ended.out
    assert state() == before
    seen("survived: exit code 0, " + ended.out.splitlines()[-1])


@pytest.mark.fault(62, "a run is left at the end of an epoch", "it goes on with the next one")
@pytest.mark.slow
def test_the_end_of_an_epoch(command, place, whole, seen):
    assert command(*RUN, "training.stop_after=6", before=notes_keys).code == 0
    assert command(*RUN, before=notes_keys).code == 0
    assert order(place / "run") == order(whole)
    assert difference(whole, place / "run") == ""
    seen(f"survived: {EQUAL}")
