"""Tars written by others, indexed where they are."""

import json

import pytest

from stec.errors import DataError, UsageError
from stec.shards import index
from stec.shards.index import index_folder
from stec.shards.reader import open_shards
from stec.shards.verify import verify


def test_indexes_what_webdataset_wrote(tmp_path, webdataset_tar, samples, members):
    for number in (2, 0, 1):
        webdataset_tar(tmp_path / f"x-{number}.tar", samples(3, name=f"{number}/s"))
    webdataset_tar(tmp_path / "y.tar", [])  # empty, but a tar
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.tar")}
    seen = []
    index_folder(tmp_path, progress=lambda *state: seen.append(state))
    assert seen[1] == (2, 4, "x-1.tar")
    shards = open_shards(tmp_path)
    assert shards.shard_sizes == (3, 3, 3, 0)
    found = {shards.key(n): shards.read(n) for n in range(9)}
    assert found == {k: v for number in range(3) for k, v in members(samples(3, name=f"{number}/s")).items()}
    assert next(iter(found)) == "0/s00000"
    assert verify(tmp_path) == []
    assert json.loads((tmp_path / "sizes.json").read_text()) == {"x-0.tar": 3, "x-1.tar": 3, "x-2.tar": 3, "y.tar": 0}
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("*.tar")}


def test_the_same_keys_in_two_tars_are_two_samples(tmp_path, webdataset_tar, samples):
    for name in ("a.tar", "b.tar"):
        webdataset_tar(tmp_path / name, samples(2))
    index_folder(tmp_path)
    shards = open_shards(tmp_path)
    assert [shards.where(n) for n in (1, 3)] == ["a.tar: s00001", "b.tar: s00001"]


def test_indexing_again_keeps_what_the_packer_said(split):
    (split / "index.json").write_bytes((split / "index.json").read_bytes())
    index_folder(split)
    assert open_shards(split).meta == {"classes": ["a", "b", "c"]}


def test_a_crash_between_the_files_leaves_the_old_index_whole(split, samples, webdataset_tar, monkeypatch):
    webdataset_tar(split / "train-000003.tar", samples(3, "new"))
    write = index.write_whole

    def crash(path, data):
        if path.name == "index.json":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(index, "write_whole", crash)
    with pytest.raises(KeyboardInterrupt):
        index_folder(split)
    assert open_shards(split).num_samples == 10
    monkeypatch.undo()
    index_folder(split)
    assert open_shards(split).num_samples == 13
    assert len(list(split.glob("table-*.npy"))) == 1


def test_slips_and_folders_that_would_lose_data(tmp_path, webdataset_tar, samples):
    with pytest.raises(UsageError, match="no such folder"):
        index_folder(tmp_path / "nowhere")
    webdataset_tar(tmp_path / "val" / "a.tar", [])
    with pytest.raises(UsageError, match=r"no \*\.tar in this folder \(but in val: index each"):
        index_folder(tmp_path)
    with pytest.raises(DataError, match="without a single sample"):
        index_folder(tmp_path / "val")
    webdataset_tar(tmp_path / "a.tar", samples(1))
    (tmp_path / "b.tar.gz").write_bytes(b"")
    with pytest.raises(UsageError, match=r"b\.tar\.gz is compressed: unpack it first"):
        index_folder(tmp_path)
