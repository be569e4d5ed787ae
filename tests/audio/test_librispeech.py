"""LibriSpeech: members of every sample, splits by lists or by hash, labels of the right length, and slips in words."""

import io
import json
import logging

import numpy as np
import pytest
import soundfile

from stec.cli import shards
from stec.errors import DataError, UsageError
from stec_audio.packers import LibriSpeech
from stec_audio.reading import Sound

SPEAKERS = ("84", "9", "251")
NUM = {f"{speaker}-10-{n:04d}": 1200 + 160 * n + 7 * int(speaker) for speaker in SPEAKERS for n in range(8)}


def noise(num):
    return np.random.default_rng(num).integers(-3000, 3000, num).astype(np.int16)


def fill(root, subset="dev-clean", extension="flac"):
    """24 utterances of 3 speakers, with transcripts but for the last of each."""
    for name, num in NUM.items():
        speaker, chapter, last = name.split("-")
        folder = root / subset / speaker / chapter
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{name}.{extension}", noise(num), 16_000)
        if last != "0007":
            with (folder / f"{speaker}-{chapter}.trans.txt").open("a") as file:
                file.write(f"{name} THE WORDS OF {name}\n")
    return root


def labelled(root, change=None, leave_out=()):
    """A label file, and names for its three labels."""
    lines = {name: [n % 3 for n in range(1 + (num - 400) // 160)] for name, num in NUM.items()}
    lines.update(change or {})
    text = "".join(f"{k} {' '.join(map(str, v))}\n" for k, v in lines.items() if k not in leave_out)
    (root / "phones.txt").write_text(text)
    (root / "names.txt").write_text("SIL 0\nAA 1\nAE 2\n")
    return {"phones": str(root / "phones.txt"), "names": str(root / "names.txt")}


def lists(root, train, test):
    for name, ids in (("train", train), ("test", test)):
        (root / f"{name}.txt").write_text("".join(f"{one}\n" for one in ids))
    return {"train_list": str(root / "train.txt"), "test_list": str(root / "test.txt")}


def ids(packer, split):
    return [json.loads(sample["json"])["id"] for sample in packer.samples(split)]


def test_every_member_of_every_sample(tmp_path):
    packer = LibriSpeech(str(fill(tmp_path)), **labelled(tmp_path))
    assert packer.splits == ("train", "test")
    assert packer.classes == ["251", "84", "9"]
    seen = []
    for split in packer.splits:
        samples = list(packer.samples(split))
        assert packer.meta(split) == {
            "classes": ["251", "84", "9"],
            "num_samples": len(samples),
            "phones": ["SIL", "AA", "AE"],
        }
        for count, sample in enumerate(samples):
            facts = json.loads(sample["json"])
            name, speaker = facts["id"], facts["speaker"]
            seen.append(name)
            assert facts["path"] == f"dev-clean/{speaker}/10/{name}.flac"
            assert sample["__key__"] == f"{split}-{count:08d}"
            assert sample["flac"] == (tmp_path / facts["path"]).read_bytes()
            assert sample["cls"] == sample["group"] == str(packer.classes.index(speaker)).encode()
            assert sample.get("txt") == (None if name.endswith("7") else f"THE WORDS OF {name}".encode())
            assert len(sample["phones"].split()) == 1 + (NUM[name] - 400) // 160
            assert sample["phones"].startswith(b"0 1 2 0 1")
    assert sorted(seen) == sorted(NUM)


def test_it_goes_through_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shards, "find", lambda kind, name: {"librispeech": LibriSpeech}[name])
    options = [f"{key}={value}" for key, value in labelled(tmp_path).items()]
    words = ["pack", "--packer", "librispeech", "--out", str(tmp_path / "out"), str(fill(tmp_path))]
    assert shards.main([*words, "holdout=0", "pcm=true", *options]) == 0
    told = capsys.readouterr()
    assert "24 samples in 1 shard" in told.out
    assert "fields cls group json phones txt wav; 3 classes: 251, 84, 9" in told.out
    assert "train: 24 recordings, 3.8 seconds, 124 kB of 16-bit PCM, 102 kB as they were" in told.err
    assert shards.main(["verify", str(tmp_path / "out")]) == 0


def test_without_labels_and_names(tmp_path):
    fill(tmp_path)
    packer = LibriSpeech(str(tmp_path))
    assert "phones" not in packer.meta("train")
    assert not any("phones" in sample for sample in packer.samples("train"))
    options = labelled(tmp_path)
    assert LibriSpeech(str(tmp_path), phones=options["phones"]).meta("test")["phones"] == ["0", "1", "2"]


def test_utterances_without_labels_have_no_such_member(tmp_path, caplog):
    fill(tmp_path)
    missing = ("84-10-0000", "9-10-0003")
    with caplog.at_level(logging.INFO, "stec"):
        packer = LibriSpeech(str(tmp_path), **labelled(tmp_path, leave_out=missing))
    assert "2 of 24 utterances have no phone labels" in caplog.text
    for split in packer.splits:
        for sample in packer.samples(split):
            assert ("phones" in sample) == (json.loads(sample["json"])["id"] not in missing)


@pytest.mark.parametrize("off", [-1, 1])
def test_labels_of_another_length_are_refused_by_name_and_counts(tmp_path, off):
    fill(tmp_path)
    right = 1 + (NUM["9-10-0002"] - 400) // 160
    options = labelled(tmp_path, {"9-10-0002": [0] * (right + off)})
    packer = LibriSpeech(str(tmp_path), holdout=0, **options)
    with pytest.raises(DataError, match=f"9-10-0002: {right + off} phone labels were found, {right} were expected"):
        list(packer.samples("train"))


def test_lists_decide_and_what_is_in_none_is_left_out(tmp_path, caplog):
    fill(tmp_path)
    train, test = ["84-10-0000", "84-10-0001", "9-10-0000", "84-10-0099"], ["251-10-0001", "9-10-0005"]
    with caplog.at_level(logging.INFO, "stec"):
        packer = LibriSpeech(str(tmp_path), **lists(tmp_path, train, test))
    assert sorted(ids(packer, "train")) == sorted(train[:3])
    assert sorted(ids(packer, "test")) == sorted(test)
    assert "1 utterances of the lists are not in" in caplog.text
    assert "19 are there but in no list" in caplog.text
    # Every speaker there is keeps its number, whatever the lists hold.
    assert packer.classes == ["251", "84", "9"]


def test_the_order_and_the_sides_are_functions_of_the_ids(tmp_path):
    fill(tmp_path / "a")
    fill(tmp_path / "b", extension="wav")
    for one in (tmp_path / "b/dev-clean/84/10").glob("*-000[0-3].wav"):
        one.unlink()
    before, after = (LibriSpeech(str(tmp_path / name), holdout=0.5) for name in "ba")
    for split in ("train", "test"):
        there = set(ids(before, split))
        assert ids(before, split) == [one for one in ids(after, split) if one in there]
    assert 6 <= len(ids(after, "test")) <= 18
    assert ids(after, "train") != sorted(ids(after, "train"))


def test_a_limit_takes_the_first_by_hash(tmp_path):
    fill(tmp_path)
    everything = LibriSpeech(str(tmp_path), holdout=0)
    few = LibriSpeech(str(tmp_path), holdout=0, limit=5)
    assert ids(few, "train") == ids(everything, "train")[:5]
    split = lists(tmp_path, sorted(NUM)[:12], sorted(NUM)[12:])
    limited = LibriSpeech(str(tmp_path), limit=10, **split)
    assert set(ids(limited, "train") + ids(limited, "test")) == set(ids(everything, "train")[:10])


def test_pcm_is_the_same_sound(tmp_path):
    fill(tmp_path)
    plain, pcm = (list(LibriSpeech(str(tmp_path), holdout=0, pcm=pcm).samples("train")) for pcm in (False, True))
    for one, other in zip(plain, pcm, strict=True):
        expected = noise(NUM[json.loads(one["json"])["id"]])
        np.testing.assert_array_equal(soundfile.read(io.BytesIO(other["wav"]), dtype="int16")[0], expected)
        assert soundfile.info(io.BytesIO(other["wav"])).subtype == "PCM_16"
        assert Sound(one["flac"]).num_samples == len(expected)
        assert {k: v for k, v in one.items() if k != "flac"} == {k: v for k, v in other.items() if k != "wav"}


def test_which_subset(tmp_path):
    fill(tmp_path / "LibriSpeech", "dev-clean")
    (tmp_path / "LibriSpeech" / "notes").mkdir()
    for source in (tmp_path, tmp_path / "LibriSpeech", tmp_path / "LibriSpeech" / "dev-clean"):
        assert len(ids(LibriSpeech(str(source), holdout=0), "train")) == 24
    itself = LibriSpeech(str(tmp_path / "LibriSpeech" / "dev-clean"), subset="dev-clean", holdout=0)
    assert len(ids(itself, "train")) == 24
    with pytest.raises(UsageError, match=r"subset=test-clean: there is no such subset in .*dev-clean: there is none"):
        LibriSpeech(str(tmp_path / "LibriSpeech" / "dev-clean"), subset="test-clean")
    fill(tmp_path / "LibriSpeech", "test-clean", "wav")
    with pytest.raises(UsageError, match="subset must say which of these to pack: dev-clean, test-clean"):
        LibriSpeech(str(tmp_path))
    assert all("wav" in s for s in LibriSpeech(str(tmp_path), subset="test-clean").samples("train"))
    with pytest.raises(
        UsageError, match=r"subset=train-clean: there is no such subset in .*: there is dev-clean, test"
    ):
        LibriSpeech(str(tmp_path), subset="train-clean")
    with pytest.raises(UsageError, match="no subset of LibriSpeech is here: SUBSET/SPEAKER/CHAPTER"):
        LibriSpeech(str(tmp_path / "LibriSpeech" / "notes"))
    for source in ("", str(tmp_path / "nowhere")):
        with pytest.raises(UsageError, match="no such folder of LibriSpeech"):
            LibriSpeech(source)


def test_a_damaged_file_is_named(tmp_path):
    fill(tmp_path)
    path = tmp_path / "dev-clean/9/10/9-10-0004.flac"
    whole = path.read_bytes()
    for damaged, says in ((b"a text", "not a recording of a known format"), (whole[: len(whole) // 2], "damaged")):
        path.write_bytes(damaged)
        for pcm in (False, True):
            with pytest.raises(DataError, match=rf"9-10-0004\.flac: {says}"):
                list(LibriSpeech(str(tmp_path), holdout=0, pcm=pcm).samples("train"))


def test_slips_in_words(tmp_path):
    fill(tmp_path)
    source, labels = str(tmp_path), labelled(tmp_path)
    split = lists(tmp_path, ["84-10-0000"], ["9-10-0000"])
    (tmp_path / "other.txt").write_text("1-1-1\n")
    for options, says in (
        ({"holdout": 1.0}, r"packer.holdout=1.0 must be in \[0, 1\)"),
        ({"limit": 0}, "packer.limit=0 must be at least 1"),
        ({"train_list": split["train_list"]}, "packer.train_list and packer.test_list belong together"),
        ({"names": labels["names"]}, "packer.phones, the file of labels, is missing"),
        ({"phones": "nowhere.txt"}, "packer.phones=nowhere.txt: there is no such file"),
        ({**split, "test_list": "gone.txt"}, "packer.test_list=gone.txt: there is no such file"),
        ({**split, "limit": 1}, "no utterance is left for"),
        ({**split, "test_list": str(tmp_path / "other.txt")}, "packer.test_list=.*: none of its utterances is in"),
    ):
        with pytest.raises(UsageError, match=says):
            LibriSpeech(source, **options)
    with pytest.raises(UsageError, match="labels for none of the 24 utterances"):
        LibriSpeech(source, **labelled(tmp_path, {"1-1-1": [0]}, leave_out=NUM))
    with pytest.raises(DataError, match="84-10-0000 is in both"):
        LibriSpeech(source, **lists(tmp_path, ["84-10-0000"], ["84-10-0000", "9-10-0000"]))
    with pytest.raises(DataError, match=r"has the label 3, but .* names only 3 \(0 to 2\)"):
        LibriSpeech(source, **labelled(tmp_path, {"84-10-0000": [3]}))
    (tmp_path / "dev-clean/9/10/84-10-0000.flac").write_bytes(b"")
    with pytest.raises(DataError, match="the same utterance as"):
        LibriSpeech(source)
