"""The offset between a context and a frame: drawn evenly, binned evenly, learnt where it shows."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_rng import mass_is_even
from toy_sequence import DIMS, sequence_views, some_features

from stec.encoder import Features
from stec.errors import UsageError
from stec.manipulation.frame_offset import FrameOffset
from stec.rng import make_keys

BATCH, LENGTH = 6, 9


def model(dims=DIMS, **options):
    torch.manual_seed(1)
    return FrameOffset(dims, **{"reach": 4, "num_bins": 4, "num_pairs": 5, "hidden": 8} | options)


@pytest.mark.parametrize("real", [None, torch.tensor([9, 4, 1, 6])], ids=["whole", "padded"])
@pytest.mark.parametrize("past", [True, False])
def test_offsets_are_drawn_evenly_and_places_evenly_among_the_possible(past, real):
    term = model(past=past, num_pairs=50)
    keys, frames = make_keys(3, 0, torch.arange(400)), None if real is None else real.repeat(100)
    pairs = term.draw(keys, 0, LENGTH, frames)
    k = pairs.there - pairs.here
    every = [*range(-4, 0), 1, 2, 3, 4] if past else [1, 2, 3, 4]
    assert k.unique().tolist() == every
    assert torch.equal(k, torch.tensor(every)[pairs.offset])
    assert mass_is_even(pairs.offset.flatten().bincount().numpy())
    for place in (pairs.here, pairs.there):
        assert place.min() >= 0
        assert place.max() < LENGTH
    long = torch.full((400, 1), LENGTH) if frames is None else frames[:, None]
    assert torch.equal(pairs.valid, k.abs() < long)
    assert (torch.maximum(pairs.here, pairs.there) < long)[pairs.valid].all()
    for offset in (every[0], every[-1]):
        here = pairs.here[(k == offset) & (long == LENGTH)]
        assert mass_is_even((here - max(0, -offset)).bincount(minlength=LENGTH - abs(offset)).numpy())


def test_draws_hang_on_key_and_view():
    term, keys = model(num_pairs=40), make_keys(3, 0, torch.arange(20))
    one = term.draw(keys, 0, LENGTH)
    assert torch.equal(term.draw(keys[5:9], 0, LENGTH).here, one.here[5:9])
    assert not torch.equal(term.draw(keys, 1, LENGTH).offset, one.offset)


@pytest.mark.parametrize(
    ("reach", "past", "num_bins", "sizes"),
    [(12, True, 6, [4] * 6), (12, False, None, [1] * 12), (3, True, None, [1] * 6), (5, False, 2, [3, 2])],
)
def test_classes_are_neighbours_of_equal_mass(reach, past, num_bins, sizes):
    term = model(reach=reach, past=past, num_bins=num_bins)
    assert term.classes.bincount().tolist() == sizes
    assert (term.classes.diff() >= 0).all()
    shares = [size / sum(sizes) for size in sizes]
    level = term.chance()
    assert level["train/loss_manip"] == pytest.approx(-sum(p * math.log(p) for p in shares))
    assert level["train/action_acc/frame_offset"] == pytest.approx(max(shares))
    assert level["train/action_bits/frame_offset"] == 0


@pytest.mark.parametrize("real", [None, torch.tensor([9, 4, 1, 6, 9, 2])], ids=["whole", "padded"])
def test_the_loss_is_the_mean_cross_entropy_over_all_valid_pairs(real):
    term, views = model().double().eval(), sequence_views(BATCH, LENGTH, 2)
    features = tuple(some_features(BATCH, LENGTH, seed, real) for seed in (0, 1))
    losses, right = [], []
    for number, f in enumerate(features):
        pairs = term.draw(views.keys, number, LENGTH, real)
        for b in range(BATCH):
            for here, there, valid in zip(pairs.here[b], pairs.there[b], pairs.valid[b], strict=True):
                if valid:
                    logits = term.head(torch.cat([f.context[b, here], f.local[b, there]])[None])
                    offset = int(there - here)
                    answer = torch.tensor([(offset + 4 - (offset > 0)) // 2])
                    losses.append(F.cross_entropy(logits, answer))
                    right.append(bool(logits.argmax() == answer))
    out, expected = term(features, views), torch.stack(losses).mean()
    assert torch.allclose(out.loss, expected)
    told = {name: (total / count).item() for name, (total, count) in out.sums.items()}
    assert told == pytest.approx(
        {
            "train/loss_manip": expected.item(),
            "train/action_acc/frame_offset": sum(right) / len(right),
            "train/action_bits/frame_offset": (math.log(4) - expected.item()) / math.log(2),
        },
        rel=1e-5,
    )
    assert told.keys() == term.chance().keys()
    leaves = [x for f in features for x in (f.local, f.context)]
    for a, b in zip(torch.autograd.grad(out.loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("shown", [True, False])
def test_an_offset_is_learnt_where_frames_show_their_time(shown):
    term = model({"context": LENGTH, "local": LENGTH}, hidden=64, num_pairs=32)
    optimizer = torch.optim.Adam(term.parameters(), lr=0.01)
    time = torch.eye(LENGTH).expand(BATCH, -1, -1)
    f = Features(time[:, 0], time if shown else time[:, torch.randperm(LENGTH)[:1]].expand_as(time), time)
    for step in range(60):
        views = sequence_views(BATCH)._replace(keys=make_keys(0, step, torch.arange(BATCH)))
        optimizer.zero_grad()
        out = term((f,), views)
        out.loss.backward()
        optimizer.step()
    total, count = out.sums["train/action_bits/frame_offset"]
    assert (total / count > 1.5) == shown
    if not shown:  # the place itself tells a little: from the first frame one can only go on
        assert total / count < 0.9


def test_under_autocast_the_loss_is_float32_and_everything_learns():
    term, f = model(), some_features(BATCH, LENGTH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = term((f._replace(local=f.local.float(), context=f.context.float()),), sequence_views(BATCH))
    assert out.loss.dtype == torch.float32
    out.loss.backward()
    assert all(p.grad is not None for p in term.parameters())


def test_the_opening_line_tells_the_bins():
    assert "-4 to 4 in 4 bins, chance 1.39 nats, majority 0.250" in model().describe()
    assert "1 to 4 in 4 bins" in model(past=False, num_bins=None).describe()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reach": 0}, "reach=0 must be at least 1"),
        ({"num_pairs": 0}, "num_pairs=0 must be at least 1"),
        ({"hidden": 0}, "hidden=0 must be at least 1"),
        ({"num_bins": 1}, "num_bins=1 leaves nothing to tell apart"),
        ({"num_bins": 9}, "num_bins=9 .* no more than there are offsets, 8"),
        ({"reach": 1, "past": False, "num_bins": None}, "reach=1 leaves nothing"),
    ],
)
def test_bad_options_are_told_in_a_sentence(options, words):
    with pytest.raises(UsageError, match=rf"^manipulation\.frame_offset\.{words}"):
        model(**options)


def test_what_cannot_be_reached_is_told():
    with pytest.raises(UsageError, match="reads the output context, local"):
        model({"pooled": 8})
    with pytest.raises(UsageError, match=r"reach=4 must be below the 4 frames"):
        model()((some_features(BATCH, 4),), sequence_views(BATCH))
