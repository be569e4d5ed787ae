"""The synthesised corpus: what is promised of its sentences, its labels and its bytes."""

import io
import itertools
import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import soundfile

from stec.errors import DataError, UsageError
from stec_audio import sentences, synthesis
from stec_audio.arpabet import PHONES, phone
from stec_audio.synthesis import RATE, Line, Speech, spoken
from stec_audio.voices import SPEAKERS, Espeak, labels

MISSING = find_spec("espeakng_loader") is None
needs_espeak = pytest.mark.skipif(MISSING, reason="espeakng-loader is not installed")
SIZES = {"num_voices": 3, "num_sentences": 4, "num_test": 2}


@pytest.fixture(scope="module")
def corpus():
    if MISSING:
        pytest.skip("espeakng-loader is not installed")
    packer = Espeak("", **SIZES)
    return {split: list(packer.samples(split)) for split in packer.splits}


def signal(sample):
    x, rate = soundfile.read(io.BytesIO(sample["wav"]), dtype="int16")
    assert rate == 16_000
    return x


def numbers(sample):
    return np.array(sample["phones"].split(), np.int64)


def test_the_same_corpus_comes_twice_bit_for_bit(corpus):
    assert list(Espeak("", **SIZES).samples("train")) == corpus["train"]
    assert list(Espeak("", **SIZES, seed=1).samples("train")) != corpus["train"]


def test_every_voice_reads_so_many_sentences(corpus):
    speakers = [voice for voice, _ in SPEAKERS[:3]]
    assert Espeak("", **SIZES).meta("train") == {"classes": speakers, "phones": list(PHONES)}
    for split, each in (("train", 4), ("test", 2)):
        assert [int(sample["cls"]) for sample in corpus[split]] == [0, 1, 2] * each
        assert [sample["group"] for sample in corpus[split]] == [sample["cls"] for sample in corpus[split]]
        for sample in corpus[split]:
            assert json.loads(sample["json"])["speaker"] == speakers[int(sample["cls"])]
            assert 1.8 <= len(signal(sample)) / 16_000 <= 4.5


def test_no_sentence_is_in_both_splits_or_twice(corpus):
    texts = [sample["txt"] for split in corpus.values() for sample in split]
    assert len(set(texts)) == len(texts) == 18
    # Without a library: what would be read at the size of the demonstration.
    lines = {split: [line.text for line in Espeak("")._lines(split)] for split in ("train", "test")}
    assert (len(lines["train"]), len(lines["test"])) == (480, 120)
    assert len({*lines["train"], *lines["test"]}) == 600


def test_test_sentences_stay_when_more_are_learnt_from():
    assert Espeak("", num_sentences=3)._lines("test") == Espeak("", num_sentences=9)._lines("test")


def test_sentences_are_a_function_of_the_seed():
    def first(seed):
        return list(itertools.islice(sentences.sentences(seed), 50))

    assert first(0) == first(0)
    assert first(0) != first(1)
    assert all(text[0].isupper() and text[-1] == "." and "  " not in text and "\n" not in text for text in first(0))


def heard(*phonemes, loud=True):
    """A second of speech with phonemes (start at 22,050 Hz, name); loud throughout, or silent."""
    starts, names = zip(*phonemes, strict=True)
    return Speech(np.full(RATE, 100 * loud, np.int16), np.array(starts), list(names))


def test_a_label_is_what_sounds_at_its_centre():
    """Slow twin on a hand-made utterance: a pause, "see", a pause; times in samples of 22,050 Hz."""
    speech = heard((2205, "s"), (4410, "'i:"), (11025, "(de)"), (20000, "_:"))
    for num in (400, 559, 560, 16_000):
        found = labels(speech, num)
        assert len(found) == 1 + (num - 400) // 160
        for i, label in enumerate(found.tolist()):
            time = (160 * i + 200) / 16_000
            name = "SIL" if time < 0.1 else "S" if time < 0.2 else "IY" if time < 20000 / RATE else "SIL"
            assert PHONES[label] == name
    assert len(labels(speech, 399)) == 0


def test_the_label_of_a_moment_is_that_of_the_phoneme_begun_last():
    middle = round(200 / 16_000 * RATE)  # 275.625: the phoneme at 275 has begun, the one at 276 has not
    for start, name in ((middle - 1, "M"), (middle, "SIL")):
        assert PHONES[labels(heard((start, "m")), 400)[0]] == name


def test_the_closure_of_a_stop_is_its_own_and_a_pause_is_not():
    """Silence of 50 ms before a "k": after a vowel it belongs to the "k", after a pause it stays a pause."""
    for before, closure in (("a", "K"), ("_:", "SIL")):
        speech = heard((0, before), (11025, "k"), (15000, "a"))
        speech.samples[11025 - 1102 : 11025] = [2, -2] * 551
        names = [PHONES[label] for label in labels(speech, 16_000)]
        assert set(names[44:48]) == {closure}
        assert names[43] == PHONES[phone(before)]
        assert names[49] == "K"
        assert names[-1] == "AE"


def test_a_sound_that_english_has_not_is_told():
    with pytest.raises(DataError, match=r"'ts!'"):
        labels(heard((0, "ts!")), 400)


def test_there_are_as_many_labels_as_the_rule_says(corpus):
    for sample in (*corpus["train"], *corpus["test"]):
        found = numbers(sample)
        assert len(found) == 1 + (len(signal(sample)) - 400) // 160
        assert found.min() >= 0
        assert found.max() < len(PHONES)


def test_silence_is_labelled_where_it_is_silent_and_a_voice_where_it_is_loud(corpus):
    vowels = {"AA", "AE", "AH", "AO", "AW", "AX", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"}
    voiced = [number for number, name in enumerate(PHONES) if name in vowels | set("LMNRWY") | {"NG"}]
    power, label = [], []
    for sample in corpus["train"]:
        frames = np.lib.stride_tricks.sliding_window_view(signal(sample).astype(float) / 32768, 400)[::160]
        power.append(10 * np.log10((frames**2).mean(axis=1) + 1e-12))
        label.append(numbers(sample))
    level, found = np.concatenate(power), np.concatenate(label)
    assert np.isin(found[level > -18], voiced).mean() > 0.9
    assert np.isin(found, voiced).mean() < 0.75  # so that is no matter of course
    # What is silent is a pause, or the closure of a consonant: no vowel, nasal or liquid.
    assert not np.isin(found[level < -90], voiced).any()
    assert (found[level < -90] == 0).sum() > 20
    assert np.median(level[found == 0]) < -60


def test_labels_are_neither_early_nor_late(corpus):
    """The hiss of S, Z and SH, energy above 3 kHz, is found best where the labels are: not a frame to either side."""
    hissing = [PHONES.index(name) for name in ("S", "Z", "SH")]
    shares = {shift: [] for shift in (-2, -1, 0, 1, 2)}
    for sample in corpus["train"]:
        frames = np.lib.stride_tricks.sliding_window_view(signal(sample).astype(float), 400)[::160]
        spectrum = np.abs(np.fft.rfft(frames * np.hanning(400))) ** 2
        high = spectrum[:, 75:].sum(axis=1) / (spectrum.sum(axis=1) + 1)
        for shift, found in shares.items():
            found.extend(high[np.isin(np.roll(numbers(sample), shift), hissing)])
    means = {shift: np.mean(found) for shift, found in shares.items()}
    assert max(means, key=means.get) == 0


@needs_espeak
def test_every_phone_of_the_table_is_spoken_and_every_word_is_in_it():
    """All accents, all word lists: no sound is without a label, and none of the labels is without a sound."""
    lists = (sentences.PERSONS, sentences.THINGS, sentences.VERBS, sentences.PLACES)
    texts = [" ".join(words) for words in (*lists, sentences.TIMES, sentences.CLAUSES)]
    accents = sorted({voice.partition("+")[0] for voice, _ in SPEAKERS})
    assert len(accents) == 8
    lines = [Line(accent, 50, 170, text) for accent in accents for text in texts]
    names = {name for speech in spoken(lines, 0) for name in speech.phonemes if name[:1] != "("}
    assert {name for name in names if phone(name) is None} == set()
    assert {PHONES[phone(name)] for name in names} == set(PHONES)


def test_speakers_sound_different(corpus):
    """The same word list by all voices: no two spectra are alike."""
    lines = [Line(voice, pitch, 170, "the young teacher saw a yellow umbrella") for voice, pitch in SPEAKERS]
    spectra = []
    for speech in spoken(lines, 0):
        frames = np.lib.stride_tricks.sliding_window_view(speech.samples.astype(float), 1024)[::256]
        level = np.log((np.abs(np.fft.rfft(frames * np.hanning(1024))) ** 2).mean(axis=0)[4:300])
        spectra.append(level - level.mean())
    distances = np.array([[np.sqrt(((a - b) ** 2).mean()) for a in spectra] for b in spectra])
    assert distances[~np.eye(len(spectra), dtype=bool)].min() > 0.3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_voices": 1}, "packer.num_voices=1 must be between 2 and 24"),
        ({"num_voices": 25}, "packer.num_voices=25"),
        ({"num_sentences": 0}, "packer.num_sentences=0 must be"),
        ({"num_test": 0}, "packer.num_test=0 must be"),
        ({"seed": -1}, "packer.seed=-1 must be"),
    ],
)
def test_a_number_out_of_range_is_named(options, words):
    with pytest.raises(UsageError, match=words):
        Espeak("", **options)


def test_there_is_no_source():
    with pytest.raises(UsageError, match=r"data=somewhere: .* leave data away"):
        Espeak("somewhere")


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(synthesis, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'stec\[demo-speech\]'"):
        next(Espeak("").samples("train"))


@needs_espeak
def test_a_voice_that_is_not_there_is_one_sentence():
    with pytest.raises(UsageError, match="eSpeak NG failed with status 1: there is no voice 'nowhere'"):
        spoken([Line("nowhere", 50, 170, "hello")], 0)


def test_the_library_is_never_loaded_here(corpus):
    """GPL code stays in its own process."""
    assert "espeakng_loader" not in sys.modules
