"""What is found in a checkpoint, an exported folder or a run directory is data: not run, not resolved, not fetched, and
no larger than what comes with it. And bombs end at their header."""

import json
import logging
import pickle
import socket
import struct
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image as pil

from stec import build, export
from stec.cli.source import config_of, data_of
from stec.errors import DataError, UsageError
from stec.modest import within
from stec.nodes import checked
from stec.shards.tar import MAX_KEY, scan
from stec.stored import LONGEST, configuration, from_json, from_yaml
from stec.training import checkpoint
from stec_audio import labels
from stec_vision.packers import SMALL, Npz
from stec_vision.reading import Picture
from stec_vision.unpickling import unpickle_plain

sys.path.insert(0, str(Path(__file__).parents[2] / "tools/trust"))

import lies

ENCODER = {"name": "timm", "model": "resnet18", "pretrained": True}
SPEC = {
    **{"format": build.SPEC_FORMAT, "actions": {"affine_crop": {"size": 8}}, "encoder": ENCODER},
    **{
        "decoder": {"name": "image_crop"},
        "picture": {"name": "boxes"},
        "identity": {"simclr": {"hidden": 8, "out": 4}},
        "manipulation": {},
    },
    **{"extents": [[8, 8]], "classes": [], "num_classes": 0, "forward_views": "joint"},
}


def stored(folder, **changes):
    path = folder / checkpoint.name(1)
    checkpoint.save(path, {"step": 1, "model": {"w": torch.zeros(1)}, "spec": {**SPEC, **changes}})
    return str(path)


@pytest.fixture
def offline(monkeypatch):
    """Whoever reaches for the network fails."""

    def refuse(*_):
        raise AssertionError("it reached for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_published_weights_are_not_fetched_because_a_file_says_so(tmp_path, monkeypatch, offline):
    asked = []
    monkeypatch.setattr(timm, "create_model", lambda *names, **options: asked.append(options["pretrained"]) or 1 / 0)
    with pytest.raises(UsageError, match="no model can be built of its description"):
        build.load(stored(tmp_path))
    assert asked == [False]


@pytest.mark.parametrize(
    "model", ["hf-hub:a/b", "resnet18.hf-hub:a/b", "local-dir:/tmp", "timm/../x", "${oc.env:HOME}"]
)
def test_a_name_is_a_name(tmp_path, model, offline):
    with pytest.raises(UsageError) as caught:
        build.load(stored(tmp_path, encoder={"name": "timm", "model": model}))
    assert model in str(caught.value)  # as it stands: ${...} is not looked up


def test_references_are_text(monkeypatch):
    def options(*, word: str, words: list[str], number: int = 0):
        """Of a part."""

    monkeypatch.setenv("SECRET", "told")
    text = "a\\${oc.env:SECRET}${oc.env:SECRET}"
    assert checked(options, {"word": text, "words": [text, "???"]}, "x") == {"word": text, "words": [text, "???"]}
    for odd in ("${oc.env:SECRET}", "???"):
        with pytest.raises(UsageError, match="number"):
            checked(options, {"word": "", "words": [], "number": odd}, "x")


def test_a_description_is_no_larger_than_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr("stec.modest.SPARE", 1 << 20)
    with pytest.raises(UsageError, match="many times larger than its weights"):
        build.load(stored(tmp_path, encoder={"name": "resnet", "depth": 18, "width": 2000}))
    with pytest.raises(UsageError, match="many times larger"), within(10, "x"):
        torch.nn.ModuleList(torch.nn.LayerNorm(1) for _ in range(2_000))


def test_a_list_that_stands_for_a_million(tmp_path):
    bomb = [1]
    for _ in range(40):
        bomb = [bomb, bomb]
    with pytest.raises(UsageError, match=r"there are more than 1,000,000 values"):
        export.plain({"a": bomb})
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(UsageError, match="nested too deeply"):
        export.plain({"a": deep})
    with pytest.raises(UsageError, match="a number of more than 64 bits"):
        export.plain({"a": 10**5000})  # which Python would not even write out


def test_stored_text_is_data(tmp_path):
    laughs = "a: &a [1]\nb: &b [*a, *a]\n"
    for text in (
        laughs,
        "a: &a [*a]",
        "a: !!python/name:os.system",
        "a: 2020-99-99",
        "[" * 9000,
        "x" * (LONGEST + 1),
        "a: !!int ''",
    ):
        with pytest.raises(ValueError):
            from_yaml(text)
    for text in ("[" * 100_000, "1" * 5000, b"\xff", ""):
        with pytest.raises(ValueError):
            from_json(text)
    assert from_yaml("a: ${oc.env:HOME}\n_target_: os.system") == {"a": "${oc.env:HOME}", "_target_": "os.system"}
    (tmp_path / "config.yaml").write_text("- 1")
    with pytest.raises(UsageError, match="a group of keys was expected"):
        configuration(tmp_path / "config.yaml")


def test_data_are_not_fetched_because_a_run_says_so(tmp_path, offline):
    dataset = {"name": "x", "needs_data": True, "packer": {"name": "image_folder"}}
    (tmp_path / "config.yaml").write_text(json.dumps({"data": "http://localhost:9/x", "dataset": dataset}))
    with pytest.raises(UsageError, match="they are fetched if you say data="):
        data_of(config_of(str(tmp_path)), None, None)


def test_headers_of_tars_that_never_end(tmp_path):
    """Sizes below zero lead tarfile back to where it was; the map of a sparse file, cut off, to its end for ever."""
    raw = tmp_path / "raw.tar"
    with tarfile.open(raw, "w") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    plain = raw.read_bytes()
    sparse = [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.size", b"9")]
    longer, name = [("GNU.sparse.realsize", b"99999999999")], [("path", b"k" * (MAX_KEY + 1) + b".jpg")]
    digits = [("comment", b"9" * 60_000)]  # seconds in tarfile as Python 3.11.7 has it, minutes for ten times as many
    for records in ([("size", b"-1024")], sparse, longer, name, digits):
        raw.write_bytes(lies.extended(plain, records))
        with pytest.raises(DataError, match=r"not a whole tar|has a name of more|is a sparse file"):
            scan(raw)


def refused(every):
    for raw in every:
        with pytest.raises(DataError):
            Picture(raw, 64_000_000)


def test_pictures_end_at_their_header(monkeypatch):
    monkeypatch.setattr(pil.Image, "load", lambda _: 1 / 0)
    gif = (
        b"GIF89a"
        + struct.pack("<HH", 60_000, 60_000)
        + b"\0\0\0,\0\0\0\0"
        + struct.pack("<HH", 60_000, 60_000)
        + b"\0\2\0;"
    )
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    webp = (
        b"RIFF"
        + struct.pack("<I", 22)
        + b"WEBPVP8X"
        + struct.pack("<I", 10)
        + b"\0\0\0\0"
        + (59_999).to_bytes(3, "little") * 2
    )
    tags = [(256, 60_000), (257, 60_000), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 60_000), (279, 9)]
    tiff = (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags)
        + bytes(4)
    )
    every = (gif, bmp, webp, tiff, b"P6 60000 60000 255\n")
    refused(every)  # so that what PIL imports at first is there
    tracemalloc.start()
    refused(every)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_arrays_and_pickles_end_before_they_unfold(tmp_path):
    for name in ("train", "test"):
        with (
            zipfile.ZipFile(tmp_path / f"{name}.npz", "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("filename.npy", "w") as file,
        ):
            for _ in range(SMALL // 2**20 + 1):
                file.write(bytes(2**20))
    with pytest.raises(DataError, match="many times as many as the file has"):
        Npz(str(tmp_path), subset=1)
    with pytest.raises(DataError, match="numbers an object that it cannot hold"):
        unpickle_plain(b"\x80\x02}r\xff\xff\xff\x7f.", "meta")
    assert unpickle_plain(pickle.dumps({"a": [np.zeros(3)]}, protocol=2), "meta").keys() == {"a"}


def test_labels_end_where_names_would_be_made_up(tmp_path):
    for text in ("a 0 70000\n", "a " + "9" * 5000 + "\n"):
        (tmp_path / "l.txt").write_text(text)
        with pytest.raises(DataError, match="line 1"):
            labels.read(tmp_path / "l.txt")


def test_a_checkpoint_that_unfolds(tmp_path):
    path = stored(tmp_path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data + bytes(2**24) * name.endswith("data/0"))
    with pytest.raises(UsageError, match="claim more bytes than the file has"):
        checkpoint.load(path)


def test_weights_whose_header_lies(tmp_path):
    spec = {**SPEC, "encoder": {"name": "resnet", "depth": 18, "width": 4}}
    model = build.model(spec)
    export.export(tmp_path / "out", model.spec, model.encoder)
    about = json.loads((tmp_path / "out" / export.SPEC_NAME).read_text())
    for size, text in (
        (2**62, b"{}"),
        (2, b"{}"),
        (9, b"[[[[[[[[["),
        (70, b'{"x":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,4]}}'.ljust(70)),
    ):
        raw = size.to_bytes(8, "little") + text + bytes(4)
        (tmp_path / "out" / export.WEIGHTS).write_bytes(raw)
        about["sha256"][export.WEIGHTS] = export._digest(raw)
        (tmp_path / "out" / export.SPEC_NAME).write_text(json.dumps(about))
        with pytest.raises(UsageError):
            build.load(str(tmp_path / "out"))


def test_a_published_model_is_for_the_user_to_ask_for(tmp_path, offline, caplog):
    """A row to compare with is left out unless its weights are on this machine: evaluation.baselines of a run directory
    fetches nothing."""
    caplog.set_level(logging.INFO, logger="stec")
    with pytest.raises(UsageError, match="not on this machine"):
        build.at_hand("timm/vit_giant_patch14_dinov2.lvd142m")
