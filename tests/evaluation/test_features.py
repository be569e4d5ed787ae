import pytest
import torch
from torch import nn

from stec.actions import Relative
from stec.encoder import Encoder, Features
from stec.errors import NonFinite, UsageError
from stec.evaluation.features import Raw, extract, extract_pairs, standardise
from stec.views import Views


class Net(Encoder):
    def __init__(self):
        super().__init__()
        self.linear, self.norm, self.dropout = nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.dims = {"pooled": 4, "inner": 4}

    def forward(self, x):
        inner = self.linear(x)
        return Features(self.dropout(self.norm(inner)), layers={"inner": inner})


def batches(*sizes: int):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(size, 6, generator=generator), torch.arange(size) - 1) for size in sizes]


def test_features_are_those_of_evaluation_mode_and_the_modes_come_back():
    net = Net()
    net.norm.eval()  # a part that the user froze stays frozen, the rest goes on training
    net.norm.running_mean.fill_(0.3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    table = extract(net, batches(700, 3))
    assert [net.training, net.linear.training, net.norm.training, net.dropout.training] == [True, True, False, True]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    net.eval()
    assert torch.equal(table.x, torch.cat([net(x).pooled for x, _ in batches(700, 3)]).detach())
    assert not table.x.requires_grad
    assert table.y.tolist() == [y for _, labels in batches(700, 3) for y in labels.tolist()]
    assert len(table.labelled().y) == 701


def test_modes_come_back_after_an_error():
    net = Net()
    with pytest.raises(UsageError, match="layer9"):
        extract(net, batches(5), tap="layer9")
    assert net.norm.training


def test_taps():
    net, head = Net().eval(), nn.Linear(4, 2)
    x, y = batches(5)[0]
    assert torch.equal(extract(net, [(x, y)], tap="inner").x, net.linear(x).detach())
    assert torch.equal(extract(net, [(x, y)], tap="projector", head=head).x, head(net(x).pooled).detach())
    with pytest.raises(UsageError, match="projector"):
        extract(net, [(x, y)], tap="projector")
    with pytest.raises(UsageError, match="inner"):
        extract(net, [(x, y)], tap="layer9")


def test_float32_whatever_the_autocast_around_it():
    net = Net().eval()
    plain = extract(net, batches(5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        around = extract(net, batches(5))
    assert around.x.dtype == torch.float32
    assert torch.equal(around.x, plain.x)


def test_pairs_stop_at_the_number_asked_for():
    net = Net().eval()
    asked = []

    def views():
        for (x, _), seed in zip(batches(4, 4, 4), range(3), strict=True):
            asked.append(seed)
            copy = Relative(x[:, :2], torch.ones(4, 2, dtype=torch.bool))
            yield Views((x, -x), {(0, 1): copy}, 2, torch.zeros(4, 3, dtype=torch.int64))

    pairs = extract_pairs(net, views(), num=6)
    x = torch.cat([x for x, _ in batches(4, 4)])[:6]
    assert asked == [0, 1]
    assert torch.allclose(pairs.a, net(x).pooled)
    assert torch.allclose(pairs.b, net(-x).pooled)
    assert torch.equal(pairs.copy.values, x[:, :2])
    assert len(extract_pairs(net, views()).a) == 12


def test_raw_is_the_sample_itself():
    x = torch.rand(3, 2, 4)
    assert torch.equal(extract(Raw(8), [(x, torch.zeros(3))]).x, x.reshape(3, 8))


def test_nothing_and_not_finite_are_told():
    with pytest.raises(UsageError, match="no sample"):
        extract(Net(), [])
    with pytest.raises(UsageError, match="no pair"):
        extract_pairs(Net(), [])
    x = torch.ones(3, 6)
    x[1, 2] = torch.nan
    with pytest.raises(NonFinite, match=r"1 of 3 .*first: 1"):
        extract(Raw(6), [(x, torch.zeros(3))])


def test_standardise_by_the_train_table_alone():
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(50, 3, generator=generator) * 4 + 7, torch.randn(20, 3, generator=generator)
    train[:, 1] = test[:, 1] = 5.0
    a, b = standardise(train, test)
    assert torch.allclose(a[:, [0, 2]].mean(0), torch.zeros(2), atol=1e-6)
    assert torch.allclose(a[:, [0, 2]].std(0, unbiased=False), torch.ones(2))
    assert not a[:, 1].any()
    assert not b[:, 1].any()
    assert torch.allclose(b[:, 0], (test[:, 0] - train[:, 0].mean()) / train[:, 0].std(unbiased=False))
