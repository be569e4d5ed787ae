"""What is kept in memory gives the batches of a stream, bit for bit."""

import logging

import pytest
import torch
from toy_source import SPACE, Corners, Memory, Sources, assert_same, memory, toy_sample

from stec import resident, steps
from stec.errors import DataError, UsageError
from stec.loading import Stream, examples
from stec.resident import Resident
from stec.samples import Tally, substitute


def kept(source=None, decoder=None, kind=Resident, **options):
    options = {"batch_size": 4, "window": 2, "seed": 3} | options
    return kind(source or memory(), decoder or Sources(), SPACE, **options)


def stream(source=None, **options):
    return kept(source, kind=Stream, **options)


@pytest.mark.parametrize(
    "options", [{}, {"num_views": 3, "seed": 9}, {"shuffle": False}, {"window": 1, "batch_size": 5}]
)
def test_its_batches_are_those_of_a_stream(options):
    one, other = kept(**options), stream(**options)
    assert one.steps_per_epoch == other.steps_per_epoch
    for epoch, first in ((0, 0), (1, 2)):
        assert_same(list(one.batches(epoch, first)), list(other.batches(epoch, first)))


def test_so_are_those_of_a_rank(monkeypatch):
    monkeypatch.setattr(steps, "world_size", lambda: 2)
    monkeypatch.setattr(steps, "rank", lambda: 1)
    batches = list(kept().batches(3))
    assert len(batches[0].keys) == 2
    assert_same(batches, list(stream().batches(3)))


def test_and_those_with_damaged_samples(monkeypatch, caplog):
    monkeypatch.setattr(resident, "CHUNK", 5)
    bad = {0, 5, 17, substitute(23, 3, 1, 5, 1)}
    source = memory(damaged=bad - {17})
    source.samples[17]["toy"] = b"\x05\x06 too short"
    one, other = kept(source, max_bad=0.4), stream(source, max_bad=0.4)
    with caplog.at_level(logging.WARNING, "stec"):
        assert one.replaced == 0
        for epoch in range(3):
            assert_same(list(one.batches(epoch)), list(other.batches(epoch)))
    assert one.replaced == other.replaced > 0


def test_groups_are_those_of_a_stream_and_unknown_without_one():
    source = memory(damaged=[4])
    for number in range(0, 23, 2):
        source.samples[number]["group"] = str(100 + number).encode()
    one, other = kept(source, max_bad=0.2), stream(source, max_bad=0.2)
    assert_same(list(one.batches(1)), list(other.batches(1)))
    assert one.groups.tolist() == [100 + n if n % 2 == 0 and n != 4 else -1 for n in range(23)]


def test_sources_stay_bytes():
    one = kept()
    assert one.x.dtype == torch.uint8
    assert one.x.untyped_storage().nbytes() == 23 * 5 * 6
    assert next(one.batches(0)).x[0].dtype == torch.uint8


def test_the_time_it_took_is_told(caplog):
    with caplog.at_level(logging.INFO, "stec"):
        kept()
    assert any("decoded 23 samples into memory" in message for message in caplog.messages)


def test_its_examples_are_those_of_the_source_and_not_decoded_again():
    decoder, damaged = Sources(), [3, 22]
    one = kept(memory(damaged=damaged), decoder, max_bad=0.2)
    expected = list(examples(memory(damaged=damaged), Sources(), batch_size=23, tally=Tally(0.2, 23)))
    decoder.whole = None
    found = list(one.examples(batch_size=8))
    assert [len(x) for x, _ in found] == [8, 8, 5]
    assert torch.equal(torch.cat([x for x, _ in found]), expected[0][0])
    assert torch.equal(torch.cat([labels for _, labels in found]), expected[0][1])


def test_views_that_are_begun_while_decoding_cannot_be_kept():
    with pytest.raises(UsageError, match=r"^dataset.resident=true keeps sources, not views"):
        kept(decoder=Corners())


@pytest.mark.parametrize("chunk", [2, 256])
def test_sources_of_different_sizes_cannot_be_kept(monkeypatch, chunk):
    monkeypatch.setattr(resident, "CHUNK", chunk)
    source = memory()
    source.samples[12] = toy_sample(12, 9, 6)
    with pytest.raises(UsageError, match=r"toy-2.tar: 0012 is 1x9x6.*; set decoder.size"):
        kept(source)


def test_too_much_damage_is_an_error_at_the_start():
    with pytest.raises(DataError, match=r"^toy-0.tar: 0004.toy is damaged.*dataset.max_bad=0"):
        kept(memory(damaged=[4]))
    with pytest.raises(DataError, match=r"^3 of 23 samples were damaged, more than dataset.max_bad=0.1 allows"):
        kept(memory(damaged=[4, 5, 6]), max_bad=0.1)
    with pytest.raises(DataError, match="damaged"):
        kept(Memory([{"toy": b""}]), batch_size=1, max_bad=0.9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_device_sources_lie_there_and_the_rest_does_not():
    one = kept(device="cuda")
    for batch, other in zip(one.batches(1), stream().batches(1), strict=True):
        assert batch.x[0].is_cuda
        assert not batch.actions.is_cuda
        assert_same(batch._replace(x=(batch.x[0].cpu(),)), other)
