"""The teacher is an average of past students, with batch statistics of its own and no gradient."""

import copy
import math

import pytest
import torch
from torch import nn

from stec.encoder import Encoder, Features
from stec.errors import UsageError
from stec.teacher import Teacher


class Small(Encoder):
    def __init__(self):
        super().__init__()
        self.dims = {"pooled": 5}
        self.layer, self.norm = nn.Linear(3, 5), nn.BatchNorm1d(5)
        self.sizes: list[int] = []

    def forward(self, x):
        self.sizes.append(len(x))
        return Features(self.norm(self.layer(x.flatten(1)[:, :3])))


def made(**options):
    torch.manual_seed(2)
    student, projector = Small().double(), nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)).double()
    return student, projector, Teacher(student, projector, **{"momentum": 0.9, "where": "identity.byol"} | options)


def moved(student, projector, seed):
    """What a step does to the students."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in [*student.parameters(), *projector.parameters()]:
            p += torch.randn(p.shape, generator=g)


def test_the_rate_rises_along_half_a_cosine():
    _, _, teacher = made(momentum=0.96)
    rates = [teacher.rate(step, 200) for step in range(201)]
    assert rates[0] == pytest.approx(0.96)
    assert rates[100] == pytest.approx(0.98)
    assert rates[200] == pytest.approx(1)
    assert all(r == pytest.approx(1 - 0.04 * math.cos(math.pi * k / 400) ** 2) for k, r in enumerate(rates))
    bounded = [made(momentum=0.96, final=0.98)[2].rate(step, 200) for step in (0, 100, 200)]
    assert bounded == pytest.approx([0.96, 0.97, 0.98])
    assert {made(momentum=0.96, rises=False)[2].rate(step, 200) for step in (0, 100, 200)} == {0.96}


@pytest.mark.parametrize("rises", [True, False])
def test_it_is_an_exponential_average_of_its_students(rises):
    student, projector, teacher = made(rises=rises)
    moved(student, projector, 0)  # weights that were loaded after the teacher had been made
    teacher.follow(student, projector, 0, 6)
    expected = [p.detach().clone() for m in (student, projector) for p in m.parameters()]
    mine = [*teacher.encoder.parameters(), *teacher.projector.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(mine, expected, strict=True))
    for step in range(1, 6):
        moved(student, projector, step)
        teacher.follow(student, projector, step, 6)
        # The update that belongs to step k is made before step k + 1, at the rate of step k.
        tau = 1 - 0.1 * (math.cos(math.pi * (step - 1) / 6) + 1) / 2 if rises else 0.9
        students = [p.detach() for m in (student, projector) for p in m.parameters()]
        expected = [tau * a + (1 - tau) * b for a, b in zip(expected, students, strict=True)]
        assert all(torch.allclose(a, b, rtol=1e-13) for a, b in zip(mine, expected, strict=True))


def test_momentum_0_is_the_student_and_1_stands_still():
    for momentum, follows in ((0.0, True), (1.0, False)):
        student, projector, teacher = made(momentum=momentum, rises=False)
        before = copy.deepcopy(teacher.encoder.layer.weight)
        moved(student, projector, 3)
        teacher.follow(student, projector, 1, 5)
        assert torch.allclose(teacher.encoder.layer.weight, student.layer.weight if follows else before)


def test_no_gradient_reaches_it_and_it_reaches_no_gradient():
    _, _, teacher = made()
    assert not any(p.requires_grad for p in teacher.parameters())
    (z,) = teacher((torch.randn(4, 3).double().requires_grad_(),))
    assert not z.requires_grad


def test_its_statistics_are_those_of_its_own_batches():
    student, projector, teacher = made()
    x = torch.randn(16, 3).double() + 7
    pooled = teacher.encoder.layer(x)
    teacher((x,))
    assert torch.allclose(teacher.encoder.norm.running_mean, 0.1 * pooled.mean(0))
    assert torch.equal(student.norm.running_mean, torch.zeros(5).double())
    kept = teacher.encoder.norm.running_mean.clone()
    teacher.follow(student, projector, 1, 5)
    assert torch.equal(teacher.encoder.norm.running_mean, kept)
    teacher.follow(student, projector, 0, 5)
    assert torch.equal(teacher.encoder.norm.running_mean, student.norm.running_mean)


def test_views_of_one_shape_share_a_call_and_come_back_in_order():
    _, _, teacher = made()
    xs = (torch.randn(4, 3).double(), torch.randn(4, 3).double(), torch.randn(4, 2, 2).double())
    found = teacher(xs)
    assert teacher.encoder.sizes == [8, 4]
    assert [len(z) for z in found] == [4, 4, 4]
    teacher.eval()
    for z, x in zip(teacher(xs), xs, strict=True):
        assert torch.allclose(z, teacher.projector(teacher.encoder(x).pooled))


def test_an_encoder_without_weights_has_a_teacher_too():
    class Flat(Encoder):
        def forward(self, x):
            return Features(x)

    projector = nn.Linear(3, 2)
    teacher = Teacher(Flat(), projector, momentum=0.5, rises=False, where="identity.byol")
    before = teacher.projector.weight.clone()
    nn.init.zeros_(projector.weight)
    teacher.follow(Flat(), projector, 1, 2)
    assert torch.allclose(teacher.projector.weight, before / 2)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"momentum": 1.5}, "identity.byol.momentum=1.5 must be in [0, 1]."),
        ({"momentum": -0.1}, "identity.byol.momentum=-0.1 must be"),
        ({"momentum": math.nan}, "identity.byol.momentum=nan must be"),
        ({"final": 0.8}, "identity.byol.final_momentum=0.8 must be in"),
        ({"final": 1.1}, "identity.byol.final_momentum=1.1 must be in"),
    ],
)
def test_ranges_are_refused_by_their_key(options, told):
    with pytest.raises(UsageError) as caught:
        made(**options)
    assert str(caught.value).startswith(told)
