"""Tars as others write them, and small splits of ours."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from toy_server import served
from webdataset.tariterators import group_by_keys, tar_file_iterator
from webdataset.writer import TarWriter

from stec.shards import copies, fetching, remote
from stec.shards.copies import Copies
from stec.shards.writer import write_split


def make_sample(number, name="s"):
    """A sample with members of different lengths that depend on its number alone."""
    blob = hashlib.sha256(f"{name}{number}".encode()).digest() * (1 + number * 7 % 40)
    return {"__key__": f"{name}{number:05d}", "bin": blob, "cls": str(number % 3).encode()}


@pytest.fixture
def members():
    """members(samples) -> {key: {field: bytes}}."""
    return lambda samples: {s["__key__"]: {k: v for k, v in s.items() if k != "__key__"} for s in samples}


@pytest.fixture
def samples():
    return lambda num, name="s": [make_sample(number, name) for number in range(num)]


@pytest.fixture
def split(tmp_path):
    """A folder with 10 samples in 3 tars."""
    folder = tmp_path / "train"
    write_split(
        map(make_sample, range(10)), folder, name="train", meta={"classes": ["a", "b", "c"]}, samples_per_shard=4
    )
    return folder


@pytest.fixture
def webdataset_tar():
    """webdataset_tar(path, samples): written by webdataset's own writer."""

    def write(path: Path, samples):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file, TarWriter(file) as tar:
            for sample in samples:
                tar.write(sample)
        return path

    return write


@pytest.fixture
def plain_tar():
    """plain_tar(path, [(name or TarInfo, bytes), ...], mode, **options): written by Python's tarfile."""

    def write(path: Path, entries, mode="w", **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, mode, **options) as tar:
            for name, data in entries:
                info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return write


@pytest.fixture
def as_webdataset():
    """as_webdataset(path) -> {key: {field: bytes}} as webdataset reads a tar."""

    def read(path):
        with path.open("rb") as file:
            files = ({**entry, "__url__": path.name} for entry in tar_file_iterator(file))
            return {s["__key__"]: {k: v for k, v in s.items() if k[0] != "_"} for s in group_by_keys(files)}

    return read


@pytest.fixture
def hurry(monkeypatch):
    """What fails is tried again at once."""
    monkeypatch.setattr(fetching, "WAIT", 0.001)
    monkeypatch.setattr(fetching, "TIMEOUT", 20.0)
    monkeypatch.setattr(copies, "PATIENCE", 0.0)


@pytest.fixture
def server(split):
    with served(split.parent) as server:
        yield server


@pytest.fixture
def kept(tmp_path):
    return Copies(tmp_path / "copies", 10**9)


@pytest.fixture
def opened(server, kept):
    """The split, from the server: nothing of its tars is here."""
    return remote.find_split(server.address, "train", kept)
