import pytest
import torch
from torch import nn

from stec.encoder import Features, tap
from stec.errors import UsageError
from stec.heads import ManipulationHead, Projector, width


def test_the_projector_is_the_papers():
    projector = Projector(6, 16, 4)
    kinds = [type(layer) for layer in projector]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]
    first, last, norm = projector[0], projector[3], projector[4]
    assert (first.in_features, first.out_features, first.bias is not None) == (6, 16, True)
    assert (last.in_features, last.out_features, last.bias) == (16, 4, None)
    assert norm.weight.requires_grad
    assert not norm.bias.requires_grad
    z = projector(torch.randn(32, 6, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(z.mean(dim=0), torch.zeros(4), atol=1e-6)
    assert torch.allclose(z.var(dim=0, unbiased=False), torch.ones(4), atol=1e-2)


def test_the_bias_of_the_last_norm_stays_zero():
    projector = Projector(3, 8, 2)
    optimizer = torch.optim.SGD(projector.parameters(), lr=1.0)
    (projector(torch.randn(16, 3)) - 5).square().sum().backward()
    optimizer.step()
    assert projector[4].bias.tolist() == [0, 0]
    assert projector[4].weight.grad.abs().sum() > 0


def test_the_manipulation_head_sees_both_views():
    head = ManipulationHead(5, 16, num_components=3, num_bins=7)
    kinds = [type(layer) for layer in head.layers]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert head.layers[3].bias is not None
    pair = torch.randn(8, 10, requires_grad=True)
    logits = head(pair)
    assert logits.shape == (8, 3, 7)
    logits.square().sum().backward()
    assert (pair.grad.abs().sum(dim=0) > 0).all()


def test_outputs_of_an_encoder_by_name():
    dims = {"pooled": 512, "layer3": 256}
    assert (width(dims, "pooled"), width(dims, "layer3")) == (512, 256)
    with pytest.raises(
        UsageError, match=r"tap='layer9' is not an output of this encoder: choose one of pooled, layer3\."
    ):
        width(dims, "layer9")
    features = Features(torch.zeros(2, 3), layers={"layer3": torch.ones(2, 4)})
    assert tap(features, "pooled") is features.pooled
    assert tap(features, "layer3") is features.layers["layer3"]
    with pytest.raises(UsageError, match=r"choose one of pooled, layer3\."):
        tap(features, "layer9")
    with pytest.raises(UsageError, match=r"choose one of pooled\."):
        tap(Features(torch.zeros(2, 3)), "layer3")
