"""Levels, ratios and bands are measured on what comes out; performing draws nothing."""

import math

import pytest
import torch

from stec.errors import UsageError
from stec.rng import make_keys
from stec_audio.nuisances import BandPass, Gain, Noise

RATE = 16_000
ALL = (Gain, Noise, BandPass)


def draw(space, num, view=0, seed=0):
    return space.sample(make_keys(seed, 0, torch.arange(num)), torch.full((num, 1), 20_000), view)


def sounds(num, length=4000, seed=0):
    return 0.1 * torch.randn(num, 1, length, generator=torch.Generator().manual_seed(seed))


def tones(*hz, length=8000):
    time = torch.arange(length) / RATE
    return torch.stack([torch.sin(2 * math.pi * f * time) for f in hz])[:, None]


def level(x):
    """dB of the mean square [B]."""
    return 10 * x.double().square().mean(dim=(1, 2)).log10()


def test_gain_changes_the_level_by_so_many_db():
    space, x = Gain(db=(-20.0, 10.0), p=0.8), sounds(200)
    action = draw(space, 200)
    torch.testing.assert_close((level(space.act(x, action, 0)) - level(x)).float(), action[:, 0], rtol=0, atol=1e-4)
    told = action[action != 0]
    assert told.min() > -20
    assert told.max() < 10
    assert told.mean() == pytest.approx(-5, abs=2)


def test_noise_has_the_ratio_that_was_drawn_whatever_the_level():
    space, x = Noise(snr=(-5.0, 40.0), p=1.0), sounds(50) * torch.logspace(-2, 1, 50)[:, None, None]
    action = draw(space, 50)
    noise = space.act(x, action, 0) - x
    # Below the samples float32 rounds: the difference is less exact than the noise.
    torch.testing.assert_close((level(x) - level(noise)).float(), action[:, 1], rtol=0, atol=0.01)


@pytest.mark.parametrize("length", [4001, 16_384])
def test_noise_is_white_normal_and_another_one_for_every_name(length):
    space = Noise(snr=(0.0, 0.0), p=1.0)
    x = torch.ones(64, 1, length)
    noise = (space.act(x, draw(space, 64), 0) - x)[:, 0].double()
    assert noise.mean().abs() < 4 / noise.numel() ** 0.5
    assert noise.pow(4).mean() == pytest.approx(3, abs=0.1)
    assert (noise.abs() < 1).double().mean() == pytest.approx(0.6827, abs=0.005)
    spectrum = torch.fft.rfft(noise).abs().square().mean(dim=0)[1:-1] / length
    assert spectrum.mean() == pytest.approx(1, abs=0.02)
    for band in spectrum.chunk(8):
        assert band.mean() == pytest.approx(1, abs=0.06)
    alike = torch.corrcoef(noise) - torch.eye(64)
    assert alike.abs().max() < 6 / length**0.5


def test_silence_stays_silent():
    space = Noise(p=1.0)
    assert not space.act(torch.zeros(3, 1, 100), draw(space, 3), 0).any()


def test_the_band_is_kept_and_what_lies_beyond_falls_by_24_db_per_octave():
    space = BandPass(low=(200.0, 200.0), high=(3200.0, 3200.0), p=1.0)
    x = tones(50, 100, 200, 400, 800, 1600, 3200, 6400)
    fell = level(x) - level(space.act(x, draw(space, 8), 0))
    half = 10 * math.log10(2)
    expected = torch.tensor([48.2, 24.1, half, 0.02, 0, 0.02, half, 24.1]).double()
    torch.testing.assert_close(fell[1:], expected[1:], rtol=0, atol=0.6)
    assert fell[0] > 30  # what is left are the beginning and the end of the tone


def test_the_band_pass_shifts_nothing_in_time_and_the_ends_do_not_meet():
    space, x = BandPass(low=(60.0, 60.0), high=(5000.0, 5000.0), p=1.0), torch.zeros(2, 1, 4000)
    x[0, 0, 2000], x[1, 0, 0] = 1, 1
    seen = space.act(x, draw(space, 2), 0)[:, 0]
    assert seen[0].argmax() == 2000
    torch.testing.assert_close(seen[0, 1990:2000], seen[0, 2001:2011].flip(0), rtol=0, atol=1e-6)
    assert seen[1, -500:].abs().max() < 1e-3 * seen[1, 0]


def test_every_sample_has_its_own_band():
    space = BandPass(low=(100.0, 300.0), high=(1000.0, 6000.0), p=1.0)
    action = draw(space, 100)
    assert ((action[:, 0] >= 100) & (action[:, 0] <= 300) & (action[:, 1] >= 1000) & (action[:, 1] <= 6000)).all()
    assert action[:, 1].log().std() == pytest.approx(math.log(6) / 12**0.5, rel=0.15)
    edges = tones(*action[:30, 1].tolist())
    torch.testing.assert_close(
        level(edges) - level(space.act(edges, action[:30], 0)), torch.full((30,), 3.01).double(), rtol=0, atol=0.2
    )


# -- what all of them promise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ALL)
def test_p_is_the_share_of_samples_that_are_touched(make):
    space, x = make(p=0.3), sounds(1000, 64)
    action = draw(space, 1000)
    changed = (space.act(x, action, 0) != x).any(dim=2)[:, 0]
    assert torch.equal(changed, space.touches(action))
    assert changed.double().mean() == pytest.approx(0.3, abs=0.05)
    assert not space.touches(draw(make(p=0.0), 100)).any()
    assert space.touches(draw(make(p=1.0), 100)).all()


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("length", [1, 37, 4000])
def test_performing_is_deterministic_and_does_not_depend_on_the_batch(make, length):
    space, x = make(p=0.7), sounds(12, length)
    action, before = draw(space, 12), x.clone()
    state = torch.get_rng_state()
    together = space.act(x, action, 0)
    assert torch.equal(x, before)
    assert together.shape == x.shape
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(space.act(x, action, 1), together)
    alone = torch.cat([space.act(x[i : i + 1], action[i : i + 1], 0) for i in range(12)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)
    # An accelerator changes all, and drops what is not touched.
    all_at_once = torch.where(space.touches(action)[:, None, None], space.change(x, action), x)
    torch.testing.assert_close(all_at_once, together, rtol=0, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(space.act(x, action, 0), together, rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", ALL)
def test_actions_are_functions_of_their_keys(make):
    space = make()
    action = draw(space, 60)
    assert torch.equal(space.sample(make_keys(0, 0, torch.tensor([7])), torch.tensor([[5]]), 0)[0], action[7])
    assert not torch.equal(draw(space, 60, view=1), action)
    assert not torch.equal(draw(space, 60, seed=1), action)
    assert action.shape == (60, space.num_params)
    assert action.dtype == torch.float32


@pytest.mark.parametrize("make", ALL)
def test_nuisances_are_performed_and_never_predicted(make):
    space = make()
    action = draw(space, 5)
    assert space.components == ()
    assert space.relative(action, action).values.shape == (5, 0)
    assert space.trusted(action, action).all()


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (Gain, {"db": (3.0, -3.0)}, "actions.gain.db="),
        (Gain, {"db": (3.0,)}, "actions.gain.db="),
        (Gain, {"p": 1.5}, "actions.gain.p=1.5"),
        (Noise, {"snr": (0.0, math.inf)}, "actions.noise.snr="),
        (BandPass, {"low": (0.0, 100.0)}, "actions.band_pass.low="),
        (BandPass, {"low": (100.0, 3000.0)}, "below"),
        (BandPass, {"high": (4000.0, 9000.0)}, "8000 Hz"),
    ],
)
def test_refusals(make, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        make(**options)
