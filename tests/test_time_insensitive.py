"""The time-insensitive model is NT-Xent on frames picked at random, and does not ask when."""

import pytest
import torch
from test_rng import mass_is_even
from toy_sequence import DIMS, sequence_views, some_features

from stec.encoder import Features
from stec.errors import UsageError
from stec.identity import time_insensitive
from stec.identity.time_insensitive import TimeInsensitive
from stec.losses import nt_xent
from stec.rng import make_keys

BATCH, LENGTH = 6, 5


def model(**options):
    torch.manual_seed(1)
    return TimeInsensitive(DIMS, **{"hidden": 8, "out": 4} | options).double()


def picked(monkeypatch, first, step):
    """Let the draws of every view be: the frames `first` [B, F], and `step` - 1 to go on from the frame after it."""
    draws = torch.stack([(first + 0.5) / LENGTH, (step - 0.5) / (LENGTH - 1)], dim=2).flatten(1).double()
    monkeypatch.setattr(time_insensitive, "uniform", lambda keys, view, stream, num: draws)
    return first, (first + step) % LENGTH


def at(x, time):
    return torch.stack([x[b, time[b]] for b in range(len(x))])


@pytest.mark.parametrize("reads", ["context", "local"])
def test_windows_are_compared_by_a_frame_of_each(monkeypatch, reads):
    term = model(reads=reads, temperature=0.3)
    features, views = tuple(some_features(BATCH, LENGTH, seed) for seed in (0, 1)), sequence_views(BATCH, LENGTH, 2)
    first, _ = picked(monkeypatch, torch.tensor([[0], [4], [2], [2], [1], [3]]), torch.ones(BATCH, 1))
    a, b = (at(getattr(f, reads), first[:, 0]) for f in features)
    expected = nt_xent(*term.projector(torch.cat([a, b])).chunk(2), 0.3)
    out = term(features, views)
    assert torch.allclose(out.loss, expected.mean())
    assert out.sums["train/loss_id"][1] == 2 * BATCH
    leaves = [getattr(f, reads) for f in features]
    for one, other in zip(
        torch.autograd.grad(out.loss, leaves), torch.autograd.grad(expected.mean(), leaves), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-12)
    assert term.needs == {reads}
    assert term.num_views == 2


def test_frames_of_one_window_are_compared_view_by_view(monkeypatch):
    term, views = model(design="frames").eval(), sequence_views(BATCH, LENGTH, 3)
    features = tuple(some_features(BATCH, LENGTH, seed) for seed in range(3))
    first, second = picked(
        monkeypatch, torch.tensor([[0], [4], [2], [2], [1], [3]]), torch.tensor([[1], [2], [3], [4], [1], [2]])
    )
    each = [
        nt_xent(term.projector(at(f.context, first[:, 0])), term.projector(at(f.context, second[:, 0])), 0.2)
        for f in features
    ]
    assert torch.allclose(term(features, views).loss, torch.stack(each).mean())
    assert torch.allclose(term(features[:1], views).loss, each[0].mean())
    assert term.num_views == 1


@pytest.mark.parametrize("design", ["windows", "frames"])
def test_several_draws_are_averaged(monkeypatch, design):
    one, many = model(design=design).eval(), model(design=design, num_frames=3).eval()
    features, views = tuple(some_features(BATCH, LENGTH, seed) for seed in (0, 1)), sequence_views(BATCH, LENGTH, 2)
    first, step = torch.arange(18).view(6, 3) % LENGTH, torch.arange(18).view(6, 3) % 4 + 1
    losses = []
    for n in range(3):
        picked(monkeypatch, first[:, n : n + 1], step[:, n : n + 1])
        losses.append(one(features, views).loss)
    picked(monkeypatch, first, step)
    assert torch.allclose(many(features, views).loss, torch.stack(losses).mean())


@pytest.mark.parametrize("design", ["windows", "frames"])
def test_of_a_context_that_stands_still_any_frame_will_do(design):
    term = model(design=design, num_frames=2)
    features = tuple(
        f._replace(context=f.context[:, :1].expand(-1, LENGTH, -1))
        for f in (some_features(BATCH, LENGTH, seed) for seed in (0, 1))
    )
    views = sequence_views(BATCH, LENGTH, 2)
    losses = [term(features, views._replace(keys=make_keys(seed, 0, torch.arange(BATCH)))).loss for seed in range(5)]
    assert torch.allclose(torch.stack(losses), losses[0].expand(5))


@pytest.mark.parametrize("real", [None, torch.tensor([3, 1]).repeat(3000)], ids=["whole", "padded"])
def test_all_frames_and_all_pairs_of_two_are_equally_likely(real):
    num = 6000
    time = torch.arange(LENGTH).double()[None, :, None].expand(num, -1, 1)
    term = TimeInsensitive({"context": 1}, design="frames", num_frames=2)
    views = sequence_views(2, LENGTH)._replace(keys=make_keys(5, 0, torch.arange(num)))
    drawn = term._drawn(Features(time[:, 0], context=time, frames=real), views, 0).squeeze(3).long()
    for n in range(2):
        first, second = drawn[0, n], drawn[1, n]
        if real is not None:
            assert (first[1::2] == 0).all()
            assert (second[1::2] == 0).all()  # of one frame there is no other
            first, second = first[::2], second[::2]
        assert (first != second).all()
        counts = (first * LENGTH + second).bincount(minlength=LENGTH**2)
        possible = LENGTH if real is None else 3
        assert (counts > 0).sum() == possible * (possible - 1)
        assert mass_is_even(counts[counts > 0].numpy())
    assert not torch.equal(drawn[:, 0], drawn[:, 1])


def test_views_and_keys_draw_apart():
    time = torch.arange(50).double()[None, :, None].expand(40, -1, 1)
    term, views = TimeInsensitive({"context": 1}), sequence_views(40, 9)
    f = Features(time[:, 0], context=time)
    one, other = term._drawn(f, views, 0), term._drawn(f, views, 1)
    assert (one != other).float().mean() > 0.8
    again = term._drawn(f._replace(context=time[10:12]), views._replace(keys=views.keys[10:12]), 0)
    assert torch.equal(again, one[:, :, 10:12])


@pytest.mark.parametrize("negatives", ["global", "local"])
def test_accuracy_counts_who_is_nearest_and_no_ties(negatives):
    term, views = TimeInsensitive({"context": 12}, out=12, negatives=negatives), sequence_views(12, LENGTH, 2)
    term.projector = torch.nn.Identity()
    apart = Features(torch.zeros(12, 1), context=torch.eye(12)[:, None].expand(-1, LENGTH, -1))
    same = apart._replace(context=torch.ones(12, LENGTH, 12))
    half = apart.context.clone()
    half[:6] = half[:6].roll(1, 0)
    for second, right in ((apart, 24), (same, 0), (apart._replace(context=half), 12)):
        total, count = term((apart, second), views).sums["train/time_insensitive_acc"]
        assert (total, count) == (right, 24)


def test_under_autocast_the_loss_is_float32_and_everything_learns():
    term, views = model().float(), sequence_views(BATCH, LENGTH, 2)
    features = tuple(some_features(BATCH, LENGTH, seed) for seed in (0, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = term(tuple(f._replace(context=f.context.float()) for f in features), views)
    assert out.loss.dtype == torch.float32
    out.loss.backward()
    assert all(p.grad is not None for p in term.parameters() if p.requires_grad)
    assert "2 views" not in term.describe()
    assert "frames of two views (context)" in term.describe()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"design": "mean"}, "design='mean' is unknown: choose one of windows, frames"),
        ({"reads": "pooled"}, "choose one of context, local"),
        ({"negatives": "none"}, "choose one of global, local"),
        ({"num_frames": 0}, "num_frames=0 must be at least 1"),
        ({"out": 0}, "out=0 must be at least 1"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
    ],
)
def test_bad_options_are_told_in_a_sentence(options, words):
    with pytest.raises(UsageError, match=rf"^identity\.time_insensitive\..*{words}"):
        model(**options)


def test_what_cannot_be_compared_is_told():
    with pytest.raises(UsageError, match="reads=context is an output that this encoder lacks"):
        TimeInsensitive({"pooled": 8})
    with pytest.raises(UsageError, match="it has only one"):
        model(design="frames")((some_features(BATCH, 1),), sequence_views(BATCH))
