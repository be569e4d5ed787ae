"""Shards that are missing, cut, flipped, empty or something else: refused, or survived within dataset.max_bad."""

import sys
from pathlib import Path

import pytest
from damaged_data import EPOCH, change, flip_in, log_of, sample, write_shards

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "trust"))

import damage

ERROR, SKIP = "dataset.max_bad=0", "dataset.max_bad=0.4"


@pytest.fixture
def shards(place):
    """damaged/train: 54 samples in 9 tars of 6."""
    return write_shards(place / "damaged", map(sample, range(54)), samples_per_shard=6)


def tar(shards, number):
    return shards / f"train-{number:06d}.tar"


@pytest.fixture
def run(train):
    return lambda *words: train("data=damaged", "run_dir=run", *EPOCH, *words)


@pytest.mark.fault(25, "missing shards, dataset.max_bad=0", "refused at the start, naming them (five at most)")
def test_missing_shards(run, seen, shards):
    for number in range(7):
        tar(shards, number).unlink()
    ended = run(ERROR)
    assert ended.code == 4
    assert all(f"train-{number:06d}.tar is not readable (No such file" in ended.refusal for number in range(5))
    assert ended.refusal.endswith(", and 2 more such files.")
    seen(ended)


@pytest.mark.fault(
    25, "a missing shard, dataset.max_bad=0.4", "named at the start; its samples are replaced, and named"
)
def test_a_missing_shard_within_the_limit(run, seen, shards, place):
    tar(shards, 3).unlink()
    ended = run(SKIP)
    assert ended.code == 0, ended.err
    log = log_of(place / "run")
    told = "damaged shard: train-000003.tar is not readable (No such file or directory): 6 of its 6 samples are lost"
    assert log.count(told) == 1
    assert log.index(told) < log.index("damaged sample: ")
    for number in range(54):  # one epoch: each comes once, those that are there without a word
        assert log.count(f"damaged sample: train-000003.tar: p{number:04d} cannot be read") == (18 <= number < 24)
    seen(f"survived: {told}")


@pytest.mark.fault(25, "more missing shards than dataset.max_bad=0.4 allows", "refused at the start, with the numbers")
def test_missing_shards_beyond_the_limit(run, seen, shards):
    for number in range(4):
        tar(shards, number).unlink()
    ended = run(SKIP)
    assert ended.code == 4
    assert "24 of 54 samples are lost, more than dataset.max_bad=0.4 allows: train-000000.tar is not" in ended.refusal
    seen(ended)


@pytest.mark.fault(26, "a shard that is cut off, dataset.max_bad=0", "refused at the start: its size tells")
def test_a_cut_shard(run, seen, shards):
    change(tar(shards, 2), lambda data: data[:5000])
    ended = run(ERROR)
    assert ended.code == 4
    assert "train-000002.tar has 5000 bytes, the index says " in ended.refusal
    seen(ended)


@pytest.mark.fault(26, "a shard that is cut off, dataset.max_bad=0.4", "what lies beyond it is replaced, each named")
def test_a_cut_shard_within_the_limit(run, seen, shards, place):
    size = tar(shards, 2).stat().st_size
    change(tar(shards, 2), lambda data: data[:5000])
    ended = run(SKIP)
    assert ended.code == 0, ended.err
    log = log_of(place / "run")
    lost = log.count("damaged sample: train-000002.tar: p00")
    told = f"damaged shard: train-000002.tar has 5000 bytes, the index says {size}: {lost} of its 6 samples are lost"
    assert 0 < lost < 6
    assert told in log
    seen(f"survived: {told}")


@pytest.mark.fault(26, "a flipped bit in a shard, dataset.max_bad=0", "refused when the sample is read, naming it")
def test_a_flipped_bit(run, seen, shards):
    flip_in(shards, 20)
    ended = run(ERROR)
    assert ended.code == 4
    assert ended.refusal.startswith("train-000003.tar: p0020.png is damaged: its bytes are not those")
    seen(ended)


@pytest.mark.fault(26, "a flipped bit in a shard, `stec-shards verify`", "the shard and the sample are named")
def test_verify_finds_a_flipped_bit(command, seen, shards):
    flip_in(shards, 20)
    ended = command("stec-shards", "verify", "damaged")
    assert ended.code == 4
    said = ended.out + ended.err
    assert "Traceback" not in said
    assert "train-000003.tar has changed: its sha256" in said
    assert "train-000003.tar: p0020.png is damaged" in said
    seen(ended)


# webdataset leaves a tar open that it cannot read.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.fault(26, "cuts and flipped bits all over a shard and its index", "harmless, or noticed: none is silent")
def test_no_damage_is_silent(seen):
    counts = damage.run(every=1024, num_flips=25, bytes_apart=90)
    tried = {what for what, _, _ in counts}
    assert len(tried) == 8
    ours = {key: times for key, times in counts.items() if key[1] != "webdataset"}
    assert not [key for key in ours if key[2] == damage.SILENT], ours
    assert counts["tar, bit", "verify", damage.DETECTED] == 25  # whatever it hits
    assert counts["tar, bit", "skip", damage.HARMLESS] > 0
    assert counts["tar, cut", "webdataset", damage.SILENT] > 0  # the scale on which this is measured can tell
    seen("survived: no sample lost, or changed, without a word (`tools/trust/damage.py` tries 480 cuts and 300 bits)")


def other_things(shards):
    tar(shards, 1).write_bytes(b"")
    tar(shards, 4).write_bytes(bytes(10240))
    tar(shards, 6).write_bytes(b"<!DOCTYPE html><html><title>404 Not Found</title></html>\n")


FOREIGN = "a shard of 0 bytes, an empty tar and a web page in place of shards"


@pytest.mark.fault(27, f"{FOREIGN}, dataset.max_bad=0", "refused at the start, naming them")
def test_other_things_in_place_of_shards(run, seen, shards):
    other_things(shards)
    ended = run(ERROR)
    assert ended.code == 4
    for number in (1, 4, 6):
        assert f"train-{number:06d}.tar has " in ended.refusal
    seen(ended)


@pytest.mark.fault(27, f"{FOREIGN}, dataset.max_bad=0.4", "named at the start; their samples are replaced and counted")
def test_other_things_within_the_limit(run, seen, shards, place):
    other_things(shards)
    ended = run(SKIP)
    assert ended.code == 0, ended.err
    log = log_of(place / "run")
    for number in (1, 4, 6):
        assert log.count(f"damaged shard: train-{number:06d}.tar has ") == 1
        assert log.count(f"damaged sample: train-{number:06d}.tar: p") == 6
    seen("survived: all 18 samples of the three are named, replaced and counted")


@pytest.mark.fault(27, f"{FOREIGN}, `stec-shards index`", "refused; the empty tar is whole, and has no sample")
def test_other_things_are_not_indexed(command, seen, shards):
    whole = {number: tar(shards, number).read_bytes() for number in (1, 6)}
    other_things(shards)
    for number in whole:
        ended = command("stec-shards", "index", "damaged/train")
        assert ended.code == 4
        assert ended.refusal.startswith(f"train-{number:06d}.tar is not a whole tar")
        tar(shards, number).write_bytes(whole[number])
    indexed = command("stec-shards", "index", "damaged/train")
    assert indexed.code == 0
    assert "48 samples in 9 shards" in indexed.out
    seen(f"exit code 4: {ended.refusal.partition(':')[0]} (0 bytes: likewise); with the empty one, 48 of 54 samples")


@pytest.mark.fault(31, "a tar in which a key comes back, `stec-shards index`", "refused, naming the key")
def test_a_key_that_comes_back(command, seen, place, shards):
    first, second = tar(shards, 0).read_bytes(), tar(shards, 1).read_bytes()
    end = first.rstrip(b"\0")
    body = first[: -(-len(end) // 512) * 512]
    other = place / "others"
    other.mkdir()
    (other / "a.tar").write_bytes(body + second[: len(body)] + first)  # p0000 ... p0005, p0006 ..., p0000 ...
    ended = command("stec-shards", "index", "others")
    assert ended.code == 4
    assert ended.refusal.startswith("a.tar: key 'p0000' comes back after another one")
    seen(ended)
