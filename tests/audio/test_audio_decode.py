"""The window decoder: views are slices of the recording at the window's speed; short, silent and damaged recordings."""

import io

import numpy as np
import pytest
import soundfile
import torch

from stec.actions import Compose, sample_views
from stec.errors import DataError, UsageError
from stec.rng import make_keys
from stec_audio.actions import TemporalWindow
from stec_audio.decode import Window
from stec_audio.nuisances import Gain
from stec_audio.wav import to_wav

SIZE = 2048


def noise(num, seed=0):
    return np.random.default_rng(seed).integers(-3000, 3000, num).astype(np.int16)


def flac(x, rate=16_000):
    buffer = io.BytesIO()
    soundfile.write(buffer, x, rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def space(**options):
    return Compose({"temporal_window": TemporalWindow(size=SIZE, **options), "gain": Gain()})


def actions(of, rows):
    """[V, P] of windows (start, length, speed, N), with the other parts' parameters at 0."""
    found = torch.zeros(len(rows), of.num_params)
    found[:, of.slices["temporal_window"]] = torch.tensor(rows, dtype=torch.float32)
    return found


def cut(of, raw, actions, **options):
    """The views of a recording."""
    decoder = Window(of, **options)
    return decoder(decoder.open(raw), actions)


@pytest.mark.parametrize("write", [flac, lambda x: to_wav(x, 16_000)])
def test_views_are_the_windows_that_were_drawn(write):
    x, of = noise(40_000), space()
    raw, decoder = write(x), Window(of)
    assert decoder.performs == 1
    assert decoder.open(raw).extent == (40_000,)
    drawn = sample_views(of, make_keys(0, 0, torch.tensor([7])), torch.tensor([[40_000]]), 4)[:, 0]
    views = decoder(decoder.open(raw), drawn)
    starts = drawn[:, of.slices["temporal_window"]][:, 0].long().tolist()
    assert len(set(starts)) == 4
    for view, start in zip(views, starts, strict=True):
        assert view.dtype == torch.int16
        np.testing.assert_array_equal(view, x[None, start : start + SIZE])


def test_the_window_may_stand_after_other_parameters_of_its_space():
    with pytest.raises(UsageError, match="which is 'gain', not a temporal window"):
        Window(Compose({"gain": Gain(), "temporal_window": TemporalWindow(size=SIZE)}))


def test_views_share_one_opening_of_the_bytes(monkeypatch):
    opened = []
    real = soundfile.SoundFile.__init__
    monkeypatch.setattr(
        soundfile.SoundFile, "__init__", lambda self, *a, **k: (opened.append(1), real(self, *a, **k))[1]
    )
    of = space()
    raw = flac(noise(30_000))
    opened.clear()
    cut(of, raw, actions(of, [(20_000, SIZE, 1, 30_000), (5, SIZE, 1, 30_000), (9_000, SIZE, 1, 30_000)]))
    assert len(opened) == 1


def test_the_evaluation_view_is_the_middle_and_all_is_all():
    x, decoder = noise(10_001), Window(space())
    raw = flac(x)
    np.testing.assert_array_equal(decoder.whole(decoder.open(raw))[0], x[3976 : 3976 + SIZE])
    np.testing.assert_array_equal(decoder.all(decoder.open(raw))[0], x)
    np.testing.assert_array_equal(decoder.all(decoder.open(flac(x[:5])))[0], x[:5])


def test_finish_is_full_scale_at_one_on_samples_and_batches():
    decoder = Window(space())
    x = torch.tensor([[-32768, 0, 16384]], dtype=torch.int16)
    assert decoder.finish(x).tolist() == [[-1.0, 0.0, 0.5]]
    assert decoder.finish(x[None]).shape == (1, 1, 3)
    assert decoder.finish(x).dtype == torch.float32


@pytest.mark.parametrize("num", [1, 100, SIZE - 1, SIZE])
def test_a_short_recording_is_padded_at_its_end(num):
    x, of = noise(num), space()
    raw, decoder = flac(x), Window(of)
    assert decoder.open(raw).extent == (num,)
    (view,) = decoder(
        decoder.open(raw), sample_views(of, make_keys(0, 0, torch.tensor([1])), torch.tensor([[num]]), 1)[:, 0]
    )
    for found in (view, decoder.whole(decoder.open(raw))):
        assert found.shape == (1, SIZE)
        np.testing.assert_array_equal(found[0, :num], x)
        assert not found[0, num:].any()


def test_a_short_recording_is_refused_if_told_so():
    decoder = Window(space(speeds=(0.5, 1.5)), short="refuse")
    assert decoder.open(flac(noise(SIZE * 3 // 2))).extent == (SIZE * 3 // 2,)
    with pytest.raises(DataError, match=f"of {SIZE * 3 // 2 - 1} samples, shorter than a window of {SIZE * 3 // 2}"):
        decoder.open(flac(noise(SIZE * 3 // 2 - 1)))


def test_silence_is_refused_only_if_all_drawn_windows_are_silent():
    x = np.zeros(20_000, np.int16)
    x[12_000] = 1
    of = space()
    raw, silent, loud = flac(x), (100, SIZE, 1, 20_000), (11_000, SIZE, 1, 20_000)
    refusing = Window(of, quiet="refuse")
    with pytest.raises(DataError, match="digital silence in every window"):
        refusing(refusing.open(raw), actions(of, [silent, (6_000, SIZE, 1, 20_000)]))
    views = refusing(refusing.open(raw), actions(of, [silent, loud]))
    assert [int(view.count_nonzero()) for view in views] == [0, 1]
    assert not cut(of, raw, actions(of, [silent]))[0].any()
    assert refusing.whole(refusing.open(flac(np.zeros(9000, np.int16)))).shape == (1, SIZE)


@pytest.mark.parametrize("speed", [0.5, 0.97, 1.1, 2.0])
def test_at_another_speed_a_tone_is_higher_or_lower(speed):
    time = np.arange(40_000) / 16_000
    raw = flac(np.rint(10_000 * np.sin(2 * np.pi * 500 * time)).astype(np.int16))
    of = space(speeds=(speed,))
    length = round(SIZE * speed)
    for start in (0, 12_345, 40_000 - length):
        (view,) = cut(of, raw, actions(of, [(start, length, speed, 40_000)]))
        assert view.shape == (1, SIZE)
        expected = 10_000 * np.sin(2 * np.pi * 500 * (start + speed * np.arange(SIZE)) / 16_000)
        assert np.abs(view[0].numpy() - expected)[40:-40].max() < 40
        if start == 12_345:  # within a recording the edges of a window are no edges
            assert np.abs(view[0].numpy() - expected).max() < 40


def test_faster_play_does_not_alias():
    time = np.arange(40_000) / 16_000
    raw = flac(np.rint(10_000 * np.sin(2 * np.pi * 6000 * time)).astype(np.int16))
    of = space(speeds=(2.0,))
    (view,) = cut(of, raw, actions(of, [(10_000, 2 * SIZE, 2.0, 40_000)]))
    assert view.abs().max() < 100  # 12 kHz cannot be told at 16 kHz


def test_other_rates_are_measured_and_cut_at_ours():
    time = np.arange(44_100 * 2) / 44_100
    raw, of = flac(np.rint(10_000 * np.sin(2 * np.pi * 500 * time)).astype(np.int16), 44_100), space()
    decoder = Window(of)
    assert decoder.open(raw).extent == (32_000,)
    (view,) = decoder(decoder.open(raw), actions(of, [(20_000, SIZE, 1, 32_000)]))
    expected = 10_000 * np.sin(2 * np.pi * 500 * (20_000 + np.arange(SIZE)) / 16_000)
    assert np.abs(view[0].numpy() - expected).max() < 40


@pytest.mark.parametrize("raw", [b"", b"no sound at all", flac(noise(9000))[:50]])
def test_damaged_bytes_are_a_data_error_whoever_asks(raw):
    of = space()
    decoder = Window(of)
    for ask in (decoder.whole, decoder.all, lambda opened: decoder(opened, actions(of, [(0, SIZE, 1, 9000)]))):
        with pytest.raises(DataError):
            ask(decoder.open(raw))


def test_limits_are_the_decoders():
    with pytest.raises(DataError, match=r"more than max_seconds=0\.5"):
        Window(space(), max_seconds=0.5).open(flac(noise(9000)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"short": "skip"}, "decoder.short='skip' is unknown: choose pad or refuse"),
        ({"quiet": "no"}, "decoder.quiet='no' is unknown: choose keep or refuse"),
        ({"max_seconds": 0.0}, "decoder.max_seconds=0.0 must be above 0"),
        ({"max_seconds": float("nan")}, "decoder.max_seconds=nan must be above 0"),
    ],
)
def test_slips_name_the_key(options, says):
    with pytest.raises(UsageError, match=says):
        Window(space(), **options)
