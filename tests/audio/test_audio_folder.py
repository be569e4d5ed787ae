"""Any folder of recordings: labels and splits by sub-folders, bytes as they are or as PCM, and faults in words."""

import io
import json
import logging

import numpy as np
import pytest
import soundfile

from stec.cli import shards
from stec.errors import DataError, UsageError
from stec_audio import recordings
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
    assert packer.classes == ["rain", "wind"]
    assert packer.meta("train") == {"classes": ["rain", "wind"]}
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
    assert [len(list(packer.samples(split))) for split in packer.splits] == [2, 1]
    assert not any("cls" in sample for sample in samples(packer).values())


def test_pcm_is_one_channel_of_16_bits_at_16_khz(tmp_path):
    soundfile.write(tmp_path / "a.flac", noise(1000), 16_000)
    soundfile.write(tmp_path / "b.wav", np.stack([noise(500), noise(500)], 1), 8_000, subtype="PCM_24")
    found = {
        name: soundfile.info(io.BytesIO(s["wav"])) for name, s in samples(AudioFolder(str(tmp_path), pcm=True)).items()
    }
    assert {(i.samplerate, i.channels, i.subtype) for i in found.values()} == {(16_000, 1, "PCM_16")}
    assert {name: i.frames for name, i in found.items()} == {"a.flac": 1000, "b.wav": 1000}


@pytest.mark.parametrize("pcm", [False, True])
def test_damaged_files_are_named_once_and_left_out(tmp_path, caplog, pcm):
    names = [f"{number:02d}.wav" for number in range(20)]
    fill(tmp_path, names)
    (tmp_path / "03.wav").write_text("a text by mistake\n")
    (tmp_path / "17.wav").write_bytes((tmp_path / "17.wav").read_bytes()[:-100])
    packer = AudioFolder(str(tmp_path), holdout=0, pcm=pcm)
    with caplog.at_level(logging.INFO, "stec"):
        assert sorted(samples(packer)) == [name for name in names if name not in ("03.wav", "17.wav")]
    warned = sorted(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert len(warned) == 2
    assert "03.wav: not a recording of a known format (18 bytes): Format not rec" in warned[0]
    assert "17.wav: truncated: by its header, 100 bytes are missing at its end" in warned[1]
    assert caplog.messages[-1].startswith("train: 18 recordings, 1.1 seconds, ")
    assert caplog.messages[-1].endswith("; 2 damaged ones left out")
    (tmp_path / "05.wav").write_bytes(b"")
    says = r"train: 3 of 20 recordings are damaged, more than packer\.max_bad=0\.1 allows; the last one: .*\d\d\.wav: "
    with pytest.raises(DataError, match=says):
        samples(packer)
    assert len(samples(AudioFolder(str(tmp_path), holdout=0, pcm=pcm, max_bad=0.2))) == 17
    with pytest.raises(DataError, match=r"\d\d\.wav: (not a rec|truncated|a recording of 0 bytes)"):
        samples(AudioFolder(str(tmp_path), holdout=0, pcm=pcm, max_bad=0))


def test_one_damaged_file_of_few_is_put_up_with_but_not_the_only_one(tmp_path):
    fill(tmp_path, NAMES)
    (tmp_path / NAMES[0]).write_bytes(b"")
    assert sorted(samples(AudioFolder(str(tmp_path)))) == sorted(NAMES[1:])
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    fill(tmp_path / "train", ["a.wav"])
    (tmp_path / "test" / "b.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"test: no recording is left: .*b\.wav: a recording of 0 bytes"):
        samples(AudioFolder(str(tmp_path)))


def test_slips_in_words(tmp_path):
    fill(tmp_path, NAMES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty: no recordings \(flac, wav, mp3, ogg\) in this folder or below it\.$"):
        AudioFolder(str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="no such folder of recordings"):
        AudioFolder(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"packer\.holdout=-1 must be in"):
        AudioFolder(str(tmp_path), holdout=-1)
    with pytest.raises(UsageError, match=r"packer\.max_bad=1\.0 must be in"):
        AudioFolder(str(tmp_path), max_bad=1.0)


def test_the_command_tells_what_it_left_out_or_ends_in_words_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shards, "find", lambda kind, name: AudioFolder)
    fill(tmp_path / "in", ["a.wav", "b.wav"])
    cut = (tmp_path / "in" / "b.wav").read_bytes()[:-100]
    (tmp_path / "in" / "b.wav").write_bytes(cut)
    words = ["pack", "--packer", "audio_folder", "--out", str(tmp_path / "out"), str(tmp_path / "in")]
    assert shards.main([*words, "max_bad=0"]) == 4
    assert "b.wav: truncated: by its header, 100 bytes are missing at its end" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert shards.main(words) == 0
    told = capsys.readouterr()
    assert "1 sample in 1 shard" in told.out
    assert "b.wav: truncated" in told.err
    assert "train: 1 recordings, 0.1 seconds, 2 kB; 1 damaged ones left out" in told.err


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(59.9, "59.9 seconds"), (60.0, "1.0 minutes"), (3599.0, "60.0 minutes"), (5400.0, "1.50 hours")],
)
def test_lengths_in_units_that_show_them(seconds, told):
    assert recordings._duration(seconds) == told
