"""Packers: labels, splits and subsets from names alone, bytes as they are, and faults in one sentence."""

import io
import json
import os
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from stec.errors import DataError, UsageError
from stec.shards.folders import position
from stec_vision.packers import ImageFolder, Npz


def picture(colour, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (colour % 256, 0, 0)).save(buffer, kind, lossless=True)
    return buffer.getvalue()


def fill(root, names):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return root


def paths(packer, split):
    return [json.loads(sample["json"])["path"] for sample in packer.samples(split)]


NAMES = [f"{kind}/{n:03d}.png" for kind in ("dog", "cat") for n in range(60)]


def test_sub_folders_are_labels_and_bytes_are_kept(tmp_path):
    fill(tmp_path, NAMES)
    packer = ImageFolder(str(tmp_path))
    assert packer.classes == ["cat", "dog"]
    assert packer.splits == ("train", "test")
    for split in packer.splits:
        samples = list(packer.samples(split))
        assert packer.meta(split) == {"classes": ["cat", "dog"], "num_samples": len(samples)}
        assert [s["__key__"] for s in samples] == [f"{split}-{n:08d}" for n in range(len(samples))]
        for sample in samples:
            path = json.loads(sample["json"])["path"]
            assert sample["png"] == (tmp_path / path).read_bytes()
            assert packer.classes[int(sample["cls"])] == path.partition("/")[0]
    assert sorted(paths(packer, "train") + paths(packer, "test")) == sorted(NAMES)


def test_a_picture_never_changes_sides_when_others_come(tmp_path):
    fill(tmp_path, NAMES[:80])
    before = ImageFolder(str(tmp_path), holdout=0.25)
    fill(tmp_path, NAMES)
    after = ImageFolder(str(tmp_path), holdout=0.25)
    for split in ("train", "test"):
        assert set(paths(before, split)) <= set(paths(after, split))
    assert 0.1 < len(paths(after, "test")) / len(NAMES) < 0.4
    # Samples come mixed: neither labels nor the hash that holds out decide the order.
    labels = [path.partition("/")[0] for path in paths(after, "train")]
    assert 10 < sum(a != b for a, b in pairwise(labels)) < 80


def test_train_beside_val_are_the_splits(tmp_path):
    fill(tmp_path / "train", NAMES)
    fill(tmp_path / "val", ["dog/a.jpeg", "cat/b.JPEG", "cat/c.webp"])
    packer = ImageFolder(str(tmp_path))
    assert sorted(paths(packer, "train")) == sorted(NAMES)
    kinds = {json.loads(s["json"])["path"]: set(s) - {"__key__", "json", "cls"} for s in packer.samples("test")}
    assert kinds == {"dog/a.jpeg": {"jpg"}, "cat/b.JPEG": {"jpg"}, "cat/c.webp": {"webp"}}
    assert packer.classes == ["cat", "dog"]


@pytest.mark.parametrize(
    "names",
    [["a.png", "b.png"], ["only/a.png", "only/b.png"], ["a.png", "dog/b.png", "cat/c.png"], ["x/y/a.png", "x/z/b.png"]],
)
def test_no_labels_are_needed(tmp_path, names):
    packer = ImageFolder(str(fill(tmp_path, names)))
    assert packer.classes == []
    assert sorted(path for split in packer.splits for path in paths(packer, split)) == sorted(names)
    assert not any("cls" in sample for split in packer.splits for sample in packer.samples(split))


def test_both_splits_get_something_and_holdout_may_be_off(tmp_path):
    fill(tmp_path, ["a.png", "b.png", "c.png"])
    for holdout, sizes in ((0.001, [2, 1]), (0.999, [1, 2])):
        packer = ImageFolder(str(tmp_path), holdout=holdout)
        assert [len(paths(packer, split)) for split in packer.splits] == sizes
    assert ImageFolder(str(tmp_path), holdout=0.0).splits == ("train",)
    (tmp_path / "c.png").unlink()
    assert ImageFolder(str(tmp_path)).splits == ("train",)  # to learn takes two


def test_what_is_no_picture_hidden_or_seen_before_is_left_out(tmp_path):
    fill(tmp_path, ["a.png", "b.PNG", ".c.png", ".cache/d.png", "deep/er/e.png"])
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "deep" / "back").symlink_to(tmp_path, target_is_directory=True)
    assert sorted(paths(ImageFolder(str(tmp_path), holdout=0.0), "train")) == ["a.png", "b.PNG", "deep/er/e.png"]


def test_a_linked_folder_is_followed(tmp_path):
    fill(tmp_path / "far", ["a.png"])
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    assert paths(ImageFolder(str(tmp_path / "here")), "train") == ["link/a.png"]


def test_a_file_name_need_not_be_text(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb") as file:
        file.write(picture(1))
    (sample,) = ImageFolder(str(tmp_path)).samples("train")
    assert sample["png"] == picture(1)
    assert sample["json"].isascii()


def test_a_position_is_a_function_of_the_name_alone():
    assert position("dog/001.png") == 0.6330623998302656  # so that splits stay what they are
    positions = [position(str(n)) for n in range(2000)]
    assert 0 <= min(positions) < 0.01
    assert 0.99 < max(positions) < 1
    assert abs(np.mean(positions) - 0.5) < 0.02


def test_folders_that_cannot_be_packed_are_told_in_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        ImageFolder(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"no pictures \(jpg, jpeg, png"):
        ImageFolder(str(tmp_path))
    with pytest.raises(UsageError, match=r"packer\.holdout=1\.0 must be in \[0, 1\)"):
        ImageFolder(str(tmp_path), holdout=1.0)
    fill(tmp_path, ["train/dog/a.png", "train/cat/b.png"])
    (tmp_path / "val").mkdir()
    with pytest.raises(UsageError, match="val: no pictures"):
        ImageFolder(str(tmp_path))
    fill(tmp_path, ["val/flat.png"])
    with pytest.raises(UsageError, match="val: these pictures do not lie in folders"):
        ImageFolder(str(tmp_path))


@pytest.mark.parametrize("packer", [ImageFolder, Npz])
def test_no_source_is_not_the_current_folder(packer, tmp_path, monkeypatch):
    monkeypatch.chdir(fill(tmp_path, ["a.png"]))
    with pytest.raises(UsageError, match="no source is given"):
        packer("")


def test_a_folder_of_tars_is_told_what_to_do_with_them(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "part-0.tar").write_bytes(b"")
    with pytest.raises(UsageError, match=r"no pictures .* but tars: `stec-shards index`"):
        ImageFolder(str(tmp_path))


def test_a_picture_that_goes_away_is_the_datas_fault(tmp_path):
    packer = ImageFolder(str(fill(tmp_path, ["a.png"])))
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: unreadable: No such file"):
        list(packer.samples("train"))


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def arrays(start, num, same_name=False):
    data = [picture(start + n, "WEBP") for n in range(num)]
    return {
        "classes": np.array(["apple", "bear", "chair"]),
        "webp": np.frombuffer(b"".join(data), np.uint8),
        "offset": np.cumsum([0, *map(len, data)]),
        "y": np.arange(start, start + num, dtype=np.uint8) % 3,
        "filename": np.array(["same.png" if same_name else f"{start + n}.png" for n in range(num)]),
    }


@pytest.fixture
def npz(tmp_path):
    for name, content in {"train-0": arrays(0, 20), "train-1": arrays(20, 15), "test": arrays(100, 5)}.items():
        np.savez(tmp_path / f"{name}.npz", **content)
    return tmp_path


def test_npz_gives_back_what_was_put_in(npz):
    packer = Npz(str(npz))
    assert packer.splits == ("train", "test")
    samples = list(packer.samples("train"))
    assert [s["webp"] for s in samples] == [picture(n, "WEBP") for n in range(35)]
    assert [int(s["cls"]) for s in samples] == [n % 3 for n in range(35)]
    assert samples[34]["__key__"] == "train-00000034"
    assert len(list(packer.samples("test"))) == 5
    assert packer.meta("test") == {"classes": ["apple", "bear", "chair"]}


def test_subsets_are_nested_and_touch_only_training(npz):
    chosen = [{s["webp"] for s in Npz(str(npz), subset=n).samples("train")} for n in (1, 10, 20, 35)]
    assert [len(c) for c in chosen] == [1, 10, 20, 35]
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3]
    by_hash = sorted(range(35), key=lambda n: position(f"{n}.png"))
    assert chosen[1] == {picture(n, "WEBP") for n in by_hash[:10]}
    assert len(list(Npz(str(npz), subset=1).samples("test"))) == 5


def test_a_subset_has_its_size_even_if_names_repeat(tmp_path):
    np.savez(tmp_path / "train.npz", **arrays(0, 12, same_name=True))
    np.savez(tmp_path / "test.npz", **arrays(0, 1))
    assert len(list(Npz(str(tmp_path), subset=5).samples("train"))) == 5


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:300]),
        lambda path: path.write_bytes(b"PK" + bytes(100)),
        lambda path: path.write_bytes(b""),
        lambda path: np.savez(path, **{k: v for k, v in arrays(0, 5).items() if k != "y"}),
        lambda path: np.savez(path, **arrays(0, 5) | {"y": np.zeros(4, np.uint8)}),
        lambda path: np.savez(path, **arrays(0, 5) | {"webp": np.zeros(4, np.uint8)}),
        lambda path: np.savez(path, **arrays(0, 3) | {"offset": np.array([0, 50, 20, arrays(0, 3)["offset"][-1]])}),
        lambda path: np.savez(path, **arrays(0, 5) | {"filename": np.array([object()] * 5)}),
        lambda path: path.write_bytes(npy(np.zeros(3))),
    ],
)
def test_a_damaged_npz_is_one_sentence_and_nothing_is_unpickled(npz, spoil):
    spoil(npz / "test.npz")
    with pytest.raises(DataError, match=r"^test\.npz: ") as caught:
        list(Npz(str(npz)).samples("test"))
    assert "\n" not in str(caught.value)


def test_npz_options_are_told_in_a_sentence(npz, tmp_path_factory):
    with pytest.raises(UsageError, match=r"packer\.subset=36: there are only 35 training pictures"):
        Npz(str(npz), subset=36)
    with pytest.raises(UsageError, match=r"packer\.subset=0 must be at least 1"):
        Npz(str(npz), subset=0)
    with pytest.raises(UsageError, match=r"no train\*\.npz in this folder"):
        Npz(str(tmp_path_factory.mktemp("empty")))
