"""One row and one label for each recording."""

import pytest
import torch

from stec.decoder import Opened
from stec.encoder import Features
from stec.errors import DataError, UsageError
from stec_audio.encoders import Cpc
from stec_audio.speakers import Speaker


class Decoder:
    """The window in the middle of bytes, int16 [1, 4]."""

    extensions = ("flac",)

    def open(self, raw):
        return Opened((len(raw),), raw)

    def whole(self, opened):
        return torch.tensor([list(opened.content[:4])], dtype=torch.int16)

    def finish(self, x):
        return x.float() / 32768


def test_a_window_and_its_class():
    x, label = Speaker(Decoder()).example({"flac": bytes([1, 2, 3, 4]), "cls": b" 2\n"}, {"classes": ["a", "b", "c"]})
    assert torch.equal(x * 32768, torch.tensor([[[1.0, 2, 3, 4]]]))
    assert (label.tolist(), label.dtype) == ([2], torch.int64)


def test_the_mean_over_time_or_the_last_frame():
    encoder = Cpc(channels=4, width=3)
    with torch.no_grad():
        features = encoder(torch.randn(1, 1, 3200, generator=torch.Generator().manual_seed(0)) / 10)
    label = torch.tensor([1])
    mean, last = (Speaker(Decoder(), pool=pool).rows(encoder, features, label)[0] for pool in ("mean", "last"))
    torch.testing.assert_close(mean, features.pooled)
    torch.testing.assert_close(last, features.layers["last"])
    assert not torch.allclose(mean, last)
    # What the encoder calls padding is not heard.
    cut = Features(features.pooled, context=features.context, frames=torch.tensor([7]))
    assert torch.equal(Speaker(Decoder(), pool="last").rows(encoder, cut, label)[0], features.context[:, 6])
    torch.testing.assert_close(Speaker(Decoder()).rows(encoder, cut, label)[0], features.context[:, :7].mean(dim=1))
    with pytest.raises(UsageError, match="gives no context"):
        Speaker(Decoder()).rows(encoder, Features(features.pooled), label)


def test_samples_without_a_class_are_passed_over_and_others_refused():
    probe, meta = Speaker(Decoder()), {"classes": ["a", "b"]}
    assert probe.example({"flac": b"1234"}, meta) is None
    assert probe.example({"flac": b"1234", "cls": b"-1"}, meta) is None
    assert probe.classes(meta) == ["a", "b"]
    assert probe.example({"flac": b"1234", "cls": b"7"}, {})[1].tolist() == [7]
    for label, sentence in ((b"2", "the label 2 is not one of the 2 classes"), (b"b", "'b' is not a whole number")):
        with pytest.raises(DataError, match=sentence):
            probe.example({"flac": b"1234", "cls": label}, meta)
    with pytest.raises(DataError, match="nothing to decode"):
        probe.example({"cls": b"0"}, meta)


def test_slips_and_words():
    with pytest.raises(UsageError, match=r"^pool='max' is unknown: choose one of mean, last\.$"):
        Speaker(Decoder(), pool="max")
    assert "mean of context" in Speaker(Decoder()).describe()
    assert "last frame" in Speaker(Decoder(), pool="last").describe()
