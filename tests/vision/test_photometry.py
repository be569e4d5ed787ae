"""torchvision is the oracle for every operation; what is drawn follows its laws, and performing draws nothing."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from stec.actions import Compose
from stec.errors import UsageError
from stec.rng import make_keys
from stec_vision.actions import AffineCrop
from stec_vision.photometry import ColorJitter, GaussianBlur, Grayscale, Solarize, _jitter

EXTENT = torch.tensor([[32, 32]])
NOTHING = {ColorJitter: [1.0, 1, 1, 0, 0, 1, 2, 3], Grayscale: [0.0], GaussianBlur: [0.0], Solarize: [0.0]}
ALL = list(NOTHING)


def draw(space, num, view=0, seed=0):
    return space.sample(make_keys(seed, 0, torch.arange(num)), EXTENT.expand(num, 2), view)


def pictures(num, height=24, width=24, seed=0):
    """Half of them 8-bit: many equal channels, blacks, whites and greys, where hue has its seams."""
    x = torch.rand(num, 3, height, width, generator=torch.Generator().manual_seed(seed))
    x[::2] = (x[::2] * 6).floor() / 5
    x[0, :, :4], x[0, :, 4:8], x[0, :, 8:10] = 0, 1, 0.5
    return x.clamp(0, 1)


def torchvisions_jitter(image, action):
    steps = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
    for which in action[4:].argsort():
        image = steps[which](image, float(action[which]))
    return image


# -- the four operations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [(0.4, 0.4, 0.4, 0.1), (0.8, 0.8, 0.8, 0.2), (2.0, 2.0, 2.0, 0.5)])
def test_jitter_is_torchvisions_in_the_drawn_order(strength):
    names = ("brightness", "contrast", "saturation", "hue")
    space = ColorJitter(**dict(zip(names, strength, strict=True)), p=0.9)
    action, x = draw(space, 100), pictures(100)
    expected = torch.stack([torchvisions_jitter(image, row) for image, row in zip(x, action, strict=True)])
    torch.testing.assert_close(space.act(x, action, 0), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("part", "options"), [(ColorJitter, {}), (GaussianBlur, {"p": 1.0}), (ColorJitter, {"augment": "fast"})]
)
def test_gradients_and_other_precisions_go_the_way_of_torch(part, options):
    space, x = part(**options), pictures(6)
    action = draw(space, 6)
    expected = space.act(x, action, 0)
    with_gradient = space.act(x.clone().requires_grad_(), action, 0)
    torch.testing.assert_close(with_gradient.detach(), expected, rtol=0, atol=5e-6)
    with_gradient.sum().backward()
    half = space.act(x.bfloat16(), action, 0)
    torch.testing.assert_close(half.float(), expected, rtol=0, atol=0.06)


def test_every_order_is_performed_as_it_is_told():
    orders = torch.tensor(list(itertools.permutations(range(4))))
    action = torch.cat([torch.tensor([[1.7, 0.4, 1.9, 0.3]]).expand(24, 4), orders], dim=1)
    x = pictures(1, seed=1).expand(24, -1, -1, -1)
    seen = ColorJitter().act(x, action, 0)
    torch.testing.assert_close(seen, torch.stack([torchvisions_jitter(x[0], row) for row in action]), rtol=0, atol=1e-5)
    assert len({round(float(one.sum()), 3) for one in seen}) == 24


def test_all_orders_at_once_is_the_same_as_group_by_group():
    """An accelerator does not sort the samples by the place of hue in their order, as a CPU does."""
    action, x = draw(ColorJitter(), 60), pictures(60)
    together = _jitter(x.flatten(2), action, set(range(4))).view(x.shape)
    torch.testing.assert_close(together, ColorJitter().act(x, action, 0), rtol=0, atol=5e-6)


@given(
    st.lists(
        st.tuples(*[st.sampled_from([0.0, 1.0, 0.5, 1 / 255, 0.2]) | st.floats(0, 1)] * 3), min_size=1, max_size=9
    ),
    st.floats(-0.5, 0.5),
)
@settings(max_examples=100, deadline=None)
def test_hue_of_any_colour_is_torchvisions(colours, shift):
    x = torch.tensor(colours, dtype=torch.float32).T[None, :, :, None]
    action = torch.tensor([[1, 1, 1, shift, 0, 1, 2, 3]])
    torch.testing.assert_close(
        ColorJitter().act(x, action, 0), tv.adjust_hue(x, float(action[0, 3])), rtol=0, atol=1e-5
    )


def test_greyscale_is_torchvisions():
    action, x = draw(Grayscale(p=0.5), 20), pictures(20)
    expected = torch.where(action[:, :, None, None] > 0, tv.rgb_to_grayscale(x, num_output_channels=3), x)
    assert 0 < action.sum() < 20
    torch.testing.assert_close(Grayscale().act(x, action, 0), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("side", "kernel"), [(32, 3), (96, 9), (100, 11), (224, 23), (9, 1)])
def test_blur_is_torchvisions_with_a_kernel_and_sigma_that_follow_the_side(side, kernel):
    action, x = draw(GaussianBlur(p=0.8), 6), pictures(6, side, side)
    expected = [
        tv.gaussian_blur(image, [kernel, kernel], [float(sigma) * side / 224] * 2) if sigma else image
        for image, sigma in zip(x, action[:, 0], strict=True)
    ]
    assert 0 < (action > 0).sum() < 6
    torch.testing.assert_close(GaussianBlur().act(x, action, 0), torch.stack(expected), rtol=0, atol=1e-5)


def test_the_widest_kernel_and_the_narrowest_sigma():
    space = GaussianBlur(kernel=1.0, sigma=(1e-6, 1e3))
    x = pictures(3)
    seen = space.act(x, torch.tensor([[0.0], [1e-6], [1e3]]), 0)
    assert torch.equal(seen[:2], x[:2])
    torch.testing.assert_close(seen[2], tv.gaussian_blur(x[2], [25, 25], [1e3 * 24 / 224] * 2), rtol=0, atol=1e-5)


def test_solarisation_is_torchvisions():
    action, x = draw(Solarize(p=0.5), 20), pictures(20)
    expected = torch.where(action[:, :, None, None] > 0, tv.solarize(x, 0.5), x)
    assert torch.equal(Solarize().act(x, action, 0), expected)
    assert (expected <= 0.5)[action[:, 0] > 0].all()


# -- what all of them promise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_samples_that_are_not_touched_are_bit_equal_and_the_input_stays(kind):
    space, x = kind(p=0.5, **({"sigma": (5.0, 20.0)} if kind is GaussianBlur else {})), pictures(30)
    before = x.clone()
    action = draw(space, 30)
    seen = space.act(x, action, 0)
    same = (seen == x).flatten(1).all(dim=1)
    assert 0 < same.sum() < 30
    assert torch.equal(space.touches(action), ~same)
    assert torch.equal(x, before)
    assert torch.equal(space.act(x, torch.tensor([NOTHING[kind]]).expand(30, -1), 0), x)


@pytest.mark.parametrize("kind", ALL)
def test_a_view_does_not_depend_on_its_batch_on_autocast_or_on_chance(kind):
    space = kind(p=0.9)
    space.at_once = 5000
    action, x = draw(space, 12), pictures(12)
    together = space.act(x, action, 0)
    alone = torch.cat([space.act(x[i : i + 1], action[i : i + 1], 0) for i in range(12)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(space.act(x, action, 0), together)
    assert space.act(x[:0], action[:0], 0).shape == (0, 3, 24, 24)
    assert (together >= 0).all()
    assert (together <= 1).all()


@pytest.mark.parametrize("kind", ALL)
def test_an_action_is_a_function_of_its_key_and_view(kind):
    space = kind(p=0.5)
    first = draw(space, 64)
    assert first.shape == (64, space.num_params)
    assert first.dtype == torch.float32
    keys = make_keys(0, 0, torch.tensor([63, 5]))
    assert torch.equal(space.sample(keys, EXTENT.expand(2, 2), 0), first[[63, 5]])
    assert not torch.equal(draw(space, 64, view=1), first)
    assert not torch.equal(draw(space, 64, seed=1), first)


def test_the_parts_draw_independently():
    parts = [kind(p=0.5) for kind in ALL]
    chosen = torch.stack([part.touches(draw(part, 4000)) for part in parts]).float()
    assert (torch.corrcoef(chosen) - torch.eye(4)).abs().max() < 0.06


@pytest.mark.parametrize("kind", ALL)
def test_nuisances_are_never_predicted(kind):
    space = kind(p=0.5)
    a, b = draw(space, 200), draw(space, 200, view=1)
    relative = space.relative(a, b)
    assert space.components == ()
    assert relative.values.shape == relative.valid.shape == (200, 0)
    assert relative.valid.dtype == torch.bool
    trusted = space.trusted(a, b)
    if kind is Solarize:
        assert torch.equal(trusted, (a[:, 0] == 0) & (b[:, 0] == 0))
    else:
        assert trusted.all()


def test_solarised_views_make_a_pair_untrusted_in_all_its_components():
    space = Compose({"crop": AffineCrop(size=32), "solarize": Solarize(p=0.2)})
    a, b = draw(space, 20_000), draw(space, 20_000, view=1)
    valid = space.relative(a, b).valid
    assert (valid == valid[:, :1]).all()
    assert valid[:, 0].float().mean() == pytest.approx(0.8**2, abs=0.01)


# -- laws --------------------------------------------------------------------------------------------------------------


def test_law_of_the_jitter():
    action = draw(ColorJitter(brightness=0.4, contrast=0.8, saturation=2.0, hue=0.1, p=0.8), 40_000)
    touched = (action[:, :4] != torch.tensor([1.0, 1, 1, 0])).any(dim=1)
    assert touched.float().mean() == pytest.approx(0.8, abs=0.01)
    for column, (low, high) in enumerate([(0.6, 1.4), (0.2, 1.8), (0.0, 3.0), (-0.1, 0.1)]):
        values = action[touched, column]
        assert low <= values.min()
        assert values.max() <= high + 1e-6
        grid = low + (high - low) * torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
        torch.testing.assert_close(
            values.quantile(torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])), grid, rtol=0.02, atol=0.02
        )
    orders, count = action[:, 4:].long().unique(dim=0, return_counts=True)
    assert len(orders) == math.factorial(4)
    assert (count / 40_000 - 1 / 24).abs().max() < 0.005


def test_law_of_the_jitter_has_torchvisions_ranges():
    theirs = v2.ColorJitter(0.4, 0.8, 2.0, 0.1)
    ours = ColorJitter(brightness=0.4, contrast=0.8, saturation=2.0, hue=0.1, p=1.0)
    action = draw(ours, 40_000)
    for column, (low, high) in enumerate([theirs.brightness, theirs.contrast, theirs.saturation, theirs.hue]):
        assert action[:, column].min() == pytest.approx(low, abs=1e-3)
        assert action[:, column].max() == pytest.approx(high, abs=1e-3)


def test_laws_of_the_others():
    for kind, p in ((Grayscale, 0.2), (Solarize, 0.2), (GaussianBlur, 0.5)):
        assert (draw(kind(), 20_000) > 0).float().mean() == pytest.approx(p, abs=0.012)
    sigma = draw(GaussianBlur(), 20_000)
    sigma = sigma[sigma > 0]
    torch.testing.assert_close(
        sigma.quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])),
        torch.tensor([0.1, 0.575, 1.05, 1.525, 2.0]),
        rtol=0,
        atol=0.04,
    )


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        (ColorJitter, {"brightness": -0.1}, "actions.color_jitter.brightness"),
        (ColorJitter, {"contrast": math.inf}, "contrast"),
        (ColorJitter, {"saturation": math.nan}, "saturation"),
        (ColorJitter, {"hue": 0.6}, "0.5. turns"),
        (ColorJitter, {"p": 1.1}, "actions.color_jitter.p=1.1"),
        (Grayscale, {"p": -1.0}, "actions.grayscale.p"),
        (Solarize, {"p": 2.0}, "actions.solarize.p"),
        (GaussianBlur, {"p": 2.0}, "actions.gaussian_blur.p"),
        (GaussianBlur, {"kernel": 0.0}, "kernel"),
        (GaussianBlur, {"sigma": [0.0, 1.0]}, "sigma"),
        (GaussianBlur, {"sigma": [1.0]}, "sigma"),
        (GaussianBlur, {"views": []}, r"actions.gaussian_blur.views=\[\] must be different numbers"),
        (Grayscale, {"views": [-1]}, "actions.grayscale.views"),
        (Solarize, {"views": [1, 1]}, "actions.solarize.views"),
        (ColorJitter, {"predict": True, "p": 0.0}, "predict=true, but nothing varies"),
        (
            ColorJitter,
            {"predict": True, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
            "predict=true, but nothing varies",
        ),
    ],
)
def test_refusals(kind, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        kind(**options)
