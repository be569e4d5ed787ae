"""Shards behind an address: the bytes that were packed, whatever the server does, or one sentence; and never a part."""

import json
import multiprocessing
import os
import pickle
import threading

import pytest

from stec.data import Dataset, open_data
from stec.errors import DataError, Unavailable, UsageError
from stec.shards import copies, fetching, remote
from stec.shards.copies import Copies
from stec.shards.reader import open_shards

pytest.importorskip("aiohttp")
pytestmark = pytest.mark.usefixtures("hurry")
TAR = "train-000001.tar"
FORK = multiprocessing.get_context("fork")


def everything(shards):
    return [shards.read(number) for number in range(shards.num_samples)]


def names(kept):
    return {path.name for path in kept.place.iterdir()} - {".room"}


def test_is_the_split_that_was_packed(server, opened, split, kept):
    local = open_shards(split)
    assert (opened.fingerprint, opened.fields, opened.meta) == (local.fingerprint, local.fields, local.meta)
    assert not [name for name, _ in server.asked if name.endswith(".tar")]  # not before they are needed
    assert everything(opened) == everything(local)
    assert everything(remote.find_split(server.address, "train", kept)) == everything(local)
    fetched = [name for name, _ in server.asked]
    assert len([name for name in fetched if name.endswith(".tar")]) == 3
    assert fetched.count("index.json") == 2  # asked for at every start
    assert len(names(kept)) == 4
    assert opened.where(9) == "train-000002.tar: s00009"


@pytest.mark.parametrize(
    ("faults", "starts"),
    [
        (["reset", "reset"], [0, 10240, 15360]),
        (["short", "unsaid"], [0, 10240, 15360]),
        (["slow"], [0, 10240]),
        (["short", "all"], [0, 10240]),
        ([500, 503, 429, 408], [0, 0, 0, 0, 0]),
        (["moved"], [0, 0]),
        (["changed"], [0, 0]),
    ],
    ids=str,
)
def test_survives(server, opened, split, faults, starts, monkeypatch):
    if "slow" in faults:
        monkeypatch.setattr(fetching, "TIMEOUT", 0.5)
    server.faults[TAR] = faults
    assert everything(opened) == everything(open_shards(split))
    assert [start for name, start in server.asked if name == TAR] == starts


@pytest.mark.parametrize(
    ("fault", "sentence", "tries"),
    [
        (404, "is not there", 1),
        (403, r"the server says 403 \(Forbidden\)\.", 1),
        (500, r"the server says 500 \(Internal Server Error\) \(5 tries\)", 5),
        ("changed", "is not the file that was indexed: its sha256 is another one", 2),
        ("page", "has 13 bytes, the index says 20480", 1),
        ("longer", "has 20992 bytes, the index says 20480", 1),
    ],
)
def test_refuses_in_one_sentence(server, opened, kept, fault, sentence, tries):
    server.always[TAR] = fault
    with pytest.raises(Unavailable, match=f"^{server.address}/train/{TAR} .*{sentence}") as refused:
        opened.read(4)
    assert not isinstance(refused.value, DataError)  # or another sample would stand in for it
    assert [name for name, _ in server.asked].count(TAR) == tries
    assert opened.read(0)
    assert not [path for path in kept.place.glob("*.part") if path.stat().st_size]


def test_tries_are_counted_from_the_last_progress(server, opened, monkeypatch):
    monkeypatch.setattr(fetching, "PROGRESS", 100)
    server.faults[TAR] = ["reset"] * 7
    assert opened.read(4)
    server.faults["train-000002.tar"] = [500] * 7
    with pytest.raises(Unavailable):
        opened.read(9)


def test_a_server_that_sends_a_byte_now_and_then(server, opened, monkeypatch):
    """Each of them comes in time."""
    monkeypatch.setattr(fetching, "TIMEOUT", 0.3)
    monkeypatch.setattr(fetching, "TRIES", 2)
    server.always[TAR] = "drip"
    with pytest.raises(Unavailable, match=r"too little came within 0\.3 s \(2 tries\)"):
        opened.read(4)


def test_a_server_that_is_gone(server, opened):
    server.shutdown()
    server.server_close()
    with pytest.raises(Unavailable, match=r"cannot be fetched: ClientConnectorError: .* \(5 tries\)"):
        opened.read(0)


def test_what_is_no_split_is_not_there_and_what_cannot_be_told_is_an_error(server, kept):
    assert remote.find_split(server.address, "test", kept) is None
    assert remote.find_split(f"{server.address}/train", "train", kept).num_samples == 10
    server.always["index.json"] = 503
    with pytest.raises(Unavailable):
        remote.find_split(server.address, "test", kept)
    server.always["index.json"] = "page"
    with pytest.raises(DataError, match=r"index\.json cannot be read"):
        remote.find_split(server.address, "test", kept)


def test_a_long_index_is_not_read(server, kept, monkeypatch):
    monkeypatch.setattr(remote, "MAX_INDEX", 100)
    with pytest.raises(UsageError, match=r"index\.json is longer than 100 bytes"):
        remote.find_split(server.address, "train", kept)


@pytest.mark.parametrize("sha256", ["../../escaped", "A" * 64, ""])
def test_an_index_does_not_choose_names_here(server, split, kept, sha256, tmp_path):
    index = json.loads((split / "index.json").read_bytes())
    index.pop("check", None)
    index["table"]["sha256"] = sha256
    (split / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="cannot exist"):
        remote.find_split(server.address, "train", kept)
    assert not kept.place.exists()


def test_goes_on_with_what_a_killed_process_left(server, opened, split, kept):
    whole = (split / TAR).read_bytes()
    name = next(f"{c.sha256}-{c.num_bytes}.part" for c in opened._contents if c.num_bytes == len(whole))
    (kept.place / name).write_bytes(whole[:5000])
    assert everything(opened) == everything(open_shards(split))
    assert [start for asked, start in server.asked if asked == TAR] == [5000]
    assert len(names(kept)) == 4


@pytest.mark.parametrize("rubbish", [bytes(5000), bytes(10**5)])
def test_what_was_left_may_be_of_another_file(server, opened, split, kept, rubbish):
    size = (split / TAR).stat().st_size
    name = next(f"{c.sha256}-{c.num_bytes}.part" for c in opened._contents if c.num_bytes == size)
    (kept.place / name).write_bytes(rubbish)
    assert everything(opened) == everything(open_shards(split))


def test_a_copy_that_was_cut_is_fetched_again(server, opened, split, kept):
    everything(opened)
    for path in kept.place.glob("*-10240"):
        os.truncate(path, 100)
    assert everything(pickle.loads(pickle.dumps(opened))) == everything(open_shards(split))


def read_all(shards, answers):
    answers.put(everything(shards))


def test_processes_that_want_the_same_tar_fetch_it_once(server, opened, split):
    expected, answers = everything(open_shards(split)), FORK.SimpleQueue()
    opened.read(9)  # the thread and the sockets of this process are none of theirs
    workers = [FORK.Process(target=read_all, args=(opened, answers)) for _ in range(4)]
    for worker in workers:
        worker.start()
    assert [answers.get() for _ in workers] == [expected] * 4
    for worker in workers:
        worker.join()
    assert len([name for name, _ in server.asked if name.endswith(".tar")]) == 3


def test_threads_that_want_the_same_tar_fetch_it_once(server, opened):
    threads = [threading.Thread(target=everything, args=(opened,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([name for name, _ in server.asked if name.endswith(".tar")]) == 3


def test_the_least_room(server, opened, kept):
    opened.check_room(window=8)
    small = remote.find_split(server.address, "train", Copies(kept.place, 41_000))
    with pytest.raises(UsageError, match=r"at least 4\..*e-05 are needed for dataset.window=8"):
        small.check_room(window=8)


def test_a_full_disk(server, opened, kept, monkeypatch):
    write, room = os.write, [5000]

    def full(descriptor, data):
        if not room:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: room.pop()])

    monkeypatch.setattr(copies.os, "write", full)
    with pytest.raises(UsageError, match="a copy cannot be written here \\(No space left on device\\): set STEC_CACHE"):
        opened.read(0)
    assert [name for name, _ in server.asked].count("train-000000.tar") == 1
    assert [path.stat().st_size for path in kept.place.glob("*.part")] == [0]
    monkeypatch.undo()
    assert opened.read(0)


def test_data_may_be_an_address(server, split, tmp_path, monkeypatch):
    monkeypatch.setenv("STEC_CACHE", str(tmp_path / "cache"))
    dataset = Dataset(name="toys", needs_data=True)
    splits = open_data(dataset, f"{server.address}/", lambda source: None, {"name": "toys"})
    assert (splits.train.fingerprint, splits.test) == (open_shards(split).fingerprint, None)
    assert splits.train.folder == f"{server.address}/train"
    with pytest.raises(UsageError, match="no split 'unlabelled' there"):
        open_data(
            Dataset(name="toys", needs_data=True, train_split="unlabelled"),
            server.address,
            lambda s: None,
            {"name": ""},
        )
    for wrong in ("0", "many", "nan"):
        monkeypatch.setenv("STEC_CACHE_GB", wrong)
        with pytest.raises(UsageError, match=f"STEC_CACHE_GB={wrong} must be a number above 0"):
            open_data(dataset, server.address, lambda source: None, {"name": "toys"})
