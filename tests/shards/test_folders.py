"""Folders of files: names alone decide on order, side and label. What is made of them is told in the packers' tests."""

import json

import pytest

from stec.errors import DataError, UsageError
from stec.shards.folders import Folder, files_below, hashed, hold_out, read_bytes

NAMES = [f"{kind}/{number:02d}.{extension}" for kind in "ab" for number in range(9) for extension in ("one", "Two")]


def fill(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_files_with_their_splits_labels_and_paths(tmp_path):
    fill(tmp_path, [*NAMES, "a/notes.txt", ".b/hidden.one"])
    folder = Folder(str(tmp_path), extensions=("one", "two"), things="things", holdout=0.3)
    assert folder.splits == ("train", "test")
    seen = []
    for split in folder.splits:
        files = list(folder.files(split))
        assert folder.meta(split) == {"classes": ["a", "b"], "num_samples": len(files)}
        for count, file in enumerate(files):
            path = json.loads(file.sample["json"])["path"]
            seen.append(path)
            assert read_bytes(file.path).decode() == path
            assert file.extension == path[-3:].lower()
            assert file.sample["__key__"] == f"{split}-{count:08d}"
            assert folder.classes[int(file.sample["cls"])] == path[0]
    assert sorted(seen) == sorted(NAMES)
    assert hashed(seen) == files_below(tmp_path, ("one", "two"))


def test_sides_do_not_change_when_others_come():
    few, many = (hold_out(hashed(NAMES[:count]), 0.4) for count in (20, 36))
    for split in ("train", "test"):
        assert few[split] == [name for name in many[split] if name in NAMES[:20]]
    assert hold_out(["a", "b", "c"], 0.0) == {"train": ["a", "b", "c"]}
    assert hold_out(["a", "b"], 0.9) == {"train": ["a", "b"]}
    assert {len(names) for names in hold_out(["a", "b", "c"], 1e-9).values()} == {1, 2}


def test_faults_say_what_was_expected(tmp_path):
    with pytest.raises(UsageError, match=r"no things \(one, two\) in this folder or below it\.$"):
        Folder(str(tmp_path), extensions=("one", "two"), things="things", holdout=0.1)
    fill(tmp_path, ["x.tar"])
    with pytest.raises(UsageError, match="but tars: `stec-shards index` makes shards of them"):
        Folder(str(tmp_path), extensions=("one",), things="things", holdout=0.1)
    fill(tmp_path, ["train/a/1.one", "train/b/2.one", "val/3.one"])
    with pytest.raises(UsageError, match="these things do not lie in folders, one for each class"):
        Folder(str(tmp_path), extensions=("one",), things="things", holdout=0.1)
    with pytest.raises(DataError, match="unreadable: Is a directory"):
        read_bytes(tmp_path / "train")
