"""A slow twin in numpy and scipy gives the same numbers."""

import numpy as np
import pytest
import torch
from scipy.fft import dct
from scipy.signal import get_window

from stec.errors import UsageError
from stec_audio.mfcc import Mfcc


def sound(num, length, seed=0):
    noise = torch.randn(num, 1, length, generator=torch.Generator().manual_seed(seed))
    return 0.1 * noise * torch.linspace(0.001, 1, length)


def mel_bands(num):
    """Triangles of equal width on the HTK mel scale, [201, num]."""
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), num + 2)
    low, middle, high = (700 * (10 ** (mels[i : i + num] / 2595) - 1) for i in range(3))
    hz = np.linspace(0, 8000, 201)[:, None]
    return np.maximum(0, np.minimum((hz - low) / (middle - low), (high - hz) / (high - middle)))


def slopes(frames):
    """Least-squares slope over 5 frames, the outermost repeated, [T, D]."""
    padded = np.pad(frames, ((2, 2), (0, 0)), mode="edge")
    return sum(n * padded[2 + n : len(frames) + 2 + n] for n in (-2, -1, 1, 2)) / 10


def twin(samples, coefficients=13, num_mels=40, deltas=2):
    num = 1 + (len(samples) - 400) // 160
    windows = np.stack([samples[160 * i : 160 * i + 400] for i in range(num)]) * get_window("hann", 400)
    power = np.abs(np.fft.rfft(windows)) ** 2 @ mel_bands(num_mels)
    loud = 10 * np.log10(np.maximum(power, 1e-10))
    loud = np.maximum(loud, loud.max() - 80)
    orders = [dct(loud, norm="ortho")[:, :coefficients]]
    for _ in range(deltas):
        orders.append(slopes(orders[-1]))
    return np.concatenate(orders, axis=1)


@pytest.mark.parametrize("options", [{}, {"coefficients": 20, "num_mels": 64, "deltas": 1}, {"deltas": 0}])
def test_numbers_are_those_of_the_twin(options):
    names = {"coefficients": "num_coefficients"}
    encoder, x = Mfcc(**{names.get(k, k): v for k, v in options.items()}), sound(3, 5000)
    features = encoder(x)
    expected = np.stack([twin(one[0].double().numpy(), **options) for one in x])
    assert features.local.shape[2] == encoder.dims["local"] == expected.shape[2]
    np.testing.assert_allclose(features.local.numpy(), expected, rtol=0, atol=5e-3)
    assert features.context is features.local
    torch.testing.assert_close(features.pooled, features.local.mean(dim=1))
    assert torch.equal(features.layers["last"], features.local[:, -1])


@pytest.mark.parametrize(("length", "frames"), [(400, 1), (559, 1), (560, 2), (81_520, 508), (20_480, 126)])
def test_frames_follow_the_rule_of_the_phone_labels(length, frames):
    assert Mfcc()(sound(1, length)).local.shape == (1, frames, 39)


def test_a_frame_is_centred_on_the_200th_of_its_400_samples():
    encoder = Mfcc(deltas=0)
    assert (encoder.hop, encoder.centre) == (160, 200)
    assert encoder.takes == "float [B, 1, L] in [-1, 1] at 16 kHz"
    for i in (2, 9):
        x = (sound(1, 4000) + 0.01).requires_grad_()
        encoder(x).local[0, i].sum().backward()
        seen = x.grad[0, 0].nonzero()
        assert seen.min() in (160 * i, 160 * i + 1)  # the first weight of the window is 0
        assert seen.max() == 160 * i + 399


def test_a_recording_does_not_depend_on_its_batch_or_on_autocast():
    """A loud neighbour must not raise the floor."""
    encoder, x = Mfcc(), sound(3, 3000) * torch.tensor([1e-5, 1.0, 1e3])[:, None, None]
    together = encoder(x).local
    torch.testing.assert_close(torch.cat([encoder(one[None]).local for one in x]), together, rtol=0, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(encoder(x).local, together, rtol=0, atol=1e-3)


def test_silence_is_finite_and_nothing_is_learnt():
    encoder = Mfcc()
    assert encoder(torch.zeros(1, 1, 800)).local.isfinite().all()
    assert not list(encoder.parameters())


@pytest.mark.parametrize("num_mels", [1, 23, 80])
def test_no_band_is_empty(num_mels):
    bands = Mfcc(num_mels=num_mels, num_coefficients=1).mfcc.MelSpectrogram.mel_scale.fb
    assert (bands.sum(dim=0) > 0).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_mels": 0}, "encoder.num_mels=0"),
        ({"num_mels": 81}, "between 1 and 80"),
        ({"num_coefficients": 41}, "encoder.num_coefficients=41"),
        ({"num_coefficients": 0}, "encoder.num_coefficients=0"),
        ({"deltas": 3}, "encoder.deltas=3"),
    ],
)
def test_refusals(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        Mfcc(**options)


def test_too_short_a_recording_is_told_in_a_sentence():
    with pytest.raises(UsageError, match="at least 400 samples, not 399"):
        Mfcc()(sound(1, 399))
