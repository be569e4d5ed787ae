"""Where samples come from: shards as they are, or a source that is packed once, whoever asks and by whichever name."""

import os
import threading
import time

import pytest
from toy_source import Sources, memory, toy_sample

from stec.data import Dataset, cache, extents, open_data
from stec.errors import DataError, UsageError
from stec.shards.writer import write_split

SPLITS = ("train", "test")


class Packer:
    """Every file of the source is the number of a sample; counts how often it has been asked to pack."""

    packed = 0

    def __init__(self, source: str, splits: tuple[str, ...] = SPLITS):
        self.source, self.splits = source, splits

    def samples(self, split):
        type(self).packed += 1
        for number in range(6 if split == "train" else 2):
            yield {"__key__": str(number), **toy_sample(number, height=4 + number % 2)}

    def meta(self, split):
        return {"classes": ["a", "b"] if split == "train" else []}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The current folder, with a source of two files; what is packed goes to cache/."""
    monkeypatch.setattr(Packer, "packed", 0)
    monkeypatch.setenv("STEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source" / "inner").mkdir(parents=True)
    for name in ("one", "inner/two"):
        (tmp_path / "source" / name).write_text(name)
    return tmp_path


def opened(data, identity=(), *, packer=Packer, **options):
    dataset = Dataset(**{"name": "toy", "needs_data": True} | options)
    return open_data(dataset, None if data is None else str(data), packer, {"name": "toys", **dict(identity)})


def test_a_source_is_packed_once_and_the_splits_are_found(place):
    splits = opened("source")
    assert (splits.train.num_samples, splits.test.num_samples) == (6, 2)
    assert splits.labelled is splits.train
    assert splits.classes == ["a", "b"]
    assert Packer.packed == len(SPLITS)
    assert opened("source").train.fingerprint == splits.train.fingerprint
    assert Packer.packed == len(SPLITS)


def test_the_same_source_by_another_name_is_not_packed_again(place):
    opened("source")
    (place / "link").symlink_to("source")
    for name in (place / "source", "link", "./source/", "source/inner/.."):
        opened(name)
    assert Packer.packed == len(SPLITS)


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename", "behind a link", "identity"])
def test_what_has_changed_is_packed_anew(change, place):
    (place / "elsewhere").mkdir()
    (place / "source" / "linked").symlink_to("../elsewhere")
    opened("source")
    if change == "edit":
        (place / "source" / "one").write_text("eno")
        os.utime(place / "source" / "one", ns=(1, 1))
    elif change == "add":
        (place / "source" / "inner" / "three").write_text("")
    elif change == "remove":
        (place / "source" / "one").unlink()
    elif change == "rename":
        (place / "source" / "one").rename(place / "source" / "uno")
    elif change == "behind a link":
        (place / "elsewhere" / "four").write_text("")
    opened("source", {"holdout": 0.5} if change == "identity" else {})
    assert Packer.packed == 2 * len(SPLITS)


def test_shards_are_taken_as_they_are_and_what_the_packer_was_told_is_said_to_be_unheard(place, caplog):
    caplog.set_level("INFO", logger="stec")
    opened("source", {"subset": 2})
    assert "dataset.packer is not asked" not in caplog.text
    (shards,) = (path for path in (place / "cache").iterdir() if path.is_dir())
    opened(shards, {"labels": None})
    assert "dataset.packer is not asked" not in caplog.text
    assert opened(shards, {"subset": 2, "labels": None}).train.num_samples == 6
    assert "these are shards, taken as they are: dataset.packer is not asked (subset=2)" in caplog.text


def test_links_that_lead_back_and_odd_names_are_no_trouble(place):
    (place / "source" / "back").symlink_to(".")
    (place / "source" / "nowhere").symlink_to("gone")
    (place / "source" / os.fsdecode(b"\xff\xfe.png")).write_text("a name that is no text")
    opened("source")
    opened("source")
    assert Packer.packed == len(SPLITS)


def test_a_file_is_a_source_too(place):
    (place / "archive.tar.gz").write_text("old")
    opened("archive.tar.gz")
    (place / "archive.tar.gz").write_text("newer")
    opened("archive.tar.gz")
    assert Packer.packed == 2 * len(SPLITS)


def test_data_that_come_with_a_package_need_no_path():
    assert opened(None, needs_data=False).train.num_samples == 6
    opened("", needs_data=False)
    assert Packer.packed == len(SPLITS)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "toy needs data=PATH: a folder that its packer reads, or one with shards."),
        ("", "toy needs data=PATH"),
        ("nowhere", "data=nowhere: there is no such file or folder."),
    ],
)
def test_nothing_to_learn_from_is_said_at_once(data, sentence):
    with pytest.raises(UsageError, match=sentence):
        opened(data)
    assert Packer.packed == 0


def test_those_who_ask_at_once_wait_for_one_another():
    class Slow(Packer):
        def samples(self, split):
            time.sleep(0.2)
            return super().samples(split)

    found = []
    threads = [threading.Thread(target=lambda: found.append(opened("source", packer=Slow))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({splits.train.fingerprint for splits in found}) == 1
    assert len(found) == 3
    assert Slow.packed == len(SPLITS)


def test_a_packer_that_fails_leaves_nothing_behind(place):
    class Failing(Packer):
        def samples(self, split):
            yield from super().samples(split)
            raise DataError("the last one is damaged.")

    with pytest.raises(DataError, match="the last one is damaged"):
        opened("source", packer=Failing)
    assert [path.name for path in (place / "cache").iterdir() if path.is_dir()] == []
    assert opened("source").train.num_samples == 6


def shards(folder, *splits):
    for split in splits:
        meta = {"classes": [split]}
        write_split([{"__key__": "a", **toy_sample(len(split))}], folder / split, name=split, meta=meta)
    return folder


def test_shards_are_taken_as_they_are(place):
    root = shards(place / "shards", "train", "test", "unlabelled")
    splits = opened(root)
    assert splits.train.folder == splits.labelled.folder == root / "train"
    assert splits.test.folder == root / "test"
    splits = opened(root, train_split="unlabelled")
    assert splits.train.folder == root / "unlabelled"
    assert splits.labelled.folder == root / "train"
    assert splits.classes == ["train"]
    assert opened(root / "test").train.folder == root / "test"  # a single indexed folder is what one learns from
    assert Packer.packed == 0
    assert not (place / "cache").exists()


def test_where_there_are_no_labelled_or_test_shards(place):
    splits = opened(shards(place / "shards", "unlabelled"), train_split="unlabelled")
    assert splits.labelled.folder == splits.train.folder
    assert splits.test is None


def test_a_split_that_is_not_among_those_packed():
    with pytest.raises(UsageError, match="data=source: no split 'unlabelled' among its shards"):
        opened("source", train_split="unlabelled")


def test_the_cache_is_where_it_is_wanted(place, monkeypatch):
    assert cache() == place / "cache"
    monkeypatch.delenv("STEC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "xdg"))
    assert cache() == place / "xdg" / "stec"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(place))
    assert cache() == place / ".cache" / "stec"
    monkeypatch.setenv("STEC_CACHE", str(place / "source" / "one"))
    with pytest.raises(UsageError, match=r"source/one cannot be written \(.*\): set STEC_CACHE"):
        opened("source")


def test_extents_are_those_of_samples_all_over_as_often_as_they_come():
    source = memory(23, damaged=[3])
    assert extents(source, Sources()) == [[5, 6]]
    source.samples[20] = toy_sample(0, height=3, width=9)
    found = extents(source, Sources())
    assert (found.count([5, 6]), found.count([3, 9]), len(found)) == (21, 1, 22)
    many = memory(1000, (1000,))
    many.samples[::2] = [toy_sample(0, height=3, width=9)] * 500
    assert len(extents(many, Sources())) < 100


def test_extents_of_damaged_data():
    source = memory(4, (4,), damaged=range(4))
    source.folder = "toys"
    with pytest.raises(
        DataError, match=r"toys: none .* can be read; the first of them: toy-0\.tar: 0000\.toy is damaged"
    ):
        extents(source, Sources())


@pytest.mark.parametrize("options", [{"window": 0}, {"max_bad": -0.1}, {"max_bad": 1.0}])
def test_ranges_of_the_options(options):
    ((key, value),) = options.items()
    with pytest.raises(UsageError, match=rf"dataset\.{key}={value} must be"):
        Dataset(name="toy", needs_data=True, **options)
