"""What is measured on: evaluation views as stored, and pairs of views, the same on every rank."""

import logging

import pytest
import torch
from toy_source import SPACE, Corners, Sources, memory, toy_sample

from stec.errors import DataError
from stec.loading import MOST_PASSES, examples, unshared
from stec.samples import Tally, extent, payload


@pytest.mark.parametrize("num_workers", [0, 2])
def test_examples_are_all_samples_as_stored(num_workers):
    batches = list(examples(memory(), Corners(), batch_size=10, num_workers=num_workers))
    assert [len(x) for x, _ in batches] == [10, 10, 3]
    assert torch.cat([labels for _, labels in batches]).tolist() == [n % 5 for n in range(23)]
    expected = torch.stack([Sources().whole(Sources().open(toy_sample(n)["toy"])) for n in range(23)])
    assert torch.equal(torch.cat([x for x, _ in batches]), expected)
    assert expected.dtype == torch.uint8


def test_damaged_examples_are_left_out_if_that_is_allowed(caplog):
    damaged = [0, 1, 7]
    with pytest.raises(DataError, match=r"^toy-0.tar: 0000"):
        list(examples(memory(damaged=damaged), Sources(), batch_size=2))
    with caplog.at_level(logging.WARNING, "stec"):
        batches = list(examples(memory(damaged=damaged), Sources(), batch_size=12, tally=Tally(0.3, 23)))
    assert torch.cat([labels for _, labels in batches]).tolist() == [n % 5 for n in range(23) if n not in damaged]
    assert len(caplog.messages) == 3


@pytest.mark.parametrize("num_workers", [0, 1])
def test_of_few_samples_there_are_several_pairs_and_no_two_measures_share_one(num_workers):
    def drawn(epoch, num):
        batches = unshared(
            memory(), Sources(), SPACE, seed=3, epoch=epoch, num=num, batch_size=10, num_workers=num_workers
        )
        return torch.cat([batch.keys for batch in batches]).tolist()

    once, thrice, others = drawn(0, None), drawn(0, 50), drawn(1, 50)
    assert sorted(number for _, _, number in once) == list(range(23))
    assert drawn(0, 23) == once
    assert thrice[:23] == once
    assert len(thrice) == 69
    assert len({tuple(key) for key in thrice + others}) == 2 * 69  # each sample under each epoch once
    assert len(drawn(0, 10_000)) == 23 * MOST_PASSES


def test_one_sample_can_be_asked_for_its_size_and_its_bytes():
    source = memory(damaged=[8])
    assert extent(source, Sources(), 7) == (5, 6)
    assert payload(source, Sources(), 7) == toy_sample(7)["toy"]
    for ask in (extent, payload):
        with pytest.raises(DataError, match=r"^toy-1.tar: 0008"):
            ask(source, Sources(), 8)
