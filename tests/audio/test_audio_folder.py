"""Any folder of recordings: labels and splits by sub-folders, bytes as they are or as PCM, and faults in words."""

import io
import json

import numpy as np
import pytest
import soundfile

from stec.cli import shards
from stec.errors import DataError, UsageError
from stec_audio.folders import AudioFolder

NAMES = ["rain/a.flac", "rain/b.WAV", "rain/deep/c.ogg", "wind/d.mp3", "wind/e.wav", "wind/f.flac"]


def noise(num):
    return np.random.default_rng(num).integers(-3000, 3000, num).astype(np.int16)


def fill(root, names, rate=16_000):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(1000 + number), rate)
    return root


def samples(packer):
    return {json.loads(s["json"])["path"]: s for split in packer.splits for s in packer.samples(split)}


def test_sub_folders_are_labels_and_bytes_are_kept(tmp_path):
    packer = AudioFolder(str(fill(tmp_path, NAMES)), holdout=0.4)
    assert packer.splits == ("train", "test")
    assert packer.classes == packer.meta("train")["classes"] == ["rain", "wind"]
    found = samples(packer)
    assert sorted(found) == sorted(NAMES)
    for path, sample in found.items():
        assert sample[path.rpartition(".")[2].lower()] == (tmp_path / path).read_bytes()
        assert packer.classes[int(sample["cls"])] == path.partition("/")[0]
        assert "group" not in sample  # who made a sound is not known


def test_train_beside_test_and_no_labels(tmp_path):
    fill(tmp_path, ["train/a.wav", "train/b.wav", "test/c.wav", ".hidden/d.wav", "train/.e.wav", "train/notes.aiff"])
    packer = AudioFolder(str(tmp_path))
    assert packer.splits == ("train", "test")
    assert packer.classes == []
    assert [packer.meta(split)["num_samples"] for split in packer.splits] == [2, 1]
    assert not any("cls" in sample for sample in samples(packer).values())


def test_pcm_is_one_channel_of_16_bits_at_16_khz(tmp_path):
    soundfile.write(tmp_path / "a.flac", noise(1000), 16_000)
    soundfile.write(tmp_path / "b.wav", np.stack([noise(500), noise(500)], 1), 8_000, subtype="PCM_24")
    found = {
        name: soundfile.info(io.BytesIO(s["wav"])) for name, s in samples(AudioFolder(str(tmp_path), pcm=True)).items()
    }
    assert {(i.samplerate, i.channels, i.subtype) for i in found.values()} == {(16_000, 1, "PCM_16")}
    assert {name: i.frames for name, i in found.items()} == {"a.flac": 1000, "b.wav": 1000}


def test_what_is_no_recording_is_named(tmp_path):
    fill(tmp_path, NAMES)
    (tmp_path / "wind" / "g.flac").write_text("a text by mistake\n")
    with pytest.raises(
        DataError, match=r"wind/g\.flac: not a recording of a known format \(18 bytes\): Format not rec"
    ):
        samples(AudioFolder(str(tmp_path)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty: no recordings \(flac, wav, mp3, ogg\) in this folder or below it\.$"):
        AudioFolder(str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="no such folder of recordings"):
        AudioFolder(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"packer\.holdout=-1 must be in"):
        AudioFolder(str(tmp_path), holdout=-1)


def test_a_damaged_file_ends_the_command_in_words_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shards, "find", lambda kind, name: AudioFolder)
    fill(tmp_path / "in", ["a.wav", "b.wav"])
    cut = (tmp_path / "in" / "b.wav").read_bytes()[:-100]
    (tmp_path / "in" / "b.wav").write_bytes(cut)
    assert shards.main(["pack", "--packer", "audio_folder", "--out", str(tmp_path / "out"), str(tmp_path / "in")]) == 4
    assert "b.wav: truncated: by its header, 100 bytes are missing at its end" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
