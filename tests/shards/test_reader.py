"""Samples by number: the bytes that were written, from any process and thread, and nothing else if they are damaged."""

import multiprocessing
import os
import pickle
import re
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stec.errors import DataError, UsageError
from stec.shards import reader
from stec.shards.index import index_folder
from stec.shards.reader import find_split, open_shards
from stec.shards.writer import write_split


def everything(shards):
    return {shards.key(n): shards.read(n) for n in range(shards.num_samples)}


def read_one(shards, number):
    return shards.read(number)


def test_reads_what_was_written(split, samples, members):
    shards = open_shards(split)
    assert (shards.num_samples, shards.shard_sizes, shards.fields) == (10, (4, 4, 2), ("bin", "cls"))
    assert shards.meta == {"classes": ["a", "b", "c"]}
    assert everything(shards) == members(samples(10))
    assert shards.where(9) == "train-000002.tar: s00009"
    for number in (-1, 10):
        with pytest.raises(IndexError):
            shards.read(number)


def test_samples_may_lack_members_and_members_may_be_empty(tmp_path):
    given = [{"__key__": "a", "x": b""}, {"__key__": "b", "y": b"1", "x": b"2"}, {"__key__": "c", "y": b""}]
    write_split(given, tmp_path / "s", name="s", meta={})
    shards = open_shards(tmp_path / "s")
    assert [shards.read(n) for n in range(3)] == [{"x": b""}, {"x": b"2", "y": b"1"}, {"y": b""}]


def test_can_be_pickled_and_read_by_other_processes(split, samples, members):
    shards = open_shards(split)
    shards.read(0)  # files of its own are open by now
    copy = pickle.loads(pickle.dumps(shards))
    assert everything(copy) == members(samples(10))
    assert copy.fingerprint == shards.fingerprint
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_one, (shards, 7)) == shards.read(7)


def test_threads_may_read_while_others_close_files(split, samples, members, monkeypatch):
    monkeypatch.setattr(reader, "MAX_OPEN", 1)
    shards, expected = open_shards(split), list(members(samples(10)).values())
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(shards.read, list(range(10)) * 200)) == expected * 200
    finally:
        sys.setswitchinterval(interval)


def test_few_files_are_open_at_a_time(tmp_path, samples, monkeypatch):
    monkeypatch.setattr(reader, "MAX_OPEN", 3)
    write_split(samples(20), tmp_path / "s", name="s", meta={}, samples_per_shard=1)
    shards = open_shards(tmp_path / "s")
    before = len(os.listdir("/proc/self/fd"))
    assert len(everything(shards)) == 20
    assert len(os.listdir("/proc/self/fd")) == before + 3


def test_only_the_bytes_of_a_sample_are_read(split, monkeypatch):
    """A resume starts in the middle: what went before is not touched."""
    shards, asked = open_shards(split), []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, start: asked.append((size, start)) or pread(fd, size, start))
    with tarfile.open(split / "train-000001.tar") as tar:
        places = {m.name: m for m in tar.getmembers()}
    shards.read(6)
    first, last = places["s00006.bin"], places["s00006.cls"]
    assert asked == [(last.offset_data + last.size - first.offset_data, first.offset_data)]


def test_bytes_that_come_in_parts(split, samples, members, monkeypatch):
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, start: pread(fd, min(size, 100), start))
    assert everything(open_shards(split)) == members(samples(10))


def test_the_fingerprint_names_the_data(tmp_path, split, samples):
    same, other = tmp_path / "same", tmp_path / "other"
    write_split(samples(10), same, name="train", meta={}, samples_per_shard=4)
    write_split(samples(10, "t"), other, name="train", meta={}, samples_per_shard=4)
    prints = [open_shards(folder).fingerprint for folder in (split, same, other)]
    assert prints[0] == prints[1] != prints[2]


def test_find_split(tmp_path, split):
    assert find_split(tmp_path, "train").num_samples == 10
    assert find_split(split, "train").num_samples == 10
    assert find_split(split, "test") is None
    assert find_split(tmp_path, "test") is None
    assert find_split(tmp_path / "nowhere", "train") is None


def test_a_folder_without_an_index_says_how_to_make_one(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match=r"`stec-shards index .*` makes one"):
            open_shards(folder)


def test_missing_and_cut_tars_are_named_when_opened(split):
    (split / "train-000000.tar").unlink()
    os.truncate(split / "train-000002.tar", 1000)
    with pytest.raises(
        DataError, match=r"000000\.tar is not readable.*000002\.tar has 1000 bytes, the index says \d+\."
    ):
        open_shards(split)


def test_tars_that_vanish_or_shrink_later_are_named_with_the_key(split):
    shards = open_shards(split)
    os.truncate(split / "train-000001.tar", 700)
    (split / "train-000002.tar").unlink()
    with pytest.raises(DataError, match=r"train-000001\.tar: s00005\.bin is damaged"):
        shards.read(5)
    with pytest.raises(DataError, match=r"train-000002\.tar: s00008 cannot be read: No such file"):
        shards.read(8)


def test_lost_tars_are_named_and_counted_if_some_may_be(split, samples, members, caplog):
    with (split / "train-000000.tar").open("ab") as file:
        file.write(bytes(512))
    os.truncate(split / "train-000001.tar", 3000)
    (split / "train-000002.tar").unlink()
    shards = open_shards(split, max_bad=0.5)
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "train-000000.tar has 10752 bytes, the index says 10240: 0 of its 4 samples are lost",
        "train-000001.tar has 3000 bytes, the index says 20480: 3 of its 4 samples are lost",
        "train-000002.tar is not readable (No such file or directory): 2 of its 2 samples are lost",
    ]
    expected = list(members(samples(10)).values())
    assert [shards.read(number) for number in range(5)] == expected[:5]
    for number in range(5, 10):
        with pytest.raises(DataError, match=rf"s0000{number}"):
            shards.read(number)
    with pytest.raises(DataError, match=r"5 of 10 samples are lost, more than dataset.max_bad=0.4 allows: train"):
        open_shards(split, max_bad=0.4)
    with pytest.raises(DataError, match=r"train-000001\.tar has 3000 bytes"):
        open_shards(split)


def test_what_is_no_file_is_lost_rather_than_waited_for(split):
    (split / "train-000002.tar").unlink()
    os.mkfifo(split / "train-000002.tar")
    (split / "train-000001.tar").unlink()
    (split / "train-000001.tar").mkdir()
    shards = open_shards(split, max_bad=0.9)
    for number in (4, 8):
        with pytest.raises(DataError, match=rf"s0000{number} cannot be read"):
            shards.read(number)


def test_a_lost_table_is_refused_however_much_damage_is_allowed(split):
    table = next(split.glob("table-*.npy"))
    os.truncate(table, 100)
    with pytest.raises(DataError, match=r"table-\w+\.npy has 100 bytes, the index says"):
        open_shards(split, max_bad=0.9)


def test_a_stale_table_is_refused(split, tmp_path, samples):
    index = (split / "index.json").read_bytes()
    for path in split.glob("*.tar"):
        path.unlink()
    write_split(samples(10, "t"), tmp_path / "new", name="train", meta={}, samples_per_shard=4)
    for path in (tmp_path / "new").glob("*.tar"):
        path.rename(split / path.name)
    index_folder(split)
    assert len(list(split.glob("table-*.npy"))) == 1
    (split / "index.json").write_bytes(index)  # the sizes of the tars fit, the table has gone
    with pytest.raises(DataError, match=r"table-\w+\.npy is not readable"):
        open_shards(split)


def test_every_flipped_bit_of_a_table_row_is_noticed(split):
    """In memory: any bit of a row, key included, makes reading that sample fail, and no other."""
    shards = open_shards(split)
    whole = np.array(shards._rows)
    for bit in range(0, 8 * whole.dtype.itemsize):
        rows = whole.copy()
        rows.view(np.uint8).reshape(10, -1)[4, bit // 8] ^= 1 << bit % 8
        shards._rows = rows
        with pytest.raises(DataError, match="its row in table"):
            shards.read(4)
        shards.read(3)


def test_a_damaged_table_or_index_is_a_sentence(split):
    table = next(split.glob("table-*.npy"))
    content = table.read_bytes()
    table.write_bytes(b"\x80\x04pickle" + content[8:])
    with pytest.raises(DataError, match="not a readable table"):
        open_shards(split)
    table.write_bytes(content)
    index = (split / "index.json").read_text()
    unchecked = re.sub(r',\s*"check": "\w+"', "", index)  # as it was written before there were checksums
    for text, error, sentence in (
        ("{", DataError, "cannot be read"),
        ("[]", DataError, "not an index of shards"),
        ('{"format": 1}', DataError, "not an index of shards"),
        (index.replace('"format": 1', '"format": 2'), UsageError, "has format 2, this version of stec reads format 1"),
        (index.replace('"num_samples": 10', '"num_samples": 11'), DataError, "contradicts itself"),
        (index.replace("train-000001.tar", "../train-000001.tar"), DataError, "not a file of its folder"),
        (index.replace('"bin",', ""), DataError, "is damaged: its checksum does not fit its text"),
        (index.replace('"cls"', '"clz"'), DataError, "is damaged: its checksum does not fit its text"),
        (index.replace('"check": "', '"check": "0'), DataError, "is damaged: its checksum does not fit its text"),
        (index.replace('"check"', '"chezk"'), DataError, "not an index of shards: KeyError.'chezk'"),
        (unchecked.replace('"bin",', ""), DataError, "not a table of samples with 1 fields"),
    ):
        (split / "index.json").write_text(text)
        with pytest.raises(error, match=sentence):
            open_shards(split)
