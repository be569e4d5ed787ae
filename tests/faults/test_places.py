"""Where things lie, when it is, and being killed while something is put into its place."""

import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from tiny_run import TINY, metrics, same, weights

from stec import export
from stec.shards import writer
from stec.shards.reader import open_shards

STRANGE = "Sömmer, 2024 #1? a=b (x) 'é' 写真"


@pytest.fixture(scope="module")
def whole(ground):
    """The run that nothing happens to."""
    from commands import Commands

    ended = Commands(ground)("stec-train", *TINY, "data=shards", "run_dir=usual")
    assert ended.code == 0, ended.err
    return ground / "usual"


@pytest.mark.fault(53, "spaces, commas, = # ? ' and any letters in paths", "taken as they are written")
def test_strange_names(command, train, seen, place, whole):
    (place / STRANGE).mkdir()
    (place / STRANGE / "data").symlink_to(place / "shards")
    ended = train(f"data={STRANGE}/data", f"run_dir={STRANGE}/a new, run=1 #2")
    assert ended.code == 0, ended.err
    run = place / STRANGE / "a new, run=1 #2"
    assert metrics(run) == metrics(whole)
    ended = command("stec-export", str(run), "--out", f"{STRANGE}/out, 1")
    assert ended.code == 0, ended.err
    ended = train(f"weights={STRANGE}/out, 1", "run_dir=plain, ascii=1 #?", "training.stop_after=1")
    assert ended.code == 0, ended.err
    assert (place / "plain, ascii=1 #?" / "config.yaml").is_file()
    seen("survived: data, run_dir and weights; the metrics are the same")


@pytest.mark.fault(54, "relative paths, and another folder to start in", "they mean what they mean to the shell")
def test_from_another_folder(command, train, seen, place, whole):
    assert train("run_dir=run", "training.stop_after=4").code == 0
    command.place = place / "below"
    command.place.mkdir()
    ended = command("stec-train", *TINY, "data=../shards", "run_dir=../run", "hydra.job.chdir=true")
    assert ended.code == 0, ended.err
    assert metrics(place / "run") == metrics(whole)
    ended = command("stec-eval", "../run", "data=../shards", "linear=null", "action=null", "--num-workers", "0")
    assert ended.code == 0, ended.err
    assert [path.name for path in command.place.iterdir() if path.name not in (".said", "cache")] == []
    seen("survived: the run went on, nothing lies about")


def a_clock_that_jumps():
    """A day ahead, a day back, two days ahead, ..., and for a while it stands."""
    time.tzset()  # whatever was imported first may have looked at another TZ
    right, calls = time.time, [0]

    def jumping():
        calls[0] += 1
        return 1e9 if calls[0] < 20 else right() + 86400.0 * calls[0] * (-1) ** calls[0]

    time.time, time.time_ns = jumping, lambda: int(jumping() * 1e9)


@pytest.mark.fault(55, "the clock jumps by days, and the time zone is another", "nothing but time stamps depends on it")
@pytest.mark.slow
def test_a_wild_clock(train, seen, place, whole):
    for words in (["training.stop_after=5"], []):
        ended = train("run_dir=run", *words, before=a_clock_that_jumps, env={"TZ": "Pacific/Kiritimati"})
        assert ended.code == 0, ended.err
    assert metrics(place / "run") == metrics(whole)
    assert same(weights(place / "run"), weights(whole))
    seen("survived: weights and metrics are the same")


def frozen():
    time.time, time.time_ns = lambda: 1e9, lambda: 10**18


@pytest.mark.fault(55, "three starts in the same second", "each has files of its own")
@pytest.mark.slow
def test_the_same_second(command, train, seen, place, whole):
    twins = [command.start("stec-train", *TINY, "data=shards", f"run_dir=run{i}", before=frozen) for i in (0, 1)]
    assert [twin.wait().code for twin in twins] == [0, 0]
    assert train("run_dir=run2", "training.stop_after=5", before=frozen).code == 0
    assert train("run_dir=run2", before=frozen).code == 0
    assert {metrics(place / f"run{i}") for i in range(3)} == {metrics(whole)}
    assert len(list((place / "run2" / "tensorboard").iterdir())) == 2
    seen("survived: the metrics are the same")


def die(*_args, **_options):
    os.kill(os.getpid(), signal.SIGKILL)


def killed_before_the_card():
    export.card = die


def killed_between_the_renames():
    rename, calls = Path.rename, [0]

    def counted(self, target):
        if "part" in f"{self.name} {Path(target).name}":
            calls[0] += 1
            if calls[0] == 2:
                die()
        return rename(self, target)

    Path.rename = counted


@pytest.mark.fault(59, "killed in the middle of an export", "the same command makes it, and nothing half is left")
@pytest.mark.parametrize("moment", [killed_before_the_card, killed_between_the_renames])
def test_killed_while_exporting(command, seen, place, whole, moment, request):
    line = ["stec-export", str(whole), "--out", "exported"]
    assert command(*line).code == 0
    before = {path.name: path.read_bytes() for path in (place / "exported").iterdir()}
    assert command(*line, before=moment).code == -signal.SIGKILL
    assert (place / "exported").exists() == (moment is killed_before_the_card)
    assert command(*line).code == 0
    assert {path.name: path.read_bytes() for path in (place / "exported").iterdir()} == before
    assert [path.name for path in place.iterdir() if path.name.startswith(".exported")] == []
    seen("survived: the export is the same")


def killed_at(name):
    """In the middle of writing the file of this name, some of it is on disk."""
    replace = os.replace

    def cut(source, target):
        if Path(target).name == name:
            die()
        replace(source, target)

    os.replace = cut


@pytest.mark.fault(59, "killed while an index is written", "the one before it is read; the same command writes it")
def test_killed_while_indexing(command, seen, place):
    shutil.copytree(place / "shards" / "train", place / "tars")
    before = {path.name: path.read_bytes() for path in (place / "tars").iterdir()}
    assert command("stec-shards", "index", "tars", before=partial(killed_at, "index.json")).code == -signal.SIGKILL
    assert command("stec-shards", "verify", "tars").code == 0
    assert command("stec-shards", "index", "tars").code == 0
    assert {path.name: path.read_bytes() for path in (place / "tars").iterdir()} == before
    seen("survived: the index is the same")


def killed_in_a_tar():
    write = writer.TarWriter.write

    def few(self, sample):
        written = write(self, sample)
        if sample["__key__"].endswith("07"):
            die()
        return written

    writer.TarWriter.write = few


@pytest.mark.fault(59, "killed while a shard is written", "no data set under its name; the same command makes it")
def test_killed_while_packing(command, seen, place):
    line = ["stec-shards", "pack", "pictures", "--packer", "image_folder", "--out", "packed"]
    assert command(*line, before=killed_in_a_tar).code == -signal.SIGKILL
    assert not (place / "packed").exists()
    assert len([path for path in place.iterdir() if path.name.startswith(".packed")]) == 1
    assert command(*line).code == 0
    assert [path for path in place.iterdir() if path.name.startswith(".packed")] == []
    for split in ("train", "test"):
        assert open_shards(place / "packed" / split).fingerprint == open_shards(place / "shards" / split).fingerprint
    seen("survived: the shards are the same")
