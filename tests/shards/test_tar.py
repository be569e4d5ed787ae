"""What counts as a sample, checked against webdataset itself; and tars that are refused."""

import gzip
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from stec.errors import DataError
from stec.shards.tar import scan, split_name


def as_scanned(path):
    """{key: {field: bytes}} by the rows of a scan."""
    found, data = scan(path), path.read_bytes()
    result = {}
    for row in found.rows:
        places = zip(found.fields, row["offset"], row["size"], strict=True)
        result[row["key"].decode()] = {f: data[o : o + s] for f, o, s in places if o}
    return result


name = st.text("ab.-_/A", min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(name)
def test_a_name_is_split_as_webdataset_does(path):
    key, field = base_plus_ext(path)
    base = path.rpartition("/")[2]
    if base.startswith(".") or (base.endswith(".") and base.count(".") == 1):
        key = None  # hidden files, which webdataset takes for members inside a folder; and names that end in a dot
    assert split_name(path) == (None if key is None else (key, field.lower()))


def test_reads_the_samples_that_webdataset_reads(tmp_path, plain_tar, as_webdataset):
    link = tarfile.TarInfo("b.lnk")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    folder = tarfile.TarInfo("sub")
    folder.type = tarfile.DIRTYPE
    entries = [
        ("./a.JPG", b"first"), ("./a.seg.png", b"x" * 700), (folder, b""), ("sub/b.v1/c.jpg", b""), (link, b""),
        ("README", b"no extension"), ("ünïcode-" + "k" * 150 + ".cls", b"3"), ("__meta__", b"m"), ("z.txt", b"last"),
    ]  # fmt: skip
    path = plain_tar(tmp_path / "x.tar", entries)
    assert as_scanned(path) == as_webdataset(path)
    assert list(as_scanned(path)) == ["./a", "sub/b.v1/c", "ünïcode-" + "k" * 150, "z"]
    assert scan(path).num_skipped == 3
    assert scan(path).fields == ("cls", "jpg", "seg.png", "txt")


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_tar(tmp_path, plain_tar, as_webdataset, format):
    entries = [(f"{'d' * 60}/{'k' * 60}{i}.bin", bytes([i]) * 600 * i) for i in range(5)]
    path = plain_tar(tmp_path / "x.tar", entries, format=format)
    assert as_scanned(path) == as_webdataset(path)
    assert len(as_scanned(path)) == 5


def test_refuses_what_would_be_read_wrongly(tmp_path, plain_tar):
    path = tmp_path / "x.tar"
    cases = [
        ([("a.x", b"1"), ("b.x", b"2"), ("a.y", b"3")], "key 'a' comes back"),
        ([("a.x", b"1"), ("a.X", b"2")], "sample 'a' has two members 'x'"),
        ([(f"k{i}.photo{i}.jpg", b"1") for i in range(70)], "must not contain dots"),
    ]
    for entries, sentence in cases:
        with pytest.raises(DataError, match=sentence):
            scan(plain_tar(path, entries))
    for content, sentence in (
        (b"", "not a whole tar"),
        (b"<html><body>404" + b" " * 2000, "not a whole tar"),
        (gzip.compress(b"x" * 5000), "compressed with gzip: unpack it first"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"^x.tar .*{sentence}"):
            scan(path)


def test_refuses_tars_behind_each_other(tmp_path, plain_tar):
    one, two = (plain_tar(tmp_path / f"{n}.tar", [(f"{n}.x", b"1")]) for n in "ab")
    one.write_bytes(one.read_bytes() + two.read_bytes())
    with pytest.raises(DataError, match=r"a\.tar is damaged at byte 1024"):
        scan(one)


def test_a_cut_anywhere_before_the_end_mark_is_refused(tmp_path, webdataset_tar, samples):
    path = webdataset_tar(tmp_path / "x.tar", samples(4))
    whole, data = as_scanned(path), path.read_bytes()
    end = len(data.rstrip(b"\0"))
    for cut in range(0, len(data), 171):
        path.write_bytes(data[:cut])
        if cut < end:
            with pytest.raises(DataError, match=r"x\.tar"):
                scan(path)
        else:  # within the zeros at the end: whole, or refused
            try:
                assert as_scanned(path) == whole
            except DataError:
                assert cut < end + 1024
