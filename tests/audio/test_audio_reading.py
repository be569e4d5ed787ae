"""Reading: exact numbers, windows that equal slices of the whole, limits before allocation, and faults in words."""

import io
import struct

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from stec.errors import DataError
from stec_audio.reading import Sound, to_int16
from stec_audio.wav import to_wav


def tone(seconds=2.0, rate=16_000, channels=1):
    """int16 [N] or [N, C]: tones with some noise, every channel different."""
    rng = np.random.default_rng(0)
    time = np.arange(int(seconds * rate))[:, None] / rate
    x = 0.3 * np.sin(2 * np.pi * (200 + 100 * np.arange(channels)) * time) + 0.05 * rng.standard_normal(
        (len(time), channels)
    )
    return np.rint(32767 * x).astype(np.int16).squeeze()


def encoded(x, rate=16_000, kind="FLAC", subtype=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, x, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def whole(raw, **options):
    sound = Sound(raw, **options)
    return sound.read(0, sound.num_samples)


WINDOWS = [(0, 1), (0, 2000), (4095, 4097), (12_345, 20_000), (31_000, 32_000), (31_999, 32_000), (500, 500)]


@pytest.mark.parametrize("kind", ["FLAC", "WAV", "WAVEX"])
def test_16_bits_come_through_exactly_and_a_window_is_a_slice(kind):
    x = tone()
    raw = encoded(x, kind=kind, subtype="PCM_16")
    sound = Sound(raw)
    assert (sound.native_rate, sound.channels, sound.num_samples) == (16_000, 1, len(x))
    np.testing.assert_array_equal(whole(raw), x)
    for start, stop in [*WINDOWS, *reversed(WINDOWS)]:  # one opening, forwards and back
        found = sound.read(start, stop)
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found, x[start:stop])


@pytest.mark.parametrize("kind", ["OGG", "MP3"])
def test_a_window_of_a_lossy_file_is_a_slice_of_the_whole(kind, capfd):
    raw = encoded(tone() / 32768, kind=kind)
    full = whole(raw)
    np.testing.assert_array_equal(full, to_int16(soundfile.SoundFile(io.BytesIO(raw)).read(dtype="float32")))
    sound = Sound(raw)
    for start, stop in [*WINDOWS, *reversed(WINDOWS)]:
        np.testing.assert_array_equal(sound.read(start, stop), full[start:stop])
    assert capfd.readouterr().err == ""  # an MP3 that is entered in the middle complains there


def test_a_long_stretch_is_read_piece_by_piece_without_a_seam():
    x = tone(14)
    for raw in (encoded(x), encoded(x, kind="MP3")):
        full = soundfile.SoundFile(io.BytesIO(raw)).read(dtype="int16" if raw[:4] == b"fLaC" else "float32")
        np.testing.assert_array_equal(whole(raw), full if full.dtype == np.int16 else to_int16(full))


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_window_in_the_last_page_of_vorbis_is_a_slice_of_the_whole(rate):
    """Its last page says where it ends, but not where it begins."""
    for seed in range(3):
        rng, time = np.random.default_rng(seed), np.arange(3 * rate) / rate
        speech = 0.2 * rng.standard_normal(len(time)) * np.sin(2 * np.pi * 3 * time) ** 2
        raw = encoded(np.concatenate([speech, np.zeros(rate)]), rate, kind="OGG")
        full = soundfile.read(io.BytesIO(raw), dtype="float32")[0]
        for start in range(rate, 4 * rate - 500, 419):
            np.testing.assert_array_equal(Sound(raw)._stored(start, start + 500), full[start : start + 500])


def test_a_window_of_vorbis_far_from_the_end_is_not_decoded_from_the_beginning(monkeypatch):
    x = np.random.default_rng(0).standard_normal(16_000) / 10
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 16_000, 1, format="OGG") as stream:
        for _ in range(60):
            stream.write(x)
    sound, read = Sound(file.getvalue()), []
    plain = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, n, **k: (read.append(n), plain(self, n, **k))[1])
    sound.read(500_000, 520_480)
    sound.read(900_000, 920_480)
    assert read == [20_480, 900_000 - (960_000 - 2**18), 20_480]


def test_a_window_of_flac_costs_no_more_than_its_bytes(monkeypatch):
    raw, read = encoded(tone(60)), []

    class Counted(io.BytesIO):
        def readinto(self, buffer):
            read.append(super().readinto(buffer))
            return read[-1]

    monkeypatch.setattr("stec_audio.reading.io.BytesIO", Counted)
    Sound(raw).read(500_000, 520_480)
    assert 0 < sum(read) < len(raw) / 5


def test_16_bits_in_a_wav_are_read_without_a_decoder(monkeypatch):
    x = tone()
    raw = encoded(x, kind="WAV")
    monkeypatch.delattr("stec_audio.reading._Stream")
    np.testing.assert_array_equal(Sound(raw).read(500, 20_980), x[500:20_980])


@pytest.mark.parametrize("kind", ["FLAC", "WAV"])
def test_stereo_is_averaged(kind):
    x = tone(channels=2)
    expected = np.rint(x.astype(np.float64).mean(axis=1))
    np.testing.assert_array_equal(whole(encoded(x, kind=kind)), expected)
    assert Sound(encoded(x, kind=kind)).channels == 2


def test_24_bits_are_rounded():
    fine = np.random.default_rng(0).integers(-(2**23), 2**23, 5000).astype(np.int32) << 8
    for kind in ("FLAC", "WAV"):
        found = whole(encoded(fine, kind=kind, subtype="PCM_24"))
        np.testing.assert_array_equal(found, np.rint(fine / 65536).clip(-32768, 32767))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_another_rate_is_resampled_and_a_window_is_a_slice_of_that(rate):
    x = tone(3.01, rate)
    raw = encoded(x, rate)
    full = torchaudio.functional.resample(torch.from_numpy(x / 32768), rate, 16_000).numpy()  # in float64
    sound, own = Sound(raw), whole(raw)
    assert sound.num_samples == len(full) == len(own)
    for start, stop in [(0, 20_480), (1, 50), (12_345, 32_825), (len(full) - 7, len(full)), (0, len(full))]:
        found = sound.read(start, stop)
        for expected, share in ((to_int16(full), 0.98), (own, 0.999)):
            # The same sums in another order: the last bits of float32 round few numbers the other way.
            assert np.abs(found.astype(int) - expected[start:stop]).max() <= 1
            assert (found == expected[start:stop]).mean() > share


def test_a_tone_keeps_its_pitch_and_height_at_another_rate():
    time = np.arange(3 * 44_100) / 44_100
    found = whole(encoded(0.5 * np.sin(2 * np.pi * 1000 * time), 44_100)) / 32768
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(len(found)) / 16_000)
    assert np.abs(found - expected)[100:-100].max() < 2e-3


def test_beyond_full_scale_is_clipped_and_what_is_no_number_is_refused():
    x = np.array([0.5, 1e30, -1e30, 1.5, -2.0, 0.0, 3e38], np.float32)
    expected = [16384, 32767, -32768, 32767, -32768, 0, 32767]
    assert whole(encoded(x, kind="WAV", subtype="FLOAT")).tolist() == expected
    both = encoded(np.stack([x, x], 1), kind="WAV", subtype="FLOAT")
    assert whole(both).tolist() == expected
    for bad in (np.nan, np.inf):
        x[3] = bad
        raw = encoded(x, kind="WAV", subtype="FLOAT")
        with pytest.raises(DataError, match=r"NaN or infinity between the samples 0 and 7 of 7\.$"):
            whole(raw)
        assert Sound(raw).read(4, 6).tolist() == [-32768, 0]


@pytest.mark.parametrize("kind", ["FLAC", "WAV"])
@pytest.mark.parametrize("num", [1, 100])
def test_very_short_is_no_fault(kind, num):
    x = tone()[:num]
    np.testing.assert_array_equal(whole(encoded(x, kind=kind)), np.atleast_1d(x))
    assert Sound(encoded(x, 44_100, kind=kind)).num_samples == -(-num * 160 // 441)
    assert len(whole(encoded(x, 44_100, kind=kind))) == -(-num * 160 // 441)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "a recording of 0 bytes: is the sample empty"),
        (to_wav(np.empty(0, np.int16), 16_000), "a recording of 0 samples"),
        (b"To be, or not to be. " * 40, r"not a recording of a known format \(840 bytes\): Format not recognised\.$"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "not a recording of a known format"),
        (b"fLaC" + bytes(50), "not a recording of a known format"),
        (encoded(tone(0.1), kind="AIFF"), "in the format AIFF: one of flac, wav, mp3, ogg was expected"),
        (encoded(tone(0.1, 44_101), 44_101), "44101 Hz has no simple ratio to 16000 Hz"),
        (encoded(tone(0.1), 500, kind="WAV"), "a sampling rate of 500 Hz: from 1000 to 384000 Hz was expected"),
        (encoded(tone(0.1, channels=33), kind="WAV"), "a recording of 33 channels, more than 32: not decoded"),
    ],
)
def test_what_is_no_recording_is_told_in_a_sentence(raw, says):
    with pytest.raises(DataError, match=says):
        Sound(raw)


def test_an_absurd_rate_is_refused_before_anything_is_allocated():
    raw = bytearray(to_wav(tone(0.1), 16_000))
    raw[24:28] = struct.pack("<I", 2**31 - 1)
    with pytest.raises(DataError, match="a sampling rate of 2147483647 Hz"):
        Sound(bytes(raw))


def lying(raw, num):
    """A FLAC whose header promises so many samples."""
    bits = int.from_bytes(raw[18:26], "big")
    return raw[:18] + (bits >> 36 << 36 | num).to_bytes(8, "big") + raw[26:]


def test_a_lying_flac_header():
    raw = encoded(tone())
    with pytest.raises(DataError, match="187,500 seconds, more than max_seconds=3600: not decoded"):
        Sound(lying(raw, 3_000_000_000))
    with pytest.raises(DataError, match="does not say how long"):
        Sound(lying(raw, 0))
    with pytest.raises(DataError, match=r"of 2 seconds, more than max_seconds=1\.5"):
        Sound(raw, max_seconds=1.5)
    longer = Sound(lying(raw, 40_000))
    assert longer.num_samples == 40_000
    np.testing.assert_array_equal(longer.read(100, 20_000), tone()[100:20_000])
    with pytest.raises(DataError, match=r"truncated|damaged"):
        longer.read(30_000, 40_000)
    with pytest.raises(DataError, match=r"truncated|damaged"):
        longer.check_end()


@pytest.mark.parametrize("keep", [0.5, 0.99])
@pytest.mark.parametrize("kind", ["FLAC", "MP3"])
def test_a_truncated_stream_is_refused_where_it_breaks(kind, keep):
    full = encoded(tone(4), kind=kind)
    sound = Sound(full[: int(keep * len(full))])
    assert sound.num_samples == 64_000
    np.testing.assert_array_equal(sound.read(1000, 3000), whole(full)[1000:3000])
    with pytest.raises(DataError, match=r"truncated|damaged between the samples"):
        sound.read(60_000, 64_000)
    with pytest.raises(DataError, match=r"truncated|damaged between the samples"):
        Sound(full[: int(keep * len(full))]).check_end()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_truncated_wav_is_known_from_its_header(subtype):
    raw = encoded(tone() / 32768, kind="WAV", subtype=subtype)
    for lost in (1, len(raw) // 2):
        with pytest.raises(DataError, match=f"truncated: by its header, {lost} bytes are missing"):
            Sound(raw[:-lost])


def test_a_wav_written_into_a_pipe_goes_to_its_end():
    raw = bytearray(to_wav(tone(), 16_000))
    raw[40:44] = raw[4:8] = b"\xff\xff\xff\xff"
    np.testing.assert_array_equal(whole(bytes(raw)), tone())


def test_other_chunks_of_a_wav_are_passed_over():
    raw = to_wav(tone(), 16_000)
    odd = b"LIST\x03\0\0\0abc\0"
    raw = raw[:4] + struct.pack("<I", len(raw) - 8 + 2 * len(odd)) + raw[8:36] + odd + raw[36:] + odd
    np.testing.assert_array_equal(whole(raw), soundfile.read(io.BytesIO(raw), dtype="int16")[0])
    np.testing.assert_array_equal(whole(raw), tone())


def test_beyond_the_recording_there_is_nothing_to_read():
    sound = Sound(encoded(tone()))
    for start, stop in ((-1, 5), (0, 32_001), (6, 5)):
        with pytest.raises(IndexError):
            sound.read(start, stop)
