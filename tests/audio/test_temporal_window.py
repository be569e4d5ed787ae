"""The law of the windows, the group of their actions, and the warp that carries one view into the other."""

import io
import math

import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from stec import affine
from stec.actions import Compose, sample_views
from stec.bins import Bins
from stec.errors import UsageError
from stec.rng import make_keys
from stec_audio.actions import TemporalWindow
from stec_audio.decode import Window

SPEEDS = (0.9, 1.0, 1.1)


def draw(space, num, extent=1000, view=0, seed=0):
    return space.sample(make_keys(seed, 0, torch.arange(num)), torch.full((num, 1), extent), view)


def square(entries):
    """[B, 2] -> [B, 2, 2]."""
    return affine.homogeneous(entries[:, :1, None], entries[:, 1:])


# -- what is drawn -----------------------------------------------------------------------------------------------------


def test_starts_are_uniform_over_all_whole_samples():
    starts = draw(TemporalWindow(size=91), 20_000, extent=100)[:, 0]
    counts = torch.bincount(starts.long(), minlength=10)
    assert len(counts) == 10
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_starts_are_multiples_of_step_and_reach_the_end():
    starts = draw(TemporalWindow(size=100, step=16), 2000, extent=260)[:, 0]
    assert torch.equal(starts.unique(), torch.arange(0, 161, 16).float())


@given(
    st.integers(1, 300),
    st.integers(1, 600),
    st.integers(1, 40),
    st.none() | st.floats(0, 5),
    st.sampled_from([(1.0,), SPEEDS, (0.5, 2.0)]),
)
@settings(max_examples=150, deadline=None)
def test_windows_lie_within_their_recording(size, extent, step, max_offset, speeds):
    space = TemporalWindow(size=size, step=step, max_offset=max_offset, speeds=speeds)
    for view in range(2):
        start, length, speed, num = draw(space, 40, extent, view).unbind(1)
        assert (start >= 0).all()
        assert (start % step == 0).all()
        assert ((start + length <= extent) | ((start == 0) & (length > extent))).all()
        assert (num == extent).all()
        assert (length >= 1).all()
        assert ((length - (size * speed)).abs() <= 0.5001).all()


@pytest.mark.parametrize("speeds", [(1.0,), SPEEDS])
def test_later_views_stay_near_view_0_and_fill_the_allowed_range(speeds):
    space = TemporalWindow(size=200, max_offset=1.5, speeds=speeds)
    a, b = draw(space, 4000, 100_000), draw(space, 4000, 100_000, view=1)
    offsets = space.relative(a, b).values[:, 1]
    assert offsets.abs().max() <= 1.5
    counts = torch.histc(offsets[(a[:, 0] > 500) & (a[:, 0] < 99_000)], bins=12, min=-1.5, max=1.5)
    assert chisquare(counts.numpy()).pvalue > 1e-3
    assert chisquare(torch.histc(a[:, 0], bins=10, min=0, max=99_800).numpy()).pvalue > 1e-3


def test_where_no_allowed_start_is_left_the_nearest_is_taken():
    coarse = TemporalWindow(size=100, step=70, max_offset=0.0, speeds=(0.5, 1.0))
    a, b = draw(coarse, 500), draw(coarse, 500, view=1)
    middles = (a[:, 0] + a[:, 1] / 2, b[:, 0] + b[:, 1] / 2)
    at_the_end = b[:, 0] + 70 + b[:, 1] > 1000
    assert ((middles[0] - middles[1]).abs()[~at_the_end] <= 35).all()
    assert (draw(TemporalWindow(size=100, max_offset=0.0), 50, view=1) == draw(TemporalWindow(size=100), 50)).all()


def test_a_view_is_a_function_of_its_key_alone():
    space = TemporalWindow(size=100, max_offset=1.0, speeds=SPEEDS)
    keys, extent = make_keys(3, 1, torch.arange(50)), torch.randint(50, 5000, (50, 1))
    together = space.sample(keys, extent, 1)
    alone = torch.cat([space.sample(keys[i : i + 1], extent[i : i + 1], 1) for i in reversed(range(50))])
    assert torch.equal(together, alone.flip(0))
    assert not torch.equal(together, space.sample(make_keys(3, 2, torch.arange(50)), extent, 1))
    assert not torch.equal(together, space.sample(keys, extent, 2))


def test_short_recordings_are_heard_from_the_start_and_not_learnt_from():
    space = TemporalWindow(size=100, max_offset=1.0)
    extent = torch.tensor([[99], [100], [101], [1]])
    actions = sample_views(space, make_keys(0, 0, torch.arange(4)), extent, 2)
    assert (actions[:, [0, 1, 3], 0] == 0).all()
    assert space.trusted(*actions).tolist() == [False, True, True, False]
    assert space.relative(*actions).valid.tolist() == [[False] * 2, [True] * 2, [True] * 2, [False] * 2]


def test_starts_beyond_float32_are_rounded_into_the_recording():
    last = 2**25 - 1  # float32 holds 2^25 - 2 and 2^25
    start = draw(TemporalWindow(size=100, step=last), 50, last + 100)[:, 0]
    assert start.unique().tolist() == [0, last - 1]


# -- the action --------------------------------------------------------------------------------------------------------


def test_the_matrix_is_that_of_the_window():
    action = torch.tensor([[30.0, 20, 1, 100]])
    expected = torch.tensor([[0.2, 40 / 50 - 1], [0, 1]], dtype=torch.float64)
    torch.testing.assert_close(TemporalWindow(size=20).matrix(action)[0], expected)


@pytest.mark.parametrize("speeds", [(1.0,), SPEEDS])
def test_group_laws_of_the_egocentric_action(speeds):
    space = TemporalWindow(size=64, speeds=speeds)
    one, two, three = (draw(space, 300, 900, view) for view in range(3))

    def matrix(a, b):
        return square(space.relative(a, b).values.double())

    torch.testing.assert_close(matrix(one, three), matrix(one, two) @ matrix(two, three), rtol=0, atol=1e-5)
    torch.testing.assert_close(matrix(two, one), affine.invert(matrix(one, two)), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(matrix(one, one), torch.eye(2).double().expand(300, 2, 2), rtol=0, atol=1e-7)


@pytest.mark.parametrize("speeds", [(1.0,), SPEEDS])
def test_offset_and_ratio_are_those_of_the_windows_whatever_the_recording(speeds):
    space = TemporalWindow(size=200, speeds=speeds)
    a, b = draw(space, 100), draw(space, 100, view=1)
    longer = [torch.cat([x[:, :3], torch.full((100, 1), 77_777.0)], dim=1) for x in (a, b)]
    values = space.relative(a, b).values
    middle = [x[:, 0] + x[:, 1] / 2 for x in (a, b)]
    torch.testing.assert_close(values[:, 0], b[:, 1] / a[:, 1])
    torch.testing.assert_close(values[:, 1], (middle[1] - middle[0]) / (a[:, 1] / 2), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(space.relative(*longer).values, values, rtol=1e-5, atol=1e-5)


def test_three_speeds_give_seven_ratios_with_a_bin_each():
    space = TemporalWindow(size=20_480, speeds=SPEEDS)
    speed, offset = space.components
    assert [round(level, 3) for level in speed.levels] == [0.818, 0.9, 0.909, 1.0, 1.1, 1.111, 1.222]
    copy = space.relative(draw(space, 2000, 200_000), draw(space, 2000, 200_000, view=1))
    bins = Bins([speed, offset], copy.values.double(), copy.valid, kind="equal_mass", num_bins=6)
    assert bins.num_bins.tolist() == [7, 6]
    number = bins.assign(copy.values)[:, 0]
    torch.testing.assert_close(torch.tensor(speed.levels)[number], copy.values[:, 0], rtol=1e-6, atol=0)
    # (1, 1), (.9, .9) and (1.1, 1.1) share the ratio 1.
    assert chisquare(torch.bincount(number).numpy(), [2000 * n / 9 for n in (1, 1, 1, 3, 1, 1, 1)]).pvalue > 1e-3
    assert TemporalWindow(size=20_480).components[0].levels == ()


def test_the_declared_range_holds_both_ways():
    space = TemporalWindow(size=200, max_offset=1.5, speeds=(0.5, 1.0))
    low, high = space.components[1].low, space.components[1].high
    assert (low, high) == (-3.0, 3.0)
    a, b = draw(space, 4000, 100_000), draw(space, 4000, 100_000, view=1)
    back = space.relative(b, a).values[:, 1]
    assert 2.5 < back.abs().max() <= high
    assert TemporalWindow(size=200).components[1].high == math.inf


def test_allocentric_actions_are_differences_in_halves_of_the_recording():
    space = TemporalWindow(size=20, frame="allocentric", speeds=(1.0, 2.0))
    a, b = torch.tensor([[30.0, 20, 1, 100]]), torch.tensor([[10.0, 40, 2, 100]])
    torch.testing.assert_close(space.relative(a, b).values, torch.tensor([[0.2, -0.2]]))
    assert {c.unit for c in space.components} == {"half-extents"}
    assert all(not c.levels for c in space.components)


# -- performing it -----------------------------------------------------------------------------------------------------


def smooth(t):
    """A recording that is known everywhere, t in samples."""
    return torch.sin(0.021 * t + 1) + 0.4 * torch.cos(0.013 * t) + 0.2 * torch.sin(0.034 * t)


def test_cutting_at_speed_1_is_slicing():
    space, x = TemporalWindow(size=64), torch.randn(20, 1, 500)
    action = draw(space, 20, 500)
    expected = torch.stack([one[:, s : s + 64] for one, s in zip(x, action[:, 0].long().tolist(), strict=True)])
    assert torch.equal(space.act(x, action, 0), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(space.act(x, action, 0), expected)


def test_other_speeds_sample_the_recording_where_the_matrix_says():
    space = TemporalWindow(size=100, speeds=SPEEDS)
    action, time = draw(space, 60, 1000), torch.arange(1000, dtype=torch.float64)
    u = (torch.arange(100, dtype=torch.float64) + 0.5) / 50 - 1
    p = affine.apply(space.matrix(action), u[None, :, None].expand(60, -1, 1))[:, :, 0]
    seen = space.act(smooth(time).expand(60, 1, -1), action, 0)[:, 0]
    # The first and last sample at a low speed lie half a step outside of the window, and are held.
    error = (seen - smooth((p + 1) * 500 - 0.5)).abs()
    assert error[:, 1:-1].max() < 1e-3
    assert error.max() < 5e-3


@pytest.mark.parametrize("speeds", [(1.0,), SPEEDS])
def test_warping_view_1_with_the_action_gives_view_2(speeds):
    """View 1 is twice as long as the views of the space, and view 2 lies inside of it."""
    space, time = TemporalWindow(size=128, speeds=speeds, max_offset=0.8), torch.arange(3000, dtype=torch.float64)
    x = smooth(time).expand(50, 1, -1)
    b = draw(space, 50, 2000, view=1)
    b[:, 0] += 500
    long = TemporalWindow(size=512)
    offset = torch.linspace(-150, 150, 50).round()
    a = torch.stack([b[:, 0] - 200 + offset, torch.full((50,), 512.0), torch.ones(50), torch.full((50,), 3000.0)], 1)
    b[:, 3] = 3000
    first, second = long.act(x, a, 0)[:, 0], space.act(x, b, 1)[:, 0]
    felt = square(space.relative(a, b).values.double())
    u = (torch.arange(128, dtype=torch.float64) + 0.5) / 64 - 1
    place = (affine.apply(felt, u[None, :, None].expand(50, -1, 1))[:, :, 0] + 1) * 256 - 0.5
    left = place.floor().long()
    inside = (left >= 0) & (left < 511)
    assert inside.all()
    warped = first.gather(1, left) + (place - left) * (first.gather(1, left + 1) - first.gather(1, left))
    assert (warped - second)[:, 1:-1].abs().max() < 1e-3


def test_a_decoder_performs_what_act_performs():
    """On a recording without high notes, which the filter of the decoder would take off."""
    space, time = TemporalWindow(size=300, speeds=SPEEDS), torch.arange(2000, dtype=torch.float64)
    whole = (smooth(time) * 12_000).round().to(torch.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, whole.numpy(), 16_000, format="WAV", subtype="PCM_16")
    decoder, actions = Window(Compose({"temporal_window": space})), draw(space, 12, 2000)
    begun = decoder.finish(torch.stack(decoder(decoder.open(buffer.getvalue()), actions)))
    expected = space.act(decoder.finish(whole).expand(12, 1, -1), actions, 0)
    assert (begun - expected)[:, :, 1:-1].abs().max() < 2e-3
    at_speed_1 = actions[:, 2] == 1
    assert torch.equal(begun[at_speed_1], expected[at_speed_1])
    assert 0 < at_speed_1.sum() < 12


def test_what_lies_beyond_the_recording_is_silence():
    space, x = TemporalWindow(size=8), torch.arange(1.0, 6.0).view(1, 1, 5)
    seen = space.act(x, draw(space, 1, 5), 0)
    assert seen.tolist() == [[[1, 2, 3, 4, 5, 0, 0, 0]]]


def test_begun_views_stay_as_they_are_and_compose_leaves_them_alone():
    space, x = TemporalWindow(size=64, speeds=SPEEDS), torch.randn(9, 1, 64)
    action = draw(space, 9, 500)
    assert torch.equal(space.act(x, action, 0), x)
    assert torch.equal(Compose({"temporal_window": space}).act(x, action, 0, start=1), x)
    own = draw(TemporalWindow(size=64), 9, 64)
    assert torch.equal(space.act(x, own, 0), x)


def test_still_is_the_middle_and_all_of_a_recording_as_long_as_a_view():
    space = TemporalWindow(size=64)
    action = space.still(torch.tensor([[501], [64], [20]]))
    assert action.tolist() == [[218, 64, 1, 501], [0, 64, 1, 64], [0, 64, 1, 20]]
    torch.testing.assert_close(space.matrix(action)[1], torch.eye(2).double())


# -- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 0}, "actions.temporal_window.size=0"),
        ({"speeds": []}, "speeds"),
        ({"speeds": [1.0, 0.0]}, "speeds"),
        ({"speeds": [1.005]}, "hundredths"),
        ({"speeds": [1.1, 1.1]}, "twice"),
        ({"step": 0}, "step=0"),
        ({"max_offset": -1.0}, "max_offset=-1.0"),
        ({"max_offset": math.nan}, "max_offset"),
        ({"frame": "published"}, "ego, allocentric"),
    ],
)
def test_refusals(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        TemporalWindow(**{"size": 32, **options})
