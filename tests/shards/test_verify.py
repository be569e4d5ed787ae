"""verify tells every problem; and no damage anywhere in a tar makes samples disappear without a word."""

import os
import random

import numpy as np
import pytest

from stec.errors import DataError, UsageError
from stec.shards.index import index_folder
from stec.shards.reader import open_shards
from stec.shards.verify import verify


@pytest.fixture
def whole(split):
    shards = open_shards(split)
    return [shards.read(n) for n in range(10)]


def attempt(shards):
    """What reading gives now: the bytes of each sample, or None where a DataError names it."""
    found = []
    for number in range(shards.num_samples):
        try:
            found.append(shards.read(number))
        except DataError as error:
            found.append(None if shards.where(number) in str(error) else error)
    return found


def test_an_untouched_split_has_no_problems(split):
    seen = []
    assert verify(split, progress=lambda *state: seen.append(state)) == []
    assert seen[-1] == (3, 3, "train-000002.tar")


def test_every_problem_is_told(split):
    first, second, third = (split / f"train-{n:06d}.tar" for n in range(3))
    first.unlink()
    os.truncate(second, 4000)
    data = bytearray(third.read_bytes())
    data[512 + 5] ^= 4
    third.write_bytes(data)
    (split / "train-000009.tar").write_bytes(b"")
    (split / "sizes.json").write_text("{}")
    told = verify(split)
    for part in (
        "sizes.json and index.json disagree",
        "train-000009.tar is not in the index",
        "train-000000.tar is missing.",
        "train-000001.tar has 4000 bytes, the index says",
        "train-000001.tar has changed: its sha256",
        "train-000001.tar is not a whole tar",
        "train-000001.tar: s00007.bin is damaged",
        "train-000002.tar has changed: its sha256",
        "train-000002.tar: s00008.bin is damaged",
    ):
        assert [sentence for sentence in told if sentence.startswith(part)], part


def test_other_data_under_the_name_of_a_tar(split, webdataset_tar, samples):
    size = (split / "train-000000.tar").stat().st_size
    webdataset_tar(split / "train-000000.tar", samples(2, "other"))
    told = verify(split)
    assert any("train-000000.tar has 2 samples, the index says 4" in sentence for sentence in told)
    assert any("s00003" in sentence and "damaged" in sentence for sentence in told)
    assert size == 10240  # both fit one record of a tar: the size alone does not tell


def test_many_damaged_samples_are_counted(tmp_path, webdataset_tar, samples):
    path = webdataset_tar(tmp_path / "a.tar", samples(12))
    index_folder(tmp_path)
    path.write_bytes(bytes(path.stat().st_size))
    told = verify(tmp_path)
    assert len([sentence for sentence in told if "is damaged: its bytes" in sentence]) == 5
    assert told[-1] == "a.tar: 12 of 12 samples are damaged in all."


def test_a_damaged_table_and_a_damaged_index_are_problems(split):
    table = next(split.glob("table-*.npy"))
    data = bytearray(table.read_bytes())
    data[-100] ^= 1
    table.write_bytes(data)
    told = verify(split)
    assert told[0].startswith(table.name)
    assert any("its row in" in sentence for sentence in told)
    (split / "index.json").write_text("{")
    assert len(verify(split)) == 1
    (split / "index.json").unlink()
    with pytest.raises(UsageError, match=r"no index\.json here"):
        verify(split)


def test_no_flipped_bit_is_silent(split, whole):
    """Reading gives the very bytes or a DataError with tar and key; verify always tells."""
    path = split / "train-000001.tar"
    data = path.read_bytes()
    damaged = 0
    for bit in random.Random(0).sample(range(8 * len(data)), 60):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        found = attempt(open_shards(split))
        assert len(found) == 10
        assert all(one is None or one == other for one, other in zip(found, whole, strict=True))
        damaged += found.count(None)
        assert verify(split)[0].startswith("train-000001.tar has changed")
    assert damaged > 0


def test_no_cut_is_silent(split, whole):
    path = split / "train-000001.tar"
    data = path.read_bytes()
    for cut in np.linspace(0, len(data) - 1, 40).astype(int):
        shards = open_shards(split)  # opened before the cut: a run under way
        path.write_bytes(data[:cut])
        found = attempt(shards)
        assert all(one is None or one == other for one, other in zip(found, whole, strict=True))
        with pytest.raises(DataError, match=rf"train-000001\.tar has {cut} bytes"):
            open_shards(split)
        assert any("has changed" in sentence for sentence in verify(split))
        path.write_bytes(data)


def test_damage_before_indexing_is_refused_or_harmless(split, whole):
    """Someone else's tar that arrives with flipped bits: its headers have checksums, its data have none."""
    path = split / "train-000001.tar"
    data = path.read_bytes()
    headers = [n for n in range(0, len(data), 512) if data[n + 257 : n + 262] == b"ustar"]
    for bit in random.Random(1).sample(range(8 * 500), 40):
        flipped = bytearray(data)
        flipped[headers[bit % len(headers)] + bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(DataError, match=r"^train-000001\.tar "):
            index_folder(split)
