"""Copies of what lies elsewhere: never more than may be, never one deleted that is in use, never one fetched twice."""

import fcntl
import os

import pytest

from stec.errors import Unavailable, UsageError
from stec.shards import copies, remote
from stec.shards.copies import Copies
from stec.shards.reader import open_shards

pytest.importorskip("aiohttp")
pytestmark = pytest.mark.usefixtures("hurry")


def everything(shards):
    return [shards.read(number) for number in range(shards.num_samples)]


def names(kept):
    return {path.name for path in kept.place.iterdir()} - {".room"}


def test_copies_take_no_more_than_they_may(server, opened, split, kept, monkeypatch):
    """All of them take 41,652 bytes; no two tars fit beside the table."""
    monkeypatch.setattr(remote, "MAX_OPEN", 1)
    small = Copies(kept.place, 25_000)
    shards = remote.find_split(server.address, "train", small)
    expected = everything(open_shards(split))
    for number in (0, 9, 4, 0, 1, 9, 8, 5):
        shards._file.cache_clear()
        assert shards.read(number) == expected[number]
        assert sum(path.stat().st_size for path in kept.place.iterdir()) <= 25_000
    assert len([name for name, _ in server.asked if name.endswith(".tar")]) == 6


def test_a_copy_that_came_meanwhile_is_not_fetched(opened, kept):
    held = opened._file(0)
    before = names(kept)
    kept._bring(held.path, opened._contents[0], unavailable)
    assert names(kept) == before


def unavailable(part):
    raise Unavailable("gone")


def test_the_longest_unused_goes_first_and_none_that_is_in_use(server, opened, kept):
    everything(opened)
    opened._file.cache_clear()
    tars = {shard: kept.place / f"{c.sha256}-{c.num_bytes}" for shard, c in enumerate(opened._contents)}
    for age, shard in enumerate((1, 0, 2)):
        os.utime(tars[shard], (1000 + age, 1000 + age))
    held = opened._file(1)  # was the oldest

    def there():
        return [shard for shard, path in tars.items() if path.exists()]

    with pytest.raises(Unavailable):
        Copies(kept.place, 50_000).hold(copies.Content(15_000, "0" * 64), unavailable)
    assert there() == [1, 2]
    with pytest.raises(UsageError, match="all copies are in use, and 35,000 bytes more do not fit: STEC_CACHE_GB="):
        Copies(kept.place, 50_000).hold(copies.Content(35_000, "0" * 64), lambda part: None)
    assert there() == [1]
    assert opened.read(4)
    assert held.num_bytes == tars[1].stat().st_size
    with pytest.raises(UsageError, match="longer than all copies may be"):
        Copies(kept.place, 34_999).hold(copies.Content(35_000, "0" * 64), lambda part: None)


def test_a_fetcher_that_waits_for_room_takes_none(opened, kept):
    """Two that both wait must not wait for each other."""
    other = kept.place / f"{'1' * 64}-30000.part"
    with copies._locked(other) as descriptor:
        os.utime(descriptor, (0, 0))
        Copies(kept.place, 40_000)._make_room(30_000, kept.place / "mine")
        os.utime(descriptor)
        with pytest.raises(UsageError, match="in use"):
            Copies(kept.place, 40_000)._make_room(30_000, kept.place / "mine")


def test_locks_end_with_their_holder(opened, kept):
    opened.read(0)
    path = opened._file(0).path
    assert not copies._deleted(path)
    opened._file.cache_clear()
    assert copies._deleted(path)
    with pytest.raises(FileNotFoundError):
        fcntl.flock(os.open(path, os.O_RDWR), fcntl.LOCK_EX)
