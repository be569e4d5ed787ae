"""Samples that cannot be used: replaced, counted and named as far as dataset.max_bad allows, else refused."""

import signal
from functools import partial

import pytest
import torch
from damaged_data import WHOLE, change, flip_in, log_of, picture, sample, write_shards
from several import after, send
from tiny_run import metrics, same, weights

from stec.actions import Compose
from stec.errors import DataError
from stec.loading import Stream
from stec.shards.reader import open_shards
from stec_vision.actions import AffineCrop
from stec_vision.decode import ImageCrop


@pytest.fixture
def run(train):
    return lambda *words: train("data=damaged", "run_dir=run", *words)


def cut_off(number):
    """The header is whole, half of the pixels are not there; where it came from is known."""
    raw = picture(number)
    return sample(number, png=raw[: len(raw) // 2], json=b'{"path": "holiday/%d.png"}' % number)


@pytest.mark.fault(28, "a picture that is cut off, dataset.max_bad=0", "refused, naming shard, key and the file it was")
def test_a_damaged_picture(run, seen, place):
    write_shards(place / "damaged", [*map(sample, range(20)), cut_off(20)])
    ended = run("dataset.max_bad=0", "batch_size=21")
    assert ended.code == 4
    assert ended.refusal.startswith("train-000000.tar: p0020 (holiday/20.png): a truncated or damaged picture")
    assert ended.refusal.endswith("(dataset.max_bad=0: no damaged sample is put up with).")
    seen(ended)


@pytest.mark.fault(28, "two pictures that are cut off, dataset.max_bad=0.1", "replaced, named and counted")
def test_damaged_pictures_within_the_limit(run, seen, place):
    write_shards(place / "damaged", [*map(sample, range(22)), cut_off(22), cut_off(23)])
    ended = run("dataset.max_bad=0.1", *WHOLE, "training.epochs=3")
    assert ended.code == 0, ended.err
    log = log_of(place / "run")
    begun = log[: log.index("step 9: evaluating")]
    for number in (22, 23):  # three times met, once told
        assert begun.count(f"damaged sample: train-000000.tar: p{number:04d} (holiday/{number}.png): ") == 1
    told = next(line for line in log.splitlines() if "damaged samples were replaced" in line).split(" WARNING ")[1]
    assert int(told.split()[0]) >= 6
    seen("survived: each is named once, and the end of the run says how many were replaced")


@pytest.mark.fault(28, "more damaged pictures than dataset.max_bad=0.1 allows", "refused, with the numbers")
def test_damaged_pictures_beyond_the_limit(run, seen, place):
    write_shards(place / "damaged", [*map(sample, range(20)), *map(cut_off, range(20, 24))])
    ended = run("dataset.max_bad=0.1", "batch_size=24")
    assert ended.code == 4
    assert ended.refusal.startswith(
        "4 of 24 samples were damaged, more than dataset.max_bad=0.1 allows; the last one: "
    )
    seen(ended)


@pytest.mark.fault(29, "every picture is damaged", "refused at once")
def test_every_picture_is_damaged(run, seen, place):
    write_shards(place / "damaged", map(cut_off, range(24)))
    ended = run("dataset.max_bad=0.9")
    assert ended.code == 4
    assert "and the 20 samples drawn in its place are damaged as well" in ended.refusal
    seen(ended)


@pytest.mark.fault(29, "no picture has even a header", "refused at once")
def test_nothing_is_a_picture(run, seen, place):
    write_shards(place / "damaged", [sample(number, png=b"no picture") for number in range(24)])
    ended = run("dataset.max_bad=0.9")
    assert ended.code == 4
    assert "none of the samples looked at can be read; the first of them: train-000000.tar: p0000: not" in ended.refusal
    seen(ended)


@pytest.mark.fault(30, "a sample without a picture", "a damaged sample: what is wanted and what is there")
def test_a_sample_without_what_is_read(run, seen, place):
    other = {"__key__": "p0020", "npz": b"1", "cls": b"0"}
    write_shards(place / "damaged", [*map(sample, range(20)), other])
    ended = run("dataset.max_bad=0", "batch_size=21")
    assert ended.code == 4
    assert ended.refusal.startswith("train-000000.tar: p0020: nothing to decode: there is cls, npz, wanted is one of")
    seen(ended)


@pytest.mark.fault(33, "fewer samples than a batch", "the batch is as large as the data, and this is said")
def test_fewer_samples_than_a_batch(run, seen, place):
    write_shards(place / "damaged", map(sample, range(6)))
    ended = run("training.stop_after=1")
    assert ended.code == 0, ended.err
    told = "batch_size: 6 instead of 8, for there are no more samples"
    assert told in log_of(place / "run")
    seen(f"survived: {told}")


@pytest.mark.fault(33, "a single sample", "refused: there is nothing to compare it with")
def test_a_single_sample(run, seen, place):
    write_shards(place / "damaged", map(sample, range(1)))
    ended = run()
    assert ended.code == 2
    assert ended.refusal == "too few samples to learn from, 1: at least 2 are needed."
    seen(ended)


@pytest.mark.fault(42, "a label that is no class (10, -100, cat)", "a damaged sample, before any loss")
def test_labels_that_are_no_classes(run, seen, place):
    wrong = {20: b"10", 21: b"-100", 22: b"cat"}
    write_shards(place / "damaged", [sample(n, cls=wrong[n]) if n in wrong else sample(n) for n in range(30)])
    ended = run("dataset.max_bad=0.1", "batch_size=30", "training.stop_after=1")
    assert ended.code == 0, ended.err
    log = log_of(place / "run")
    for told in (
        "p0020: the label 10 is not one of",
        "p0021: the label -100 is not",
        "p0022: the label 'cat' is not",
    ):
        assert log.count(f"damaged sample: train-000000.tar: {told}") == 1
    ended = run("dataset.max_bad=0", "run_dir=other", "batch_size=30")
    assert ended.code == 4
    assert ended.refusal.startswith("train-000000.tar: p002")
    seen(ended)


@pytest.mark.fault(42, "samples without labels among others", "learnt from, and passed over where labels are read")
def test_missing_labels(run, seen, place):
    bare = [{"__key__": f"p{number:04d}", "png": picture(number)} for number in range(12, 24)]
    write_shards(place / "damaged", [*map(sample, range(12)), *bare])
    ended = run("dataset.max_bad=0", "batch_size=24", "training.stop_after=2")
    assert ended.code == 0, ended.err
    assert "damaged sample" not in log_of(place / "run")
    seen("survived: half of the labels are unknown, no sample is lost")


def damaged_shards(folder):
    """54 samples in 9 tars: one tar gone, one cut, and a bit flipped in a third."""
    shards = write_shards(folder, map(sample, range(54)), samples_per_shard=6)
    flip_in(shards, 20)
    (shards / "train-000005.tar").unlink()
    change(shards / "train-000007.tar", lambda data: data[:5000])
    return shards


@pytest.mark.fault(28, "damaged data, and a signal in between", "the same stand-ins, with other loading processes too")
def test_a_resume_meets_the_same_stand_ins(train, seen, place):
    damaged_shards(place / "damaged")
    words = ("data=damaged", "dataset.max_bad=0.4", "training.stop_after=9")
    assert train(*words, "run_dir=whole").code == 0
    assert train(*words, "run_dir=run", before=partial(after, 5, send, signal.SIGTERM)).code == 143
    assert train(*words, "run_dir=run", "hardware.num_workers=2").code == 0
    assert metrics(place / "run") == metrics(place / "whole")
    assert same(weights(place / "run"), weights(place / "whole"))
    seen("survived: the same weights and metrics, bit for bit")


def test_the_slots_of_all_other_samples_stay_as_they_are(tmp_path):
    """Keys of an epoch, whole and in parts, with and without loading processes."""
    space = Compose({"affine_crop": AffineCrop(size=16)})

    def keys(folder, max_bad, num_workers=0, first=0):
        stream = Stream(
            open_shards(folder, max_bad),
            ImageCrop(space),
            space,
            batch_size=9,
            seed=1,
            window=3,
            max_bad=max_bad,
            num_workers=num_workers,
        )
        return torch.cat([batch.keys[:, 2] for batch in stream.batches(1, first)])

    whole = keys(write_shards(tmp_path / "whole", map(sample, range(54)), samples_per_shard=6), 0.0)
    folder = damaged_shards(tmp_path / "damaged")
    with pytest.raises(DataError):
        open_shards(folder)
    shards, lost = open_shards(folder, 0.4), set()
    for number in range(54):
        try:
            shards.read(number)
        except DataError:
            lost.add(number)
    assert {20, *range(30, 36)} < lost < {20, *range(30, 36), *range(42, 48)}
    found = keys(folder, 0.4)
    for was, now in zip(whole.tolist(), found.tolist(), strict=True):
        assert now not in lost
        assert was in lost or now == was
    assert torch.equal(keys(folder, 0.4, num_workers=2), found)
    assert torch.equal(keys(folder, 0.4, num_workers=2, first=2), found[18:])
    assert torch.equal(keys(folder, 0.4, first=5), found[45:])
