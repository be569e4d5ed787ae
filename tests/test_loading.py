"""Streams of batches: the same whoever makes them, whole or from the middle, with or without damaged samples."""

import logging

import numpy as np
import pytest
import torch
from toy_source import SPACE, Corners, Memory, Sources, assert_same, memory, toy_sample

from stec import steps
from stec.actions import sample_views
from stec.errors import DataError, UsageError
from stec.loading import Stream, remake
from stec.samples import TRIES, substitute
from stec.shards.reader import open_shards
from stec.shards.writer import write_split


def stream(source=None, decoder=None, **options):
    options = {"batch_size": 4, "window": 2, "seed": 3} | options
    return Stream(source or memory(), decoder or Sources(), SPACE, **options)


def numbers(batches):
    return [int(sample) for batch in batches for sample in batch.keys[:, 2]]


@pytest.mark.parametrize("decoder", [Sources(), Corners()], ids=["sources", "views"])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_number_of_workers_changes_nothing(decoder, num_workers):
    alone = list(stream(decoder=decoder).batches(1))
    assert len(alone) == 5
    assert_same(list(stream(decoder=decoder, num_workers=num_workers).batches(1)), alone)


@pytest.mark.parametrize(("first", "num_workers"), [(0, 0), (2, 0), (3, 2), (5, 0)])
def test_a_stream_continues_from_any_step_of_an_epoch(first, num_workers):
    read = []
    source = memory()
    source.read = lambda sample, read_one=source.read: read.append(sample) or read_one(sample)
    rest = list(stream(source, num_workers=num_workers).batches(2, first))
    assert_same(rest, list(stream().batches(2))[first:])
    assert num_workers or read == numbers(rest)  # what lies before is not even read


def test_an_epoch_is_every_sample_once_and_drops_what_is_left_over():
    one = stream(batch_size=23)
    assert one.steps_per_epoch == 1
    assert sorted(numbers(one.batches(0))) == list(range(23))
    assert numbers(one.batches(0)) == numbers(one.batches(0)) != numbers(one.batches(1))
    assert numbers(one.batches(0)) != numbers(stream(batch_size=23, seed=4).batches(0))
    for batch_size, per_epoch in ((1, 23), (5, 4), (6, 3), (12, 1)):
        some = stream(batch_size=batch_size)
        assert some.steps_per_epoch == per_epoch == len(list(some.batches(0)))
        assert len(set(numbers(some.batches(0)))) == batch_size * per_epoch


def test_without_shuffling_samples_come_as_stored():
    assert numbers(stream(shuffle=False).batches(4)) == list(range(20))


@pytest.mark.parametrize("world", [2, 4])
def test_the_parts_of_the_ranks_are_the_batch_of_one(monkeypatch, world):
    whole = list(stream().batches(1))
    monkeypatch.setattr(steps, "world_size", lambda: world)
    parts = []
    for rank in range(world):
        monkeypatch.setattr(steps, "rank", lambda rank=rank: rank)
        parts.append(list(stream().batches(1)))
    for step, batch in enumerate(whole):
        joined = torch.cat([part[step].x[0] for part in parts])
        assert torch.equal(joined, batch.x[0])
        assert torch.equal(torch.cat([part[step].keys for part in parts]), batch.keys)
        assert torch.equal(torch.cat([part[step].actions for part in parts], dim=1), batch.actions)
    with pytest.raises(UsageError, match=f"^batch_size=7 .* {world} ranks equally"):
        stream(batch_size=7)


def test_actions_are_those_that_the_keys_name_and_labels_those_stored():
    sizes = [(4 + number % 3, 9) for number in range(23)]
    source = Memory([toy_sample(n, *sizes[n], label=n) for n in range(23)], (7, 4, 12))
    for batch in stream(source, Corners(), num_views=3).batches(5):
        which = batch.keys[:, 2]
        assert batch.keys[:, :2].tolist() == [[3, 5]] * 4
        extent = torch.tensor([sizes[n] for n in which])
        assert torch.equal(batch.actions, sample_views(SPACE, batch.keys, extent, 3))
        assert batch.labels.dtype == torch.int64
        assert torch.equal(batch.labels, which)
        corners = torch.stack([x[:, 1:] for x in batch.x]).float()
        assert torch.equal(corners, batch.actions[:, :, :2])  # view v was begun with action v of its own sample


def test_without_a_label_it_is_unknown():
    source = Memory([toy_sample(n) for n in range(8)])
    assert [batch.labels.tolist() for batch in stream(source).batches(0)] == [[-1] * 4] * 2


@pytest.mark.parametrize("text", [b"cat", b"", b"1.5", b"-100", b"5", b"9" * 5000])
def test_a_label_that_is_no_class_is_damage(text):
    source = memory(8, None, classes=list("abcde"))
    source.samples[6]["cls"] = text
    with pytest.raises(DataError, match=r"^toy-0.tar: 0006: the label ") as error:
        list(stream(source).batches(0))
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("decoder", [Sources(), Corners()], ids=["sources", "views"])
def test_a_sample_brings_its_group_and_without_one_it_is_unknown(decoder):
    source = memory(8, None)
    for number in (0, 3, 6):
        source.samples[number] = source.samples[number] | {"group": f" {900 + number}\n".encode()}
    source.samples[5] = source.samples[5] | {"group": b"-1"}
    batches = list(stream(source, decoder).batches(0))
    which = torch.cat([batch.keys[:, 2] for batch in batches])
    group = torch.cat([batch.group for batch in batches])
    assert group.dtype == torch.int64
    assert group.tolist() == [900 + n if n in (0, 3, 6) else -1 for n in which.tolist()]


def test_a_stand_in_brings_its_own_group():
    source = memory(23, damaged=[5])
    for number, sample in enumerate(source.samples):
        sample["group"] = str(number).encode()
    (batch,) = stream(source, batch_size=23, max_bad=0.2, shuffle=False).batches(0)
    assert 5 not in batch.group
    assert torch.equal(batch.group, batch.keys[:, 2])


@pytest.mark.parametrize("text", [b"anna", b"", b"1.5", b"-2", b"2147483648", b"9" * 4000])
def test_a_group_that_is_no_whole_number_is_damage(text):
    source = memory(8, None)
    source.samples[6]["group"] = text
    with pytest.raises(DataError, match=r"^toy-0.tar: 0006: the group .* not ") as error:
        list(stream(source).batches(0))
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_hold_bytes_until_the_device(num_workers):
    batch = next(stream(num_workers=num_workers).batches(0))
    assert batch.x[0].dtype == torch.uint8
    assert batch.x[0].shape == (4, 1, 5, 6)
    assert batch.x[0].untyped_storage().nbytes() == 4 * 5 * 6


@pytest.mark.parametrize("decoder", [Sources(), Corners()], ids=["sources", "views"])
def test_any_view_of_any_sample_can_be_made_again_from_a_log_line(decoder):
    for batch in stream(decoder=decoder).batches(6):
        for row, key in enumerate(batch.keys):
            line = f"key={key.tolist()}"
            again = remake(memory(), decoder, SPACE, [int(n) for n in line[5:-1].split(",")])
            for x, whole in zip(again.x, batch.x, strict=True):
                assert torch.equal(x[0], whole[row])
            assert torch.equal(again.actions[:, 0], batch.actions[:, row])
            assert again.labels == batch.labels[row]
    with pytest.raises(UsageError, match="no sample 23: the data set has 23"):
        remake(memory(), decoder, SPACE, (0, 0, 23))
    with pytest.raises(DataError, match=r"^toy-0.tar: 0003.toy is damaged"):
        remake(memory(damaged=[3]), decoder, SPACE, (0, 0, 3))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("decoder", [Sources(), Corners()], ids=["sources", "views"])
def test_a_damaged_sample_is_replaced_in_its_slot_and_nothing_else_changes(decoder, num_workers, caplog):
    bad = {2, 9, 16}
    source = memory(damaged=[2, 9])
    source.samples[16]["toy"] = source.samples[16]["toy"][:-1]  # the header is sound, the rest is not
    (whole,) = stream(decoder=decoder, batch_size=23).batches(0)
    patched = stream(source, decoder, batch_size=23, max_bad=0.2, num_workers=num_workers)
    with caplog.at_level(logging.WARNING, "stec"):
        (batch,) = patched.batches(0)
        assert patched.replaced == 3
        assert_same(list(patched.batches(0)), [batch])
    assert patched.replaced == 6
    assert len(caplog.messages) == 3  # each is told once
    for number, shard in ((2, 0), (9, 1), (16, 2)):
        assert sum(f"toy-{shard}.tar: {number:04d}" in message for message in caplog.messages) == 1
    for slot, number in enumerate(whole.keys[:, 2].tolist()):
        if number in bad:
            assert int(batch.keys[slot, 2]) not in bad
            stand_in = remake(memory(), decoder, SPACE, batch.keys[slot])
            assert all(torch.equal(a[slot], b[0]) for a, b in zip(batch.x, stand_in.x, strict=True))
            assert torch.equal(batch.actions[:, slot], stand_in.actions[:, 0])
        else:
            assert all(torch.equal(a[slot], b[slot]) for a, b in zip(batch.x, whole.x, strict=True))
            assert torch.equal(batch.actions[:, slot], whole.actions[:, slot])
            assert torch.equal(batch.keys[slot], whole.keys[slot])


def test_a_damaged_stand_in_is_replaced_as_well():
    first = substitute(23, 3, 0, 5, 1)
    second = next(n for n in (substitute(23, 3, 0, 5, a) for a in range(2, TRIES + 1)) if n not in (5, first))
    patched = stream(memory(damaged={5, first}), batch_size=23, max_bad=0.5, shuffle=False)
    keys = next(patched.batches(0)).keys[:, 2].tolist()
    assert keys[5] == second
    assert patched.replaced >= 3  # sample 5, what was to stand in for it, and that one's own slot


@pytest.mark.parametrize("num_workers", [0, 1])
def test_without_leave_the_first_damaged_sample_is_an_error(num_workers):
    with pytest.raises(DataError, match=r"^toy-1.tar: 0008.toy is damaged: .*dataset.max_bad=0") as error:
        list(stream(memory(damaged=[8]), num_workers=num_workers).batches(0))
    assert error.value.exit_code == 4
    assert "\n" not in str(error.value)


def test_more_damage_than_allowed_is_an_error_that_counts():
    few = stream(memory(damaged=[8]), max_bad=0.001)
    assert len(list(few.batches(0))) == 5  # one is always allowed
    with pytest.raises(DataError, match=r"^3 of 23 samples were damaged, more than dataset.max_bad=0.1 allows; .*toy-"):
        list(stream(memory(damaged=[2, 9, 16]), batch_size=23, max_bad=0.1).batches(0))


def test_damage_is_held_against_all_samples_not_against_those_seen_so_far():
    begun = stream(memory(damaged=[0, 1]), max_bad=0.1, shuffle=False)
    assert len(list(begun.batches(0))) == 5  # two of the first four, but not more than a tenth of 23
    assert (begun.replaced, len(list(begun.batches(1))), begun.replaced) == (2, 5, 4)


def test_a_damaged_sample_is_named_by_the_path_it_came_from_if_that_is_known(caplog):
    source = memory(damaged=[9])
    source.samples[4] = {"toy": b"", "json": b'{"path": "holiday/beach.toy"}'}
    source.samples[5] = {"toy": b"", "json": b"no json"}
    with caplog.at_level(logging.WARNING, "stec"):
        list(stream(source, batch_size=23, max_bad=0.2).batches(0))
    told = sorted(caplog.messages)
    assert told[0].startswith("damaged sample: toy-0.tar: 0004 (holiday/beach.toy): ")
    assert told[1].startswith("damaged sample: toy-0.tar: 0005: ")


@pytest.mark.parametrize("max_bad", [0.0, 0.5])
def test_if_everything_is_damaged_it_ends_at_once(max_bad):
    with pytest.raises(DataError, match=r"and the 20 samples drawn in its place are damaged as well"):
        list(stream(memory(damaged=range(23)), max_bad=max_bad).batches(0))


def test_a_sample_without_what_the_decoder_reads_says_what_there_is():
    source = memory()
    source.samples[4] = {"npz": b"", "cls": b"0"}
    with pytest.raises(DataError, match=r"^toy-0.tar: 0004: nothing to decode: there is npz, cls, .* one of txt, toy"):
        list(stream(source).batches(0))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_sources_of_different_sizes_cannot_share_a_batch(num_workers):
    source = memory()
    source.samples[11] = toy_sample(11, 8, 6, label=0)
    with pytest.raises(UsageError, match=r"toy-\d.tar: \d+ is 1x5x6, toy-2.tar: 0011 is 1x8x6; set decoder.size") as e:
        list(stream(source, shuffle=False, num_workers=num_workers).batches(0))
    assert e.value.exit_code == 2
    assert len(list(stream(source, Corners()).batches(0))) == 5  # views that are begun are of one size


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 24}, "batch_size=24 is more than the data set holds, 23 samples"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"window": 0}, "dataset.window=0 must be at least 1"),
        ({"num_workers": -1}, "hardware.num_workers=-1 must be at least 0"),
        ({"max_bad": 1.0}, "dataset.max_bad=1.0 must be at least 0 and below 1"),
    ],
)
def test_impossible_options_are_refused(options, says):
    with pytest.raises(UsageError, match=rf"^{says}"):
        stream(**options)


def test_a_step_that_does_not_exist_is_refused_at_once():
    for first in (-1, 6):
        with pytest.raises(UsageError, match=f"step {first} of an epoch of 5 steps"):
            stream().batches(0, first)


def test_damage_in_a_real_shard_is_found_told_and_replaced(tmp_path, caplog):
    samples = [{"__key__": f"s{n:03d}"} | toy_sample(n, label=n % 5) for n in range(23)]
    write_split(samples, tmp_path / "train", name="train", meta={"classes": list("abcde")}, samples_per_shard=6)
    whole = list(stream(open_shards(tmp_path / "train"), batch_size=6).batches(0))
    assert_same(list(stream(open_shards(tmp_path / "train"), batch_size=6, num_workers=2).batches(0)), whole)
    assert_same(whole, list(stream(memory(shard_sizes=(6, 6, 6, 5)), batch_size=6).batches(0)))

    tar = next((tmp_path / "train").glob("*2.tar"))
    content = np.fromfile(tar, np.uint8)
    place = content.tobytes().index(samples[14]["toy"])
    content[place + 10] ^= 1
    content.tofile(tar)
    patched = stream(open_shards(tmp_path / "train"), batch_size=23, max_bad=0.1, shuffle=False, num_workers=1)
    with caplog.at_level(logging.WARNING, "stec"):
        batch = next(patched.batches(0))
    assert (batch.keys[:, 2] != torch.arange(23)).nonzero().tolist() == [[14]]
    assert patched.replaced == 1
    assert f"{tar.name}: s014" in caplog.text
