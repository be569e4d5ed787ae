"""MoCo: a softmax over one key and a queue, and a queue that holds the newest keys, whatever its size."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from test_objective import TwoLayers

from stec.errors import UsageError
from stec.identity.moco import MoCo, moco
from stec.losses import info_nce
from stec.objective import STEC
from stec.rng import make_keys
from stec.views import Views

BATCH = 6


def some(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape, seed=0):
    return F.normalize(some(*shape, seed=seed), dim=1)


def two_views(num=BATCH, seed=8):
    return Views((some(num, 4, seed=seed), some(num, 4, seed=seed + 50)), {}, 2, make_keys(0, 0, torch.arange(num)))


def model(**options):
    torch.manual_seed(1)
    encoder = TwoLayers(options.pop("batch_norm", False)).double()
    return encoder, MoCo(encoder, **{"hidden": 7, "out": 5, "queue": 20} | options).double()


def slow(q, k, queue, temperature):
    """-log of the share of exp(cos(q, k) / temperature), in plain loops."""
    losses = []
    for a, b in zip(q.detach(), k, strict=True):
        scores = [math.exp(float(a @ c / (a.norm() * c.norm())) / temperature) for c in (b, *queue)]
        losses.append(-math.log(scores[0] / sum(scores)))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_it_is_its_slow_twin(temperature):
    q, k, queue = some(6, 5), some(6, 5, seed=1), unit(9, 5, seed=2)
    assert torch.allclose(moco(q, k, queue, temperature), slow(q, k, queue, temperature), rtol=1e-12)


def test_lightly_agrees():
    q, k, queue = some(32, 16), some(32, 16, seed=1), unit(100, 16, seed=2)
    theirs = NTXentLoss(temperature=0.2, memory_bank_size=(100, 16)).double()
    theirs.memory_bank.bank = queue.clone()
    assert torch.allclose(moco(q, k, queue, 0.2).mean(), theirs(q, k), rtol=1e-12)


def test_of_one_query_it_is_info_nce_over_its_key_and_the_queue():
    q, k, queue = unit(4, 5), unit(4, 5, seed=1), unit(9, 5, seed=2)
    for a, b, loss in zip(q, k, moco(q, k, queue, 0.3), strict=True):
        candidates = torch.cat([queue, b[None]])
        assert torch.allclose(info_nce(a[None], candidates, torch.tensor([9]), 0.3)[0], loss)


def test_its_limits():
    q = unit(4, 8)
    same = q[:1].expand(9, -1)
    assert torch.allclose(moco(q[:1], q[:1], same, 0.2), torch.tensor([math.log(10)]).double())
    assert torch.allclose(
        moco(q, some(4, 8, seed=1), unit(9, 8, seed=2), 1e6), torch.full((4,), math.log(10)).double(), rtol=1e-5
    )
    assert moco(q, q, -same, 0.01)[0] < 1e-12
    assert torch.allclose(moco(3 * q, q / 7, unit(9, 8), 0.2), moco(q, q, unit(9, 8), 0.2), rtol=1e-12)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(moco(q, q, unit(9, 8), 0.2), moco(q, q, unit(9, 8)[order], 0.2), rtol=1e-12)


def test_only_queries_get_a_gradient():
    q, k, queue = some(4, 5).requires_grad_(), some(4, 5, seed=1).requires_grad_(), unit(9, 5, seed=2)
    moco(q, k, queue, 0.2).mean().backward()
    assert k.grad is None
    assert torch.autograd.gradcheck(lambda z: moco(z, k, queue, 0.2), (q,))


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_term_scores_queries_against_the_teacher_s_keys_and_the_queue_as_it_was(symmetric):
    encoder, term = model(symmetric=symmetric)
    views, queue = two_views(), term.queue.clone()
    with torch.no_grad():
        for p in term.teacher.parameters():
            p.mul_(1.3)
    features = tuple(encoder(x) for x in views.x)
    out = term(features, views)
    q1, q2 = (term.projector(f.pooled) for f in features)
    k1, k2 = term.teacher(views.x)
    losses = slow(q1, k2, queue, 0.2)
    if symmetric:
        losses = torch.cat([losses, slow(q2, k1, queue, 0.2)])
    assert torch.allclose(out.loss, losses.mean(), rtol=1e-10)
    total, count = out.sums["train/loss_id"]
    assert total.item() / count.item() == pytest.approx(losses.mean().item(), rel=1e-6)
    assert count == len(losses)
    right = [(F.normalize(q, dim=1) @ F.normalize(k, dim=1).T).diag() for q, k in ((q1, k2), (q2, k1))]
    best = [(F.normalize(q, dim=1) @ queue.T).amax(1) for q in (q1, q2)]
    wins = sum(int((r > b).sum()) for r, b in list(zip(right, best, strict=True))[: 2 if symmetric else 1])
    assert out.sums["train/moco_acc"] == (wins, len(losses))
    out.loss.backward()  # the queue has changed meanwhile


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("size", [12, 17, 40])
def test_the_queue_holds_the_newest_keys(symmetric, size):
    encoder, term = model(symmetric=symmetric, queue=size)
    expected = list(term.queue)  # the oldest first
    for step in range(8):
        views = two_views(seed=step)
        term(tuple(encoder(x) for x in views.x), views)
        k1, k2 = (F.normalize(k, dim=1) for k in term.teacher(views.x))
        expected = [*expected, *k2, *(k1 if symmetric else ())][-size:]
        held = term.queue.roll(-int(term.oldest), 0)
        assert torch.allclose(held, torch.stack(expected))


def test_the_queue_stands_still_in_evaluation_and_begins_on_the_sphere():
    encoder, term = model()
    views, before = two_views(), copy.deepcopy(term.queue)
    assert torch.allclose(before.norm(dim=1), torch.ones(20).double(), rtol=1e-6)
    assert (before @ before.T - torch.eye(20).double()).amax() < 0.999
    term.eval()
    features = tuple(encoder(x) for x in views.x)
    assert torch.equal(term(features, views).loss, term(features, views).loss)
    assert torch.equal(term.queue, before)
    term.train()
    first, second = (term(features, views).loss for _ in range(2))
    assert second > first  # its own keys are among the others now
    assert torch.equal(model()[1].queue, before)  # torch's generator decides


def test_a_checkpoint_carries_the_queue():
    encoder, term = model()
    views = two_views()
    features = tuple(encoder(x) for x in views.x)
    term(features, views)
    other = model()[1]
    other.load_state_dict(term.state_dict())
    assert int(other.oldest) == BATCH
    assert torch.equal(other(features, views).loss, term(features, views).loss)
    assert torch.equal(other.queue, term.queue)


def test_it_learns_everything_but_the_teacher_which_follows():
    encoder, term = model(momentum=0.9)
    stec = STEC(encoder, {"moco": (1.0, term)}, {}, {}).double()
    stec.before_step(0, 10)
    stec(two_views()).loss.backward()
    for name, p in stec.named_parameters():
        assert (p.grad is not None) == p.requires_grad == ("teacher" not in name), name
    torch.optim.SGD([p for p in stec.parameters() if p.requires_grad], lr=0.1).step()
    before = term.teacher.projector[0].weight.clone()
    stec.before_step(9, 10)
    assert torch.allclose(term.teacher.projector[0].weight, 0.9 * before + 0.1 * term.projector[0].weight)
    rising = model(momentum=0.9, final_momentum=0.99)[1].teacher
    assert [rising.rate(step, 10) for step in (0, 5, 10)] == pytest.approx([0.9, 0.945, 0.99])


def test_the_head_has_no_batch_norm():
    _, term = model()
    assert [type(m).__name__ for m in term.projector] == ["Linear", "ReLU", "Linear"]


def test_under_autocast_the_loss_is_float32():
    encoder, term = model()
    encoder, term, views = encoder.float(), term.float(), two_views()
    views = views._replace(x=tuple(x.float() for x in views.x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = tuple(encoder(x) for x in views.x)
        assert features[0].pooled.dtype == torch.bfloat16
        out = term(features, views)
    assert out.loss.dtype == term.queue.dtype == torch.float32
    assert torch.allclose(term.queue.norm(dim=1), torch.ones(20), atol=1e-6)
    out.loss.backward()
    assert all(p.grad is not None for p in term.parameters() if p.requires_grad)


def test_it_says_what_is_averaged_and_what_a_guess_is_worth():
    _, term = model(queue=99)
    assert term.chance() == {"train/loss_id": pytest.approx(math.log(100)), "train/moco_acc": 0.01}
    assert "queue of 99, averaged over B queries of the first view" in term.describe()
    both = model(symmetric=True, momentum=0.99, final_momentum=0.999)[1].describe()
    assert "2B queries of both views" in both
    assert "momentum 0.99 rising to 0.999" in both


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"momentum": 1.1}, "identity.moco.momentum=1.1 must be in [0, 1]."),
        ({"momentum": 0.9, "final_momentum": 0.5}, "identity.moco.final_momentum=0.5 must be in"),
        ({"queue": 0}, "identity.moco.queue=0 must be at least 1."),
        ({"hidden": 0}, "identity.moco.hidden=0 must be at least 1."),
        ({"out": 0}, "identity.moco.out=0 must be at least 1."),
        ({"temperature": 0.0}, "identity.moco.temperature=0.0 must be above 0."),
    ],
)
def test_what_makes_no_sense_is_refused(options, told):
    with pytest.raises(UsageError) as caught:
        model(**options)
    assert str(caught.value).startswith(told)


def test_a_queue_that_a_batch_overflows_is_refused():
    encoder, term = model(queue=2 * BATCH - 1, symmetric=True)
    views = two_views()
    with pytest.raises(
        UsageError, match=r"^identity\.moco\.queue=11 must be at least the 12 keys that a batch adds\.$"
    ):
        term(tuple(encoder(x) for x in views.x), views)
