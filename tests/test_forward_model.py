"""EquiMod: NT-Xent between embeddings and what the action says they would be."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from test_binned import EXTENTS, features_of, pair_views
from toy_space import Windows

from stec.actions import Relative
from stec.encoder import Features
from stec.errors import UsageError
from stec.losses import nt_xent
from stec.manipulation.forward_model import ForwardModel, forward_loss


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr("stec.copies._FIT_DRAWS", 4000)


def model(space=None, **options) -> ForwardModel:
    torch.manual_seed(0)
    return ForwardModel({"pooled": 8}, space or Windows(), EXTENTS, **{"hidden": 16, "out": 6, **options})


def two(num: int = 9, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(num, width, generator=generator).double(), torch.randn(num, width, generator=generator).double()


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_the_loss_of_a_slow_twin(similarity):
    true, predicted = two()
    each = [*true, *predicted]
    if similarity == "cosine":
        each = [e / e.norm() for e in each]
    expected = torch.zeros(18)
    for i, anchor in enumerate(each):
        scores = {j: float(anchor @ other) / 0.3 for j, other in enumerate(each) if j != i}
        expected[i] = math.log(sum(math.exp(s) for s in scores.values())) - scores[(i + 9) % 18]
    found = forward_loss(true, predicted, 0.3, similarity)
    torch.testing.assert_close(found.float(), (expected[:9] + expected[9:]) / 2)


def test_the_cosine_form_is_nt_xent_as_others_compute_it():
    true, predicted = two(32, 16)
    found = forward_loss(true, predicted, 0.2).mean()
    torch.testing.assert_close(found, nt_xent(true, predicted, 0.2).mean(), rtol=0, atol=1e-12)
    assert abs((found - NTXentLoss(temperature=0.2)(true, predicted)).item()) < 1e-12


def test_symmetry_scale_and_limits():
    true, predicted = two()
    torch.testing.assert_close(forward_loss(true, predicted, 0.2), forward_loss(predicted, true, 0.2))
    torch.testing.assert_close(forward_loss(3 * true, predicted, 0.2), forward_loss(true, predicted, 0.2))
    torch.testing.assert_close(
        forward_loss(2 * true, 2 * predicted, 0.4, "dot"), forward_loss(true, predicted, 0.1, "dot")
    )
    # Flat similarities are a guess among all others; a right prediction is not.
    assert forward_loss(true, predicted, 1e6).mean().item() == pytest.approx(math.log(17), abs=1e-4)
    assert forward_loss(torch.eye(6), torch.eye(6), 0.05).max() < 1e-6


def test_pairs_without_a_valid_component_are_candidates_but_not_averaged_over():
    forward, features = model(direction="forward").eval(), features_of()
    views = pair_views(Windows())
    copy = views.copies[0, 1]
    valid = copy.valid.clone()
    valid[:20] = False
    spoilt = Relative(torch.where(valid, copy.values, torch.nan), valid)
    out = forward(features, views._replace(copies={(0, 1): spoilt}))
    z = [forward.projector(f.pooled) for f in features]
    action = ((copy.values[:, forward.columns] - forward.mean) / forward.deviation).float()
    action[:20] = 0
    predicted = forward.predictor(torch.cat([z[0], forward.told(action)], dim=1))
    torch.testing.assert_close(out.loss, forward_loss(z[1], predicted, 0.2)[20:].mean())
    assert out.sums["train/loss_manip"][1] == 44
    total, count = out.sums["train/equivariance_gain"]
    gain = (F.cosine_similarity(predicted, z[1]) - F.cosine_similarity(z[0], z[1]))[20:].mean()
    torch.testing.assert_close(total / count, gain)
    out.loss.backward()
    assert all(torch.isfinite(f.pooled.grad).all() for f in features)


def test_swapping_the_views_changes_nothing_when_both_directions_are_taught():
    forward = model().eval()
    views, features = pair_views(Windows()), features_of()
    swapped = views._replace(copies={(0, 1): views.copies[1, 0], (1, 0): views.copies[0, 1]})
    torch.testing.assert_close(forward(features, views).loss, forward(features[::-1], swapped).loss)


@pytest.mark.parametrize("direction", ["forward", "both"])
def test_gradient_reaches_every_parameter_and_both_views(direction):
    forward, features = model(direction=direction), features_of()
    forward(features, pair_views(Windows())).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in forward.parameters())
    assert all(f.pooled.grad.abs().sum() > 0 for f in features)


def test_the_action_helps_and_a_yoked_one_does_not():
    """The first view is nothing, the second shows the action: only who is told it can say which one it is."""

    def seen(views):
        return Features(torch.zeros(128, 8)), Features(F.pad(views.copies[0, 1].values, (0, 2)).clamp(-3, 3))

    loss = {}
    views, fresh = pair_views(Windows(), 128), pair_views(Windows(), 128, seed=2)
    for yoked in (False, True):
        forward = model(direction="forward", yoked=yoked)
        optimizer = torch.optim.Adam(forward.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            forward(seen(views), views).loss.backward()
            optimizer.step()
        loss[yoked] = forward(seen(fresh), fresh).loss.item()
    assert loss[False] < 3.0
    assert loss[True] > math.log(127)
    assert "YOKED" in forward.describe()


def test_bf16_autocast_leaves_a_float32_loss():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model()(features_of(), pair_views(Windows()))
    assert out.loss.dtype == torch.float32
    out.loss.backward()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0.0}, r"manipulation\.forward_model\.temperature=0.0 must be above 0"),
        ({"similarity": "angle"}, "choose one of cosine, dot"),
        ({"hidden": 0}, r"manipulation\.forward_model\.hidden=0 must be at least 1"),
        ({"out": 0}, r"manipulation\.forward_model\.out=0 must be at least 1"),
        ({"direction": "back"}, r"manipulation\.forward_model\.direction='back'"),
        ({"tap": "layer9"}, "tap='layer9'"),
    ],
)
def test_bad_options_are_told_in_a_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        model(**options)
