"""Which frame a phone is read from, and what is refused; on recordings of the genuine lengths of CPC's sample files."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stec.decoder import Opened
from stec.encoder import Features
from stec.errors import DataError, UsageError
from stec_audio.encoders import Cpc
from stec_audio.mfcc import Mfcc
from stec_audio.phones import Phones, frame_of


class Decoder:
    """Recordings as they lie in memory, int16."""

    extensions = ("flac", "wav")

    def open(self, raw):
        return Opened((len(raw) // 2,), raw)

    def all(self, opened):
        return torch.from_numpy(np.frombuffer(opened.content, np.int16).copy())[None]

    def finish(self, x):
        return x.float() / 32768


def recording(num_samples: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(-3000, 3000, num_samples).astype(np.int16).tobytes()


def members(num_samples: int, num_labels: int, field: str = "flac"):
    return {"cls": b"0", field: recording(num_samples), "phones": " ".join("7" for _ in range(num_labels)).encode()}


@pytest.mark.parametrize(("num_samples", "num"), [(81_520, 508), (179_360, 1119), (400, 1), (559, 1), (560, 2)])
def test_there_are_as_many_labels_as_windows_of_25_ms_every_10_ms(num_samples, num):
    probe = Phones(Decoder())
    x, labels = probe.example(members(num_samples, num), {})
    assert (x.shape, x.dtype) == ((1, 1, num_samples), torch.float32)
    assert labels.tolist() == [7] * num
    for wrong in (num - 1, num + 1):
        if wrong:
            told = rf"{wrong} phone labels were found, {num} were expected for {num_samples} samples \(1 \+ \(N - 400\)"
            with pytest.raises(DataError, match=f"^the member phones: {told}"):
                probe.example(members(num_samples, wrong), {})


@pytest.mark.parametrize("padding", ["gim", "cpc_audio"])
def test_label_i_belongs_to_frame_i_plus_1_of_cpcs_encoder(padding):
    encoder = Cpc(channels=4, width=3, padding=padding)
    i = torch.arange(1119)
    assert torch.equal(frame_of(i, encoder.hop, encoder.centre), i + 1)
    centres = 160 * torch.arange(1121) + encoder.centre  # a slow twin: the nearest of all
    assert (160 * i[:, None] + 200 - centres).abs().argmin(dim=1).tolist() == (i + 1).tolist()


def test_label_i_belongs_to_frame_i_of_mfcc_and_to_the_nearest_one_of_any_other_hop():
    assert torch.equal(frame_of(torch.arange(9), Mfcc.hop, Mfcc.centre), torch.arange(9))
    assert frame_of(torch.arange(5), 320, 160.0).tolist() == [0, 1, 1, 2, 2]
    assert frame_of(torch.arange(3), 80, 40.0).tolist() == [2, 4, 6]
    # A frame centred where label 3 is, but for a sample.
    assert frame_of(torch.tensor([3]), 160, 681.0 - 160 * 2).item() == 2


@pytest.mark.parametrize("encoder", [Cpc(channels=4, width=3), Mfcc()])
@pytest.mark.parametrize("num_samples", [400, 4000, 4079, 4160])
def test_rows_are_the_frames_of_the_labels(encoder, num_samples):
    num = 1 + (num_samples - 400) // 160
    x = torch.randn(1, 1, num_samples, generator=torch.Generator().manual_seed(0)) / 10
    with torch.no_grad():
        features = encoder(x)
    labels = torch.arange(num) % 5
    rows, kept = Phones(Decoder()).rows(encoder, features, labels)
    shift = 1 if isinstance(encoder, Cpc) else 0
    assert torch.equal(rows, features.context[0, shift : shift + len(kept)])
    assert torch.equal(kept, labels[: features.context.shape[1] - shift])
    assert len(kept) in (num, num - 1)


def test_only_what_the_encoder_calls_valid_is_read_and_the_layer_is_the_one_that_is_asked_for():
    encoder = SimpleNamespace(hop=160, centre=20.0)
    context, local = torch.randn(1, 9, 3), torch.randn(1, 9, 2)
    features = Features(context.mean(1), local, context, torch.tensor([4]))
    labels = torch.tensor([5, 4, -1, 2, 1, 0])
    rows, kept = Phones(Decoder()).rows(encoder, features, labels)
    assert torch.equal(rows, context[0, 1:4])
    assert kept.tolist() == [5, 4, -1]
    deep = Phones(Decoder(), layer="local")
    assert (deep.needs, Phones(Decoder()).needs) == ({"local"}, {"context"})
    assert torch.equal(deep.rows(encoder, features, labels)[0], local[0, 1:4])
    with pytest.raises(UsageError, match="hop=0"):
        deep.rows(SimpleNamespace(hop=0, centre=0.0), features, labels)


def test_samples_without_labels_are_passed_over_and_damaged_ones_refused():
    probe, meta = Phones(Decoder()), {"phones": ["sil", "a", "b"]}
    assert probe.example({"flac": recording(999)}, meta) is None
    assert probe.classes(meta) == ["sil", "a", "b"]
    assert probe.classes({}) == []
    good = {"wav": recording(880), "phones": b" 0 -1\n2 1 "}
    assert probe.example(good, meta)[1].tolist() == [0, -1, 2, 1]
    for labels, sentence in (
        (b"0 1 2 3", r"^the phone label 3 is not one of the 3 phones\.$"),
        (b"0 1 2 -2", "the phone label -2 is not one of"),
        (b"0 1 2 b", r"not a row of whole numbers .*'b'"),
        (b"\xff\xfe 1 2 2", "not a row of whole numbers"),
    ):
        with pytest.raises(DataError, match=sentence):
            probe.example(good | {"phones": labels}, meta)
    with pytest.raises(DataError, match="nothing to decode: there is txt, phones, wanted is one of flac, wav"):
        probe.example({"txt": b"", "phones": b"0"}, meta)


def test_slips():
    with pytest.raises(UsageError, match=r"^layer='last' is unknown: choose one of context, local\.$"):
        Phones(Decoder(), layer="last")
    with pytest.raises(UsageError, match="whole recordings"):
        Phones(SimpleNamespace(extensions=("flac",)))
