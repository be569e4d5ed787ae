"""stec-shards from the command line, with the packers that are installed."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from webdataset.writer import TarWriter

from stec.cli.shards import main


@pytest.fixture
def pictures(tmp_path):
    """5 pictures in each of 2 sub-folders."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(5):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path / "pictures"


@pytest.fixture
def packed(tmp_path, pictures, capsys):
    words = ["pack", "--packer", "image_folder", "--out", str(tmp_path / "out"), str(pictures), "holdout=0.3"]
    assert main([*words, "--samples-per-shard", "4"]) == 0
    capsys.readouterr()
    return tmp_path / "out"


def test_pack_says_what_it_wrote(tmp_path, pictures, capsys):
    assert main(["pack", str(pictures), "--packer", "image_folder", "--out", str(tmp_path / "out"), "holdout=0"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{tmp_path / 'out' / 'train'}: 10 samples in 1 shard, ")
    assert "fields cls json png; 2 classes: cat, dog" in told


def test_verify_and_its_exit_code(packed, capsys):
    assert main(["verify", str(packed)]) == 0
    assert capsys.readouterr().out.count("as indexed") == 2
    path = packed / "train" / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    assert main(["verify", str(packed)]) == 4
    told = capsys.readouterr()
    assert "train-000000.tar has changed" in told.out
    assert told.out.count("as indexed") == 1
    assert "problem" in told.err


def test_ls(packed, capsys):
    assert main(["ls", str(packed)]) == 0
    told = capsys.readouterr().out
    assert "  train-000000.tar  4\n" in told
    assert f"{packed / 'test'}: " in told
    assert main(["ls", str(packed / "train"), "--shard", "train-000001.tar"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "4\ttrain-00000004"
    assert main(["ls", str(packed / "train"), "--sample", "5"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("train-000001.tar: train-00000005\tcls 1 bytes, json ")


def test_index_makes_tars_of_others_readable(tmp_path, capsys):
    with (tmp_path / "a.tar").open("wb") as file, TarWriter(file) as tar:
        tar.write({"__key__": "one", "txt": "hello"})
    assert main(["ls", str(tmp_path)]) == 2
    assert "`stec-shards index` makes one" in capsys.readouterr().err
    assert main(["index", str(tmp_path)]) == 0
    assert "1 sample in 1 shard, " in capsys.readouterr().out
    assert main(["verify", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "sizes.json").read_text()) == {"a.tar": 1}


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["pack", "--packer", "image_foldr", "--out", "x", "."], 2, "did you mean 'image_folder'?"),
        (["pack", "--packer", "image_folder", "--out", "x", ".", "holdot=1"], 2, "packer.holdot is unknown"),
        (
            ["pack", "--packer", "image_folder", "--out", "x", ".", "holdout=much"],
            2,
            "packer.holdout='much' has the wrong",
        ),
        (["pack", "--packer", "image_folder", "--out", "x", ".", "holdout"], 2, "'holdout': key=value was expected"),
        (["pack", "--packer", "image_folder", "--out", "x", ".", "holdout=[1"], 2, "not readable as key=value"),
        (["pack", "--packer", "image_folder", "--out", "x", "nowhere"], 2, "no such folder of pictures"),
        (["pack", "--packer", "image_folder", "--out", ".", "."], 2, "no pictures"),
        (["index", "nowhere"], 2, "no such folder of shards"),
        (["verify", "nowhere"], 2, "no index.json here"),
        (["ls", "."], 2, "no index.json here"),
    ],
)
def test_slips_are_one_sentence(tmp_path, monkeypatch, capsys, words, code, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(words) == code
    told = capsys.readouterr().err
    assert sentence in told
    assert told.startswith("stec: error: ")
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_slips_of_ls(packed, capsys):
    for words, sentence in (
        ([str(packed), "--sample", "0"], "one split was expected"),
        ([str(packed / "train"), "--sample", "99"], "a number from 0 to "),
        ([str(packed / "train"), "--shard", "x.tar"], "x.tar: not in this split"),
    ):
        assert main(["ls", *words]) == 2
        assert sentence in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["ls", str(packed), "--shards"])
    assert stop.value.code == 2


def test_as_a_command(packed):
    done = subprocess.run([sys.executable, "-m", "stec.cli.shards", "ls", packed], capture_output=True, check=True)
    assert b"train-000000.tar" in done.stdout
    assert done.stderr == b""
