"""Which addresses are gone to, and what is said of those that are not: nothing that is secret."""

import base64

import fsspec
import pytest

from stec.errors import UsageError
from stec.shards import fetching

pytest.importorskip("aiohttp")
pytestmark = pytest.mark.usefixtures("hurry")


@pytest.mark.parametrize(
    "data",
    [
        "pipe:curl x",
        "pipe::x",
        "file:///etc",
        "simplecache::https://h/x",
        "https://h/x::file:///etc",
        "ftp://h/x",
        "https://user:secret@h/x",
        "https://secret@h/x",
        "https://h/x?signature=secret",
        "https://h/x#secret",
        "https:///x",
        "python://secret",
    ],
)
def test_addresses_that_are_not_gone_to(data):
    with pytest.raises(UsageError, match="expected") as refused:
        fetching.address(data)
    assert "secret" not in str(refused.value)


def test_passwords_come_from_where_they_are_kept(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fetching.text(f"{server.address}/train/index.json", 10**6)
    assert server.authorized == "Basic " + base64.b64encode(b"me:secret").decode()
    monkeypatch.delenv("NETRC")
    monkeypatch.setitem(fsspec.config.conf, "https", {"headers": {"Authorization": "Bearer of secrets"}})
    fetching.text(f"{server.address}/train/index.json", 10**6)
    assert server.authorized == "Bearer of secrets"


@pytest.mark.parametrize("data", ["shards", "/a/b", "C:/x", "a:b", "~/x", "run 1: x"])
def test_paths_are_no_addresses(data):
    assert fetching.address(data) is None


def test_a_path_that_looks_like_an_address_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a::b").mkdir()
    assert fetching.address("a::b") is None
    assert fetching.address("s3://bucket/x/") == "s3://bucket/x"


def test_what_libraries_say_is_told_without_secrets():
    why, _ = fetching._judged(RuntimeError("GET https://me:secret@h/x?X-Amz-Signature=secret failed"))
    assert why == "RuntimeError: GET https:...h/x... failed"


def test_a_missing_package(monkeypatch):
    def no_such(name, **options):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.filesystem", no_such)
    with pytest.raises(UsageError, match=r"pip install 'stec\[remote\]' \(Install s3fs"):
        fetching.text("s3://bucket/index.json", 100)
