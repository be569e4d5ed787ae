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


def test_it_encodes_so_many_samples_at_a_time_as_it_is_told():
    _, _, teacher = made()
    xs = tuple(torch.randn(2, 7, 3).double())
    whole = [z.clone() for z in teacher.eval()(xs)]
    teacher.train()
    teacher.micro_batch = 3
    teacher.encoder.sizes.clear()
    found = teacher(xs)
    assert teacher.encoder.sizes == [6, 4, 4]  # two views of 3, 2 and 2
    # Each part has statistics of its own; the projector sees all 14.
    parts = [teacher.encoder(torch.cat([x[s] for x in xs])).pooled for s in (slice(0, 3), slice(3, 5), slice(5, 7))]
    pooled = torch.cat([torch.cat([p.chunk(2)[view] for p in parts]) for view in (0, 1)])
    assert torch.allclose(torch.cat(found), teacher.projector(pooled))
    for z, expected in zip(teacher.eval()(xs), whole, strict=True):
        assert z.shape == expected.shape


@pytest.mark.parametrize("joint", [True, False])
def test_views_share_a_call_or_have_one_each(joint):
    _, _, teacher = made()
    teacher.joint = joint
    xs = torch.randn(4, 3).double(), torch.randn(4, 3).double() + 5
    teacher(xs)
    assert teacher.encoder.sizes == ([8] if joint else [4, 4])


class Path(nn.Module):
    """Leaves out whole samples by chance, as stochastic depth does, in a module of no known kind."""

    def forward(self, x):
        return x * torch.randint(2, (len(x), 1)) if self.training else x


def test_targets_are_no_matter_of_chance_but_have_statistics_of_their_batch():
    student, projector, _ = made()
    student.layer = nn.Sequential(nn.Linear(3, 5).double(), nn.Dropout(0.5), Path())
    teacher = Teacher(student, projector, momentum=0.9, where="identity.byol")
    xs = (torch.randn(6, 3).double(),)
    for _ in range(2):
        assert torch.equal(teacher(xs)[0], teacher(xs)[0])
        assert teacher.encoder.norm.training
        assert teacher.training
        teacher.eval().train()  # as evaluations do, and whole models
    assert not teacher.eval().encoder.norm.training
    assert student.layer[1].training
    assert not torch.equal(student.layer(xs[0]), student.layer(xs[0]))


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
