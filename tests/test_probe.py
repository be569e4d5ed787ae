import math

import pytest
import torch
import torch.nn.functional as F

from stec.encoder import Features
from stec.errors import UsageError
from stec.probe import OnlineProbe
from stec.views import Views

DIMS = {"pooled": 4, "inner": 3}


def labelled(labels: list[int] | None, width: int = 4) -> tuple[tuple[Features, Features], Views]:
    num = 6 if labels is None else len(labels)
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(num, width, generator=generator, requires_grad=True) for _ in range(2))
    views = Views((first, second), {}, 2, torch.zeros(num, 3), labels=None if labels is None else torch.tensor(labels))
    return (Features(first), Features(second)), views


def test_both_views_count_and_unknown_labels_do_not():
    features, views = labelled([0, 2, -1, 1, -1, 2])
    probe = OnlineProbe(DIMS, 3)
    out = probe(features, views)
    known = views.labels >= 0
    seen = torch.cat([f.pooled[known] for f in features])
    answers = views.labels[known].repeat(2)
    logits = probe.linear(seen)
    assert torch.allclose(out.loss, F.cross_entropy(logits, answers))
    total, count = out.sums["probe/online/top1"]
    assert count == 8
    assert total == (logits.argmax(dim=1) == answers).sum()
    total, count = out.sums["probe/online/loss"]
    assert torch.allclose(total / count, out.loss)


def test_the_gradient_stops_at_the_probe():
    features, views = labelled([0, 1, 2, 0, 1, 2])
    probe = OnlineProbe(DIMS, 3)
    probe(features, views).loss.backward()
    assert all(f.pooled.grad is None for f in features)
    assert all(p.grad.abs().sum() > 0 for p in probe.parameters())


@pytest.mark.parametrize("labels", [None, [-1] * 6])
def test_without_labels_nothing_is_learnt_and_nothing_hangs(labels):
    features, views = labelled(labels)
    probe = OnlineProbe(DIMS, 3)
    out = probe(features, views)
    out.loss.backward()
    assert out.loss == 0
    assert all(p.grad.abs().sum() == 0 for p in probe.parameters())  # there, as DDP wants it, and zero
    assert all(count == 0 for _, count in out.sums.values())
    assert bool(out.sums) == (labels is not None)


def test_it_starts_as_a_guesser_and_learns_what_is_there():
    torch.manual_seed(0)
    probe = OnlineProbe(DIMS, 4)
    labels = torch.arange(64) % 4
    x = F.one_hot(labels, 4).float()
    views = Views((x,), {}, 1, torch.zeros(64, 3), labels=labels)
    start = probe((Features(x),), views)
    chance = probe.chance()
    assert chance == {"probe/online/top1": 0.25, "probe/online/loss": pytest.approx(math.log(4))}
    assert start.loss.item() == pytest.approx(chance["probe/online/loss"], abs=0.05)
    optimizer = torch.optim.SGD(probe.parameters(), lr=10.0)
    for _ in range(20):
        optimizer.zero_grad()
        probe((Features(x),), views).loss.backward()
        optimizer.step()
    assert probe((Features(x),), views).sums["probe/online/top1"][0] == 64


def test_it_reads_a_named_layer():
    probe = OnlineProbe(DIMS, 2, tap="inner")
    assert probe.needs == {"inner"}
    assert probe.linear.in_features == 3
    x = torch.zeros(2, 4)
    features = (Features(x, layers={"inner": torch.ones(2, 3)}),)
    out = probe(features, Views((x,), {}, 1, torch.zeros(2, 3), labels=torch.tensor([0, 1])))
    expected = F.cross_entropy(probe.linear(torch.ones(2, 3)), torch.tensor([0, 1]))
    assert torch.allclose(out.loss, expected)


def test_bad_input_is_told_in_a_sentence():
    with pytest.raises(UsageError, match="at least 2 classes, but the data has 1"):
        OnlineProbe(DIMS, 1)
    with pytest.raises(UsageError, match="choose one of pooled, inner"):
        OnlineProbe(DIMS, 3, tap="outer")


def test_the_opening_line_names_the_chance_level():
    assert OnlineProbe(DIMS, 4).describe() == "linear probe on detached features (4 classes, chance 0.250)"
