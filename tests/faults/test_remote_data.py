"""Shards that are served over HTTP: what the server and the way do, and what a run makes of it."""

import pytest
import yaml
from tiny_run import TINY, metrics, same, weights
from toy_server import served

from stec.shards import copies, fetching

pytest.importorskip("aiohttp")
TAR = "train-000000.tar"


def hurry():
    """What fails is tried again at once."""
    fetching.WAIT, fetching.TIMEOUT, copies.PATIENCE = 0.001, 20.0, 0.0


@pytest.fixture
def server(place):
    """Has shards/."""
    with served(place / "shards") as server:
        yield server


@pytest.fixture
def away(train, server):
    """The tiny run on what the server has."""
    return lambda *words, **options: train(f"data={server.address}", *words, before=hurry, **options)


@pytest.mark.fault(63, "a server that resets, cuts off and answers 503", "as if nothing had been")
def test_a_server_that_fails_now_and_then(train, away, server, place, seen):
    assert train("run_dir=near").code == 0
    server.faults["index.json"] = [503]
    server.faults[TAR] = ["reset", 503, "short", "unsaid", "all"]
    ended = away("run_dir=far", "hardware.num_workers=2")
    assert ended.code == 0, ended.err
    asked = [start for name, start in server.asked if name == TAR]
    assert len(asked) == 5
    assert sorted(set(asked)) == [*dict.fromkeys(asked)] != [0]
    assert yaml.safe_load((place / "far" / "config.yaml").read_text())["data"] == server.address
    assert metrics(place / "far") == metrics(place / "near")
    assert same(weights(place / "far"), weights(place / "near"))
    seen("survived: weights and metrics of 2 loading processes equal those of a local run, bit for bit")


@pytest.mark.fault(64, "a tar that has changed on the server", "refused, and named; no other sample stands in for it")
def test_a_tar_that_changed(away, server, seen):
    server.always[TAR] = "changed"
    ended = away("run_dir=run", "dataset.max_bad=0.5")
    assert ended.code == 4
    assert f"{server.address}/train/{TAR} is not the file that was indexed" in ended.refusal
    seen(ended._replace(err=ended.err.replace(server.address, "http://SERVER")))


@pytest.mark.fault(65, "a tar that is missing on the server", "refused, and named; no other sample stands in for it")
def test_a_tar_that_is_missing(away, server, seen):
    server.always[TAR] = 404
    ended = away("run_dir=run", "dataset.max_bad=0.5")
    assert ended.code == 4
    assert ended.refusal == f"{server.address}/train/{TAR} is not there."
    seen(ended._replace(err=ended.err.replace(server.address, "http://SERVER")))


@pytest.mark.fault(
    66, "a disk that is full while a tar is copied to it", "refused; what there is of the tar is deleted"
)
def test_a_disk_that_is_full(away, server, place, seen):
    size = (place / "shards" / "train" / TAR).stat().st_size
    ended = away("run_dir=run", file_size=size // 2)  # index and table are shorter
    assert ended.code == 2
    assert "a copy cannot be written here (File too large): set STEC_CACHE" in ended.refusal
    assert not [path for path in (place / "cache" / "remote").glob("*.part") if path.stat().st_size]
    seen(ended)


@pytest.mark.fault(
    67, "a server that is gone for good", "refused after five tries; the same line goes on when it is back"
)
@pytest.mark.slow
def test_a_server_that_is_gone(away, server, seen):
    server.always[TAR] = 503
    ended = away("run_dir=run", "training.epochs=1", "hardware.num_workers=1")
    assert ended.code == 4
    assert "the server says 503 (Service Unavailable) (5 tries)" in ended.refusal
    server.always.clear()
    assert away("run_dir=run", "training.epochs=1").code == 0
    seen(ended._replace(err=ended.err.replace(server.address, "http://SERVER")))


@pytest.mark.fault(68, "an address with a password or a signature", "refused before it is written anywhere")
def test_a_secret_in_an_address(command, place, seen):
    for address in ("https://me:secret@host/x", "https://host/x?signature=secret"):
        ended = command("stec-train", *TINY, f"data={address}", "run_dir=run")
        assert ended.code == 2
        assert "secret" not in ended.out + ended.err
    assert not (place / "run").exists()
    seen(ended)


@pytest.mark.fault(
    69, "a cache that is too small for what is shuffled together", "refused at the start, with the least"
)
def test_a_cache_that_is_too_small(away, server, seen):
    ended = away("run_dir=run", env={"STEC_CACHE_GB": "0.0002"})
    assert ended.code == 2
    assert "STEC_CACHE_GB=0.0002 is too little" in ended.refusal
    assert not [name for name, _ in server.asked if name.endswith(".tar")]
    seen(ended._replace(err=ended.err.replace(server.address, "http://SERVER")))
