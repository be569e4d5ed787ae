"""Packing: readable by webdataset, reproducible, whole or absent."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from stec.errors import DataError, UsageError
from stec.shards.reader import open_shards
from stec.shards.writer import pack, write_split


class Toy:
    """A packer of 7 and 3 samples."""

    splits = ("train", "test")

    def __init__(self, samples, fail=None):
        self._samples, self._fail = samples, fail

    def samples(self, split):
        yield from self._samples(7 if split == "train" else 3, split)
        if self._fail and split == "test":
            raise self._fail

    def meta(self, split):
        return {"classes": [split]}


def test_webdataset_reads_what_we_pack(split, samples, members, as_webdataset):
    found = [sample for path in sorted(split.glob("*.tar")) for sample in as_webdataset(path).items()]
    assert found == list(members(samples(10)).items())
    sizes = json.loads((split / "sizes.json").read_text())
    assert sizes == {"train-000000.tar": 4, "train-000001.tar": 4, "train-000002.tar": 2}


def test_pack_writes_every_split(tmp_path, samples):
    seen = []
    out = tmp_path / "deep" / "out"
    pack(Toy(samples), out, samples_per_shard=3, progress=lambda *state: seen.append(state))
    assert [open_shards(out / name).shard_sizes for name in ("train", "test")] == [(3, 3, 1), (3,)]
    assert open_shards(out / "test").meta == {"classes": ["test"]}
    assert seen == [(n, "train") for n in range(1, 8)] + [(n, "test") for n in range(1, 4)]
    assert os.listdir(out.parent) == ["out"]


def test_the_same_samples_give_the_same_bytes(tmp_path, samples, monkeypatch):
    for name in "ab":
        pack(Toy(samples), tmp_path / name)
        monkeypatch.setattr(time, "time", lambda: 1.0)
    files = [sorted((p.relative_to(tmp_path / n), p.read_bytes()) for p in (tmp_path / n).rglob("*.*")) for n in "ab"]
    assert files[0] == files[1]


def test_a_tar_stays_below_max_bytes(tmp_path):
    samples = [{"__key__": str(n), "x": b"." * 1000} for n in range(10)] + [{"__key__": "big", "x": b"." * 9000}]
    write_split(samples, tmp_path / "s", name="s", meta={}, max_bytes=5000)
    assert open_shards(tmp_path / "s").shard_sizes == (3, 3, 3, 1, 1)


def test_long_and_foreign_keys_and_upper_case_extensions(tmp_path, as_webdataset):
    key = "ordner.v2/" + "ü" * 120
    write_split([{"__key__": key, "JPG": b"1"}], tmp_path / "s", name="s", meta={})
    shards = open_shards(tmp_path / "s")
    assert (shards.key(0), shards.read(0)) == (key, {"jpg": b"1"})
    assert as_webdataset(tmp_path / "s" / "s-000000.tar") == {key: {"jpg": b"1"}}


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        ([{"__key__": "a.b", "x": b""}], "'a.b' with extension 'x': a key without dots"),
        ([{"__key__": "", "x": b""}], "a key without dots"),
        ([{"__key__": "a", "_x": b""}], "a plain extension"),
        ([{"__key__": "a", "x/y": b""}], "a plain extension"),
        ([{"__key__": "a", "x": b"", "X": b""}], "different extensions were expected"),
        ([{"__key__": "a"}], "different extensions were expected"),
        ([{"__key__": "a", "x": "text"}], "x is str, bytes were expected"),
        ([{"x": b""}], "sample key None"),
        ([{"__key__": "a", "x": b""}] * 2, "key 'a': a text was expected that no other"),
    ],
)
def test_samples_that_would_be_read_differently_are_refused(tmp_path, samples, sentence):
    with pytest.raises(UsageError, match=sentence):
        write_split(samples, tmp_path / "s", name="s", meta={})


def test_slips(tmp_path, samples):
    with pytest.raises(UsageError, match="must be at least 1"):
        write_split([], tmp_path / "s", name="s", meta={}, samples_per_shard=0)
    with pytest.raises(UsageError, match=r"split '\.\./s'"):
        write_split([], tmp_path / "s", name="../s", meta={})
    with pytest.raises(DataError, match="split 's' has no samples"):
        write_split([], tmp_path / "s", name="s", meta={})
    with pytest.raises(UsageError, match="exists"):
        pack(Toy(samples), tmp_path / "s")


@pytest.mark.parametrize("fail", [KeyboardInterrupt(), RuntimeError("bug"), DataError("damaged")])
def test_a_packer_that_fails_leaves_nothing(tmp_path, samples, fail):
    with pytest.raises(type(fail)):
        pack(Toy(samples, fail), tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_source_or_disk_that_fails_is_one_sentence(tmp_path, samples):
    with pytest.raises(UsageError, match=r"out could not be made: .*No space left"):
        pack(Toy(samples, OSError(28, "No space left on device")), tmp_path / "out")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="could not be made"):
        pack(Toy(samples), tmp_path / "file" / "out")


KILLED = """
import sys
from stec.shards.writer import pack

class Endless:
    splits = ("train",)
    def meta(self, split):
        return {}
    def samples(self, split):
        number = 0
        while True:
            yield {"__key__": str(number), "x": b"." * 1000}
            number += 1
            if number == 50:
                print("packing", flush=True)

pack(Endless(), sys.argv[1], samples_per_shard=10)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_packing_leaves_nothing_under_the_name_and_the_next_one_cleans_up(tmp_path, samples, number):
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"packing\n"
    [folder] = os.listdir(tmp_path)
    with pytest.raises(UsageError, match="exists"):
        pack(Toy(samples), tmp_path / folder)
    process.send_signal(number)
    process.wait()
    process.stdout.close()
    assert not out.exists()
    assert os.listdir(tmp_path) == [folder]
    pack(Toy(samples), out)
    assert os.listdir(tmp_path) == ["out"]


def test_a_packing_under_way_is_left_alone(tmp_path, samples):
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"packing\n"
        process.send_signal(signal.SIGSTOP)
        [folder] = tmp_path.iterdir()
        written = sorted(folder.rglob("*"))
        pack(Toy(samples), out)
        assert sorted(folder.rglob("*")) == written
        assert len(written) > 3
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_nothing_in_a_tar_says_who_packed_it(split):
    with tarfile.open(split / "train-000000.tar") as tar:
        assert {(m.uid, m.gid, m.mtime) for m in tar.getmembers()} == {(0, 0, 0)}
