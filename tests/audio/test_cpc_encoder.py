"""Frames are where they are said to be, and the context knows the past and nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stec.encoder import tap
from stec.errors import UsageError
from stec_audio.encoders import ChannelNorm, Cpc

PADDINGS = {"gim": (2, 2, 2, 2, 1), "cpc_audio": (3, 2, 1, 1, 1)}


def tiny(**options):
    torch.manual_seed(0)
    return Cpc(**{"channels": 6, "width": 4, **options}).double().eval()


def sound(num, length, seed=0):
    return 0.1 * torch.randn(num, 1, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(160, 6000), st.sampled_from(list(PADDINGS)))
@settings(max_examples=60, deadline=None)
def test_there_is_a_frame_for_every_whole_hop(length, padding):
    features = tiny(padding=padding, context="linear")(sound(1, length))
    assert features.local.shape == (1, length // 160, 6)
    assert features.context.shape == (1, length // 160, 4)


@pytest.mark.parametrize(("padding", "centre"), [("gim", 20), ("cpc_audio", 79)])
def test_a_frame_sees_465_samples_around_its_centre(padding, centre):
    encoder = tiny(padding=padding)
    assert (encoder.hop, encoder.centre) == (160, centre)
    for j in (3, 7):
        x = sound(1, 20_480).requires_grad_()
        encoder(x).local[0, j].sum().backward()
        seen = x.grad[0, 0].nonzero()
        assert seen.min() == 160 * j + centre - 232
        assert seen.max() == 160 * j + centre + 232


@pytest.mark.parametrize("padding", list(PADDINGS))
def test_the_convolutions_are_those_of_the_public_code(padding):
    encoder, x = tiny(padding=padding, context="none", normalize=False), sound(2, 20_480)
    shapes = zip((10, 8, 4, 4, 4), (5, 4, 2, 2, 2), PADDINGS[padding], strict=True)
    layers = [(nn.Conv1d(1 if i == 0 else 6, 6, *shape), nn.ReLU()) for i, shape in enumerate(shapes)]
    plain = nn.Sequential(*(layer for pair in layers for layer in pair)).double()
    for own, theirs in zip(encoder.convs, plain[::2], strict=True):
        theirs.load_state_dict(own.state_dict())
    local = encoder(x).local
    assert local.shape == (2, 128, 6)
    torch.testing.assert_close(local, plain(x).transpose(1, 2))


def test_the_default_is_the_network_of_greedy_infomax():
    encoder = Cpc()
    convs = 512 * (10 + 8 * 512 + 3 * 4 * 512 + 5)
    assert sum(p.numel() for p in encoder.parameters()) == convs + 3 * 256 * (512 + 256 + 2)
    assert encoder.dims == {"pooled": 256, "local": 512, "context": 256, "last": 256}
    assert encoder.takes == "float [B, 1, L] in [-1, 1] at 16 kHz"


@pytest.mark.parametrize("context", ["gru", "lstm", "linear", "none"])
@pytest.mark.parametrize("norm", ["none", "channel", "batch"])
def test_outputs_are_as_wide_as_dims_says(context, norm):
    encoder = tiny(context=context, norm=norm)
    features = encoder(sound(3, 1700))
    assert {name: getattr(features, name).shape[-1] for name in ("local", "context")} == {
        name: encoder.dims[name] for name in ("local", "context")
    }
    torch.testing.assert_close(features.pooled, features.context.mean(dim=1))
    assert torch.equal(tap(features, "last"), features.context[:, -1])
    assert (features.pooled.shape, features.frames) == ((3, encoder.dims["pooled"]), None)
    assert encoder.dims["last"] == tap(features, "last").shape[1]


@pytest.mark.parametrize(("context", "remembers"), [("gru", True), ("lstm", True), ("linear", False), ("none", False)])
def test_context_knows_the_past_and_not_the_future(context, remembers):
    encoder, x = tiny(context=context, norm="channel", layers=2), sound(1, 4800)
    early, late = x.clone(), x.clone()
    early[..., :300] *= -1
    late[..., -300:] *= -1
    before, after = encoder(x).context, encoder(late).context
    assert torch.equal(before[:, :20], after[:, :20])
    changed = (encoder(early).context[0, 10:] != before[0, 10:]).any()
    assert bool(changed) == remembers


def test_channel_norm_is_that_of_the_public_code():
    """Each frame over its channels, by the unbiased variance."""
    torch.manual_seed(0)
    norm, x = ChannelNorm(16, epsilon=0.5).double(), torch.randn(3, 16, 7).double() * 5 + 2
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    for b in range(3):
        for t in range(7):
            frame = x[b, :, t]
            expected = (frame - frame.sum() / 16) / ((frame - frame.mean()).square().sum() / 15 + 0.5).sqrt()
            torch.testing.assert_close(norm(x)[b, :, t], expected * norm.weight[:, 0] + norm.bias[:, 0])
    assert not torch.allclose(norm(x), nn.functional.group_norm(x, 1) * norm.weight + norm.bias, atol=1e-2)


def test_normalising_takes_off_the_published_mean():
    encoder, plain, x = tiny(), tiny(normalize=False), sound(2, 1600)
    torch.testing.assert_close(encoder(x).context, plain((x + 6.78e-4) / 0.0630).context)


def test_batch_norm_is_given_no_bias_to_take_off_again():
    assert all(conv.bias is None for conv in tiny(norm="batch").convs)
    assert all(conv.bias is not None for conv in tiny(norm="channel").convs)


def test_too_short_a_recording_is_told_in_a_sentence():
    with pytest.raises(UsageError, match="at least 160 samples, not 159"):
        tiny()(sound(1, 159))
    assert tiny()(sound(1, 160)).local.shape == (1, 1, 6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"channels": 0}, "encoder.channels=0 must be at least 1"),
        ({"width": 0}, "encoder.width=0"),
        ({"layers": 0}, "encoder.layers=0"),
        ({"norm": "layer"}, "none, channel, batch"),
        ({"padding": "same"}, "gim, cpc_audio"),
        ({"context": "rnn"}, "gru, lstm, linear, none"),
    ],
)
def test_refusals(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        Cpc(**options)
