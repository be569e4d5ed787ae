"""CIFAR and STL-10 archives, made here; what is packed decodes to the pixels that were put in, and nothing is run."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from stec.actions import Compose
from stec.errors import DataError, UsageError
from stec_vision.actions import AffineCrop
from stec_vision.archives import Cifar, Stl10, lossless
from stec_vision.decode import Image
from stec_vision.unpickling import unpickle_plain


def pixels(num, side=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, side, side, 3), dtype=np.uint8)


def decoded(sample):
    decoder = Image(Compose({"crop": AffineCrop(size=8)}))
    return decoder.whole(decoder.open(sample["webp"])).permute(1, 2, 0).numpy()


def pickled(content, name):
    # Protocol 2 is what the archives hold: text is latin1, arrays are rebuilt by numpy's own function.
    return {name: pickle.dumps(content, protocol=2)}


def stored(pictures):
    """Colour by colour, row by row: [N, 3 * 32 * 32]."""
    return pictures.transpose(0, 3, 1, 2).reshape(len(pictures), -1)


def cifar10():
    files = pickled({"label_names": ["airplane", "frog"]}, "batches.meta")
    for n in range(1, 6):
        files |= pickled({"data": stored(pixels(2, seed=n)), "labels": [n % 2, 1]}, f"data_batch_{n}")
    return files | pickled({"data": stored(pixels(3, seed=9)), "labels": [0, 1, 1]}, "test_batch")


def cifar100():
    files = pickled({"fine_label_names": ["apple", "bear", "cup"], "coarse_label_names": ["x"]}, "meta")
    content = {"data": stored(pixels(4, seed=4)), "fine_labels": [2, 0, 1, 2], "coarse_labels": [0] * 4}
    content["filenames"] = ["cup_1.png", "apple_1.png", "bear_1.png", "cup_2.png"]
    return files | pickled(content, "train") | pickled({"data": stored(pixels(1)), "fine_labels": [1]}, "test")


def stl10():
    def block(pictures):  # column by column, one colour after the other
        return pictures.transpose(0, 3, 2, 1).tobytes()

    return {
        "class_names.txt": b"airplane\nbird\n",
        "train_X.bin": block(pixels(3, 96, seed=1)),
        "train_y.bin": bytes([1, 2, 1]),
        "test_X.bin": block(pixels(2, 96, seed=2)),
        "test_y.bin": bytes([2, 2]),
        "unlabeled_X.bin": block(pixels(4, 96, seed=3)),
    }


SETS = {
    "cifar10": (cifar10, "cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": (cifar100, "cifar-100-python", "cifar-100-python.tar.gz"),
    "stl10": (stl10, "stl10_binary", "stl10_binary.tar.gz"),
}


def lay(root, name, how, files=None):
    """Write a data set as `how` says; returns what a user would point at."""
    make, folder, archive = SETS[name]
    files = make() if files is None else files
    if how in ("archive", "beside archive"):
        with tarfile.open(root / archive, "w:gz") as tar:
            for member, data in files.items():
                info = tarfile.TarInfo(f"{folder}/{member}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return root / archive if how == "archive" else root
    place = root / ("renamed" if how == "renamed folder" else folder)
    place.mkdir()
    for member, data in files.items():
        (place / member).write_bytes(data)
    return root if how == "beside folder" else place


HOWS = ["archive", "beside archive", "folder", "beside folder", "renamed folder"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_pixels_and_labels_come_through(tmp_path, name, how):
    packer = Cifar(str(lay(tmp_path, name, how)))
    expected = {
        "cifar10": (
            ["airplane", "frog"],
            np.concatenate([pixels(2, seed=n) for n in range(1, 6)]),
            [1, 1, 0, 1, 1, 1, 0, 1, 1, 1],
        ),
        "cifar100": (["apple", "bear", "cup"], pixels(4, seed=4), [2, 0, 1, 2]),
    }[name]
    samples = list(packer.samples("train"))
    assert packer.meta("train") == {"classes": expected[0]}
    assert [int(s["cls"]) for s in samples] == expected[2]
    assert [s["__key__"] for s in samples] == [f"train-{n:08d}" for n in range(len(samples))]
    for sample, picture in zip(samples, expected[1], strict=True):
        assert np.array_equal(decoded(sample), picture)
    assert len(list(packer.samples("test"))) == {"cifar10": 3, "cifar100": 1}[name]


def test_subsets_are_nested_and_touch_only_training(tmp_path):
    root = str(lay(tmp_path, "cifar100", "folder"))
    chosen = [{s["webp"] for s in Cifar(root, subset=n).samples("train")} for n in (1, 2, 3, 4)]
    assert [len(c) for c in chosen] == [1, 2, 3, 4]
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3]
    assert len(list(Cifar(root, subset=1).samples("test"))) == 1
    with pytest.raises(UsageError, match="there are only 4"):
        Cifar(root, subset=5)


def test_a_subset_is_chosen_by_file_names(tmp_path):
    with pytest.raises(DataError, match="no filenames"):
        Cifar(str(lay(tmp_path, "cifar10", "folder")), subset=1)


@pytest.mark.parametrize("how", HOWS)
def test_stl_pixels_and_labels_come_through(tmp_path, how):
    packer = Stl10(str(lay(tmp_path, "stl10", how)))
    assert packer.splits == ("train", "test", "unlabelled")
    for split, num, seed, labels in [("train", 3, 1, [0, 1, 0]), ("test", 2, 2, [1, 1]), ("unlabelled", 4, 3, None)]:
        samples = list(packer.samples(split))
        assert packer.meta(split) == {"classes": [] if labels is None else ["airplane", "bird"]}
        assert [s["__key__"] for s in samples] == [f"{split}-{n:08d}" for n in range(num)]
        assert [int(s["cls"]) for s in samples if "cls" in s] == (labels or [])
        for sample, picture in zip(samples, pixels(num, 96, seed), strict=True):
            assert np.array_equal(decoded(sample), picture)


def test_two_cifars_in_one_folder_are_told_apart(tmp_path):
    lay(tmp_path, "cifar10", "archive")
    lay(tmp_path, "cifar100", "folder")
    assert Cifar(str(tmp_path), classes=10).classes == ["airplane", "frog"]
    assert Cifar(str(tmp_path), classes=100).classes == ["apple", "bear", "cup"]
    with pytest.raises(UsageError, match=r"both here: packer\.classes=10 or 100 says which"):
        Cifar(str(tmp_path))
    with pytest.raises(UsageError, match=r"packer\.classes=7 must be 10, 100, or null"):
        Cifar(str(tmp_path), classes=7)


def test_nothing_there_is_told_in_a_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"no cifar-10-batches-py or cifar-10-python\.tar\.gz or cifar-100"):
        Cifar(str(tmp_path))
    with pytest.raises(UsageError, match=r"neither stl10_binary nor stl10_binary\.tar\.gz is here"):
        Stl10(str(tmp_path))
    lay(tmp_path, "cifar10", "archive")
    with pytest.raises(UsageError, match=r"there is no cifar-100-python or cifar-100-python\.tar\.gz here"):
        Cifar(str(tmp_path), classes=100)


class Hostile:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("member", ["batches.meta", "test_batch"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, member):
    mark = tmp_path / "it ran"
    source = lay(tmp_path, "cifar10", "folder", cifar10() | pickled({"x": Hostile(os.mkdir, str(mark))}, member))
    with pytest.raises(
        DataError, match=rf"^{member} is not read: it asks for \w+\.mkdir, which is more than plain arrays"
    ):
        list(Cifar(str(source)).samples("test"))
    assert not mark.exists()


@pytest.mark.parametrize(
    "call",
    [
        (eval, "1"),
        (getattr, {}, "keys"),
        (np.fromfile, os.devnull),
        (np.load, os.devnull),
        (__import__, "os"),
    ],
)
def test_only_arrays_are_rebuilt(call):
    with pytest.raises(DataError, match="more than plain arrays"):
        unpickle_plain(pickle.dumps({"x": Hostile(*call)}, protocol=2), "file")


@pytest.mark.parametrize("protocol", range(5))
def test_plain_data_comes_through_any_protocol(protocol):
    content = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2], "name": "x", "f": np.ones(2)}
    found = unpickle_plain(pickle.dumps(content, protocol=protocol), "file")
    assert found["labels"] == [1, 2]
    assert np.array_equal(found["data"], content["data"])
    assert np.array_equal(found["f"], content["f"])


def test_flags_of_old_files_are_integers():
    # As numpy of 2009 wrote it: dtype('u1', 0, 1).
    old = b"\x80\x02}q\x00U\x04typeq\x01cnumpy\ndtype\nq\x02U\x02u1q\x03K\x00K\x01\x87q\x04Rq\x05s."
    assert unpickle_plain(old, "file")["type"] == np.uint8


@pytest.mark.parametrize(
    "spoilt",
    [
        {"test_batch": b""},
        {"test_batch": pickle.dumps({"data": stored(pixels(3)), "labels": [0, 1, 1]}, protocol=2)[:500]},
        {"test_batch": pickle.dumps([1, 2], protocol=2)},
        {"test_batch": pickle.dumps({"labels": [1]}, protocol=2)},
        {"test_batch": pickle.dumps({"data": stored(pixels(2)), "labels": [1]}, protocol=2)},
        {"test_batch": pickle.dumps({"data": stored(pixels(1)), "labels": [7]}, protocol=2)},
        {"test_batch": pickle.dumps({"data": np.zeros(5, np.uint8), "labels": [1]}, protocol=2)},
        {"batches.meta": pickle.dumps({"names": []}, protocol=2)},
    ],
)
@pytest.mark.parametrize("how", ["archive", "folder"])
def test_damage_is_one_sentence(tmp_path, spoilt, how):
    source = lay(tmp_path, "cifar10", how, cifar10() | spoilt)
    with pytest.raises(DataError, match=next(iter(spoilt))) as caught:
        list(Cifar(str(source)).samples("test"))
    assert "\n" not in str(caught.value)


def test_a_missing_member_and_a_torn_archive_are_one_sentence(tmp_path):
    source = lay(tmp_path, "cifar10", "folder")
    (source / "data_batch_3").unlink()
    with pytest.raises(DataError, match="data_batch_3 is missing or unreadable"):
        list(Cifar(str(source)).samples("train"))
    archive = lay(tmp_path, "stl10", "archive")
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"unlabeled_X\.bin is missing or unreadable"):
        list(Stl10(str(archive)).samples("unlabelled"))


@pytest.mark.parametrize(
    ("spoilt", "sentence"),
    [
        ({"train_y.bin": bytes([1, 2])}, "not 96x96 pictures with one label each: odd from number 2 on"),
        ({"train_y.bin": bytes([1, 2, 1, 1])}, "ends after 3 pictures, but train_y.bin has 4 labels"),
        ({"train_X.bin": bytes(100)}, "odd from number 0 on"),
    ],
)
def test_stl_pictures_and_labels_must_belong_together(tmp_path, spoilt, sentence):
    source = lay(tmp_path, "stl10", "folder", stl10() | spoilt)
    with pytest.raises(DataError, match=sentence):
        list(Stl10(str(source)).samples("train"))


def test_storing_is_lossless():
    (noise,) = pixels(1, 40)
    assert np.array_equal(decoded({"webp": lossless(noise)}), noise)
