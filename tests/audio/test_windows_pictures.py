"""Windows are drawn where the views were cut, the arrow leads from the first to the second, and words say the same."""

import io
import math
import re

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from stec.actions import Compose, sample_views
from stec.errors import UsageError
from stec.rng import make_keys
from stec_audio.actions import TemporalWindow
from stec_audio.decode import Window
from stec_audio.nuisances import Gain
from stec_audio.pictures import _ARROW, _INSET, _TALL, _WIDTH, COLOURS, Windows

GREY = (128, 134, 142)
NUM = 8000


def space(**options):
    return Compose({"gain": Gain(), "temporal_window": TemporalWindow(**{"size": 1000, **options})})


def sound(num=NUM):
    return torch.from_numpy((8000 * np.sin(np.arange(num) * 0.3)).astype(np.int16))[None]


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(int)


def near(picture, colour):
    """bool [H, W]: opaque and of this colour."""
    return (np.abs(picture[..., :3] - np.array(colour)).max(axis=2) < 40) & (picture[..., 3] > 200)


def placed(*starts, length=1000, num=NUM):
    """Actions [V, 5] of windows that start there; the first column is the gain's."""
    return torch.tensor([[0.0, start, length, 1, num] for start in starts])


def drawn(*starts, num=NUM, length=1000):
    views = tuple(sound(1000).float() / 32768 for _ in range(2))
    return pixels(Windows(space()).pair(sound(num), placed(*starts, length=length, num=num), views))


@pytest.mark.parametrize("starts", [(1000, 5000), (6500, 500), (0, 7000), (3000, 3600)])
def test_windows_lie_where_the_views_were_cut(starts):
    picture = drawn(*starts)
    # A row that both frames cross beside the sound: between the wave and the edge of the second window.
    row = picture[_ARROW + _INSET + 6 : _ARROW + _INSET + 8]
    for start, colour in zip(starts, COLOURS, strict=True):
        found = near(row, colour).all(axis=0).nonzero()[0]
        for edge in (start, start + 1000):
            assert np.abs(found - edge / NUM * _WIDTH).min() <= 4


def test_the_sound_has_the_colour_of_the_window_in_which_it_lies():
    picture = drawn(1000, 5000)
    middle = picture[_ARROW + _TALL // 2 - 15 : _ARROW + _TALL // 2 + 15]
    for place, colour in ((1500, COLOURS[0]), (5500, COLOURS[1]), (3000, GREY), (7000, GREY)):
        column = round(place / NUM * _WIDTH)
        assert near(middle[:, column - 5 : column + 6], colour).mean() > 0.8


@pytest.mark.parametrize("starts", [(1000, 5000), (5000, 1000)])
def test_the_arrow_leads_from_the_middle_of_the_first_window_to_that_of_the_second(starts):
    painted = near(drawn(*starts)[_ARROW - 20 : _ARROW - 2], COLOURS[1]).sum(axis=0)
    first, second = (round((start + 500) / NUM * _WIDTH) for start in starts)
    columns = painted.nonzero()[0]
    assert abs(columns.min() - min(first, second)) <= 3
    assert abs(columns.max() - max(first, second)) <= 3
    inwards = 1 if second < first else -1
    assert painted[second + 10 * inwards] > painted[(first + second) // 2]  # the head


def test_a_window_longer_than_its_recording_goes_on_beyond_it():
    picture = drawn(0, 0, num=500)
    heard = near(picture[_ARROW + _INSET + 8 : _ARROW + _TALL - _INSET - 8], COLOURS[1]).any(axis=0)
    assert heard[20 : _WIDTH // 2 - 20].mean() > 0.5
    assert not heard[_WIDTH // 2 + 20 : -20].any()


def test_the_ground_is_clear_and_the_file_small():
    t = space(max_offset=1.0, speeds=(0.9, 1.0, 1.1))
    actions = sample_views(t, make_keys(0, 0, torch.tensor([3])), torch.tensor([[200_000]]), 2)[:, 0]
    noise = (3000 * torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0))).to(torch.int16)
    png = Windows(t).pair(noise, actions, (noise[:, :1000] / 32768, noise[:, 1000:2000] / 32768, noise[:, :1000]))
    picture = pixels(png)
    assert picture[:4, :4, 3].max() == 0
    assert (picture[..., 3] == 0).mean() > 0.3
    assert len(png) < 60_000


def test_silence_is_drawn_too():
    silent = torch.zeros(1, NUM, dtype=torch.int16)
    png = Windows(space()).pair(silent, placed(0, 2000), (torch.zeros(1, 1000), torch.zeros(1, 1000)))
    assert near(pixels(png), GREY).any()


def test_the_answer_is_drawn_on_the_middle_of_the_first_recording():
    pictures = Windows(space())
    picture = pixels(pictures.answer(sound(), sound(1000), {"linear_tt": 2.0, "translation_t": -3.0}))
    row = picture[_ARROW + _INSET + 6 : _ARROW + _INSET + 8]
    for colour, edges in zip(COLOURS, ((3500, 4500), (4000 - 1500 - 1000, 4000 - 1500 + 1000)), strict=True):
        found = near(row, colour).all(axis=0).nonzero()[0]
        assert all(np.abs(found - edge / NUM * _WIDTH).min() <= 4 for edge in edges)


def test_all_of_the_first_window_is_drawn_however_short_the_recording():
    picture = pixels(Windows(space()).answer(sound(100), sound(), {"linear_tt": 1.0, "translation_t": 1.0}))
    row = picture[_ARROW + _INSET + 6 : _ARROW + _INSET + 8]
    for colour, edges in zip(COLOURS, ((0, 1000), (500, 1500)), strict=True):
        found = near(row, colour).all(axis=0).nonzero()[0]
        assert all(np.abs(found - edge / 1500 * _WIDTH).min() <= 4 for edge in edges)
    arrow = near(picture[_ARROW - 20 : _ARROW - 2], COLOURS[1]).any(axis=0).nonzero()[0]
    assert abs(arrow.min() - 500 / 1500 * _WIDTH) <= 3
    assert abs(arrow.max() - 1000 / 1500 * _WIDTH) <= 3


@pytest.mark.parametrize(("moved", "edge"), [(-99.0, 0), (99.0, _WIDTH - 1)])
def test_a_second_window_far_away_is_seen_at_the_border(moved, edge):
    picture = pixels(Windows(space()).answer(sound(1000), sound(), {"translation_t": moved}))
    border = slice(0, 10) if edge == 0 else slice(_WIDTH - 10, _WIDTH)
    assert near(picture[_ARROW + _INSET : _ARROW + _TALL - _INSET, border], COLOURS[1]).any()
    arrow = near(picture[_ARROW - 20 : _ARROW - 2], COLOURS[1]).any(axis=0).nonzero()[0]
    assert min(abs(arrow - edge)) <= 2
    assert near(picture[_ARROW : _ARROW + _TALL], COLOURS[0]).any()


def test_words():
    words = Windows(space()).words
    assert words({"linear_tt": 1.1, "translation_t": 0.42}) == "0.4 half-windows later, 1.10x faster"
    assert words({"linear_tt": 0.5, "translation_t": -1.0}) == "1.0 half-window earlier, 2.00x slower"
    assert words({"translation_t": -12.34}) == "12.3 half-windows earlier"
    assert words({"linear_tt": 1.0, "translation_t": 0.01}) == "nothing"
    assert words({"linear_tt": 1.222, "translation_t": math.nan}) == "1.22x faster"
    assert words({"translation_t": math.nan}) == words({}) == "unknown"


def test_words_and_arrow_say_what_the_space_says():
    t = space(speeds=(0.9, 1.1))
    a, b = (placed(start, length=length) for start, length in ((1000, 900), (2000, 1100)))
    values = dict(zip([c.name for c in t.components], t.relative(a, b).values[0].tolist(), strict=True))
    assert Windows(t).words(values) == "2.4 half-windows later, 1.22x faster"
    assert set(Windows(t).meanings) == set(values)


def test_other_frames_are_told_in_their_own_numbers_and_nothing_is_drawn():
    pictures = Windows(space(frame="allocentric"))
    assert pictures.words({"translation_t": 0.25}) == "translation_t 0.25 half-extents"
    assert pictures.meanings == {}
    above = pixels(pictures.answer(sound(), sound(), {"translation_t": 0.2}))[: _ARROW + _TALL]
    assert near(above, COLOURS[0]).any()
    assert not near(above, COLOURS[1]).any()


def test_the_source_is_the_whole_recording():
    buffer = io.BytesIO()
    soundfile.write(buffer, sound(3000)[0].numpy(), 16_000, format="FLAC", subtype="PCM_16")
    t = Compose({"temporal_window": TemporalWindow(size=1000)})
    assert torch.equal(Windows(t).source(buffer.getvalue(), Window(t)), sound(3000))


def test_refusals():
    with pytest.raises(UsageError, match=re.escape("need a temporal_window, but the actions are: gain.")):
        Windows(Compose({"gain": Gain()}))
