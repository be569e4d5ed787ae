"""What transformers need: sizes of their own, inner blocks, frozen patches, views of several sizes."""

import pytest
import timm
import torch

from stec.encoder import encode, tap
from stec.errors import UsageError
from stec_vision.timm_encoder import Timm

MINI = {"model": "vit_tiny_patch16_224", "image_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 48}


def mini(**options):
    torch.manual_seed(0)
    return Timm(**MINI, **options).eval()


def pictures(side=32, num=2):
    return torch.rand(num, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_its_shape_is_what_was_asked_for():
    encoder = mini(drop_path=0.2)
    assert encoder.dims == {"pooled": 48}
    assert len(encoder.model.blocks) == 3
    assert encoder.model.patch_embed.num_patches == 16
    assert encoder.model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.2)
    assert encoder(pictures()).pooled.shape == (2, 48)


@pytest.mark.parametrize("options", [MINI, {"model": "test_vit"}, {"model": "test_vit2"}, {"model": "test_vit3"}])
def test_inner_blocks_are_the_means_of_their_patch_tokens_and_pooled_stays(options):
    """Against hooks on timm's own modules. The models pool by their class token, or by a mean, or have registers."""
    torch.manual_seed(0)
    plain = Timm(**options).eval()
    last = f"block{len(plain.model.blocks) - 1}"
    encoder = Timm(**options, taps=[last, "block0"]).eval()
    encoder.load_state_dict(plain.state_dict())
    seen = {}
    for name, number in (("block0", 0), (last, -1)):
        plain.model.blocks[number].register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    x = pictures(options.get("image_size", plain.model.pretrained_cfg["input_size"][-1]))
    with torch.no_grad():
        pooled, features = plain(x).pooled, encoder(x)
    torch.testing.assert_close(features.pooled, pooled)
    width = plain.model.embed_dim
    assert encoder.dims == {"pooled": plain.dims["pooled"], "block0": width, last: width}
    for name, tokens in seen.items():
        expected = tokens[:, plain.model.num_prefix_tokens :].mean(dim=1)
        torch.testing.assert_close(tap(features, name), expected)


def test_the_state_is_timms_whatever_is_tapped():
    names = {key.removeprefix(Timm.prefix) for key in mini(taps=["block1"]).state_dict()}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, patch_size=8, depth=3, embed_dim=48)
    assert names == set(model.state_dict())


def test_frozen_patches_stay_and_all_else_learns():
    encoder = mini(freeze_patch_embed=True, taps=["block1"])
    features = encoder(pictures())
    (features.pooled.square().sum() + features.layers["block1"].square().sum()).backward()
    frozen = {name for name, p in encoder.named_parameters() if p.grad is None}
    assert frozen == {"model.patch_embed.proj.weight", "model.patch_embed.proj.bias"}
    assert not any(p.requires_grad for p in encoder.model.patch_embed.parameters())


def test_views_of_two_sizes_are_encoded_if_it_is_told_so():
    with torch.no_grad():
        large, small = encode(mini(dynamic_size=True), (pictures(), pictures(16)))
        assert large.pooled.shape == small.pooled.shape == (2, 48)
        torch.testing.assert_close(large.pooled, mini()(pictures()).pooled)


@pytest.mark.parametrize(
    ("options", "side", "sentence"),
    [
        (
            {},
            16,
            r"images of 16x16 pixels came, but it is built for 32x32: set encoder.image_size .* encoder.dynamic_size",
        ),
        ({"dynamic_size": True}, 20, r"images of 20x20 pixels came, which patches of 8x8 do not divide: .*patch_size"),
        ({"taps": ["block1"]}, 16, "encoder.model='vit_tiny_patch16_224': images of 16x16"),
    ],
)
def test_images_of_another_size_are_refused_in_a_sentence(options, side, sentence):
    with pytest.raises(UsageError, match=sentence):
        mini(**options)(pictures(side))


def test_models_without_patches_of_one_size_take_any():
    assert Timm(model="test_resnet").eval()(pictures(40)).pooled.shape[0] == 2


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (MINI, {"model.pos_embed", "model.cls_token"}),
        ({"model": "test_vit2"}, {"model.pos_embed", "model.reg_token"}),
        ({"model": "test_resnet"}, set()),
    ],
)
def test_positions_and_class_tokens_are_not_decayed(options, names):
    """Of those that timm names, the parameters that there are."""
    encoder = Timm(**options)
    assert encoder.undecayed == names
    assert names <= dict(encoder.named_parameters()).keys()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"taps": ["block3"]}, "encoder.taps: 'block3' is unknown: did you mean 'block"),
        ({"model": "resnet10t", "taps": ["layer1"]}, r"encoder.taps=\['layer1'\]: resnet10t is no vision transformer"),
        ({"model": "efficientnet_b0", "taps": ["block0"]}, "efficientnet_b0 is no vision transformer"),
        ({"model": "resnet10t", "freeze_patch_embed": True}, "freeze_patch_embed=true: resnet10t has no projection"),
        ({"model": "resnet10t", "depth": 3}, "resnet10t' does not take depth"),
        ({"patch_size": 0}, "encoder.patch_size=0 must be at least 1"),
        ({"embed_dim": 0}, "encoder.embed_dim=0"),
        ({"embed_dim": 50}, "cannot be built"),
    ],
)
def test_refusals(options, sentence):
    base = {} if "model" in options else MINI
    with pytest.raises(UsageError, match=sentence):
        Timm(**base | options)
