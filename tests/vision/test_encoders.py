"""torchvision and timm are the references: same names, same numbers."""

import pytest
import timm
import torch
import torchvision
from torchvision.transforms import v2

from stec.encoder import tap
from stec.errors import UsageError
from stec_vision.encoders import ResNet
from stec_vision.timm_encoder import Timm


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_names_and_shapes_are_torchvisions(depth):
    theirs = getattr(torchvision.models, f"resnet{depth}")().state_dict()
    ours = ResNet(depth=depth, stem="imagenet").state_dict()
    expected = {name: value.shape for name, value in theirs.items() if not name.startswith("fc.")}
    assert {name: value.shape for name, value in ours.items()} == expected


@pytest.mark.parametrize("depth", [18, 50])
def test_output_is_torchvisions_for_the_same_weights(depth):
    theirs = getattr(torchvision.models, f"resnet{depth}")()
    theirs.fc = torch.nn.Identity()
    ours = ResNet(depth=depth, stem="imagenet")
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x).pooled, theirs.eval()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("stem", "kernel", "side"), [("cifar", 3, 32), ("stl", 7, 16), ("imagenet", 7, 8)])
def test_stems_and_taps(stem, kernel, side):
    encoder = ResNet(stem=stem, width=8, taps=["layer2", "layer4"]).eval()
    x = torch.rand(2, 3, 32, 32)
    assert encoder.conv1.kernel_size == (kernel, kernel)
    assert encoder.maxpool(encoder.conv1(x)).shape[-1] == side
    features = encoder(x)
    assert encoder.dims == {"pooled": 64, "layer2": 16, "layer4": 64}
    assert {name: tap(features, name).shape[1] for name in encoder.dims} == encoder.dims
    torch.testing.assert_close(tap(features, "layer4"), features.pooled)


def test_initialisation_is_that_of_the_paper():
    torch.manual_seed(0)
    weight = ResNet(depth=18).get_submodule("layer3.0.conv2").weight
    assert float(weight.detach().std()) == pytest.approx((256 * 9) ** -0.5, rel=0.01)
    zero = ResNet(depth=50, width=8, zero_init_residual=True)
    assert not zero.get_submodule("layer1.0.bn3").weight.any()
    assert zero.get_submodule("layer1.0.bn2").weight.all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"depth": 19}, "18, 34, 50"),
        ({"stem": "cifr"}, "cifar, stl"),
        ({"width": 0}, "width"),
        ({"taps": ["layer5"]}, "layer4"),
    ],
)
def test_refusals_of_resnet(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        ResNet(**options)


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_timm_gives_pooled_features(name):
    encoder = Timm(model=name).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        pooled = encoder(x).pooled
    assert pooled.shape == (2, encoder.dims["pooled"])
    names = {key.removeprefix(Timm.prefix) for key in encoder.state_dict()}
    assert names == set(timm.create_model(name, num_classes=0).state_dict())


def test_timm_takes_off_the_published_mean():
    encoder, raw = Timm(model="resnet10t").eval(), Timm(model="resnet10t", normalize=False).eval()
    raw.load_state_dict(encoder.state_dict())
    x = torch.rand(1, 3, 32, 32)
    published = v2.functional.normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        torch.testing.assert_close(encoder(x).pooled, raw(published).pooled, rtol=1e-4, atol=1e-5)


def test_timm_size_of_a_transformer():
    encoder = Timm(model="vit_tiny_patch16_224", image_size=32, drop_path=0.1).eval()
    assert encoder(torch.rand(1, 3, 32, 32)).pooled.shape == (1, 192)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "resnet18x"}, "did you mean 'resnet18"),
        ({"model": "resnet10t", "image_size": 32}, "image_size|img_size"),
        ({"model": "resnet10t", "drop_path": 1.0}, "drop_path"),
    ],
)
def test_refusals_of_timm(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        Timm(**options)
