"""The colour jitter as one matrix against a literal account of it; parts performed in 8 bits against their floats."""

import itertools

import numpy as np
import pytest
import skimage.data
import torch
from test_photometry import draw, pictures
from torchvision.transforms.v2 import functional as tv

from stec.errors import UsageError
from stec_vision.colour_matrix import matrices, matrix
from stec_vision.photometry import ColorJitter, GaussianBlur, Grayscale, Solarize

STRONG = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.5, "p": 1.0}
YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def literal(picture, action):
    """What the one matrix stands for, step by step in the drawn order, on float64 [N, 3]; clamped at the end alone."""
    x = picture.astype(np.float64)
    grey = YIQ[0]
    for which in np.argsort(action[4:]):
        by = float(action[which])
        if which == 0:
            x = by * x
        elif which == 1:
            x = by * x + (1 - by) * (x @ grey).mean()
        elif which == 2:
            x = by * x + (1 - by) * (x @ grey)[:, None]
        else:
            y, i, q = (x @ YIQ.T).T
            chroma = (i + 1j * q) * np.exp(-2j * np.pi * by)
            x = np.stack([y, chroma.real, chroma.imag], axis=1) @ np.linalg.inv(YIQ).T
    return x.clip(0, 1)


def photographs(num, side, seed=0):
    """Squares of this side cut out of photographs, uint8 [num, side, side, 3]."""
    numbers = np.random.default_rng(seed)
    sources = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    cut = []
    for source in itertools.islice(itertools.cycle(sources), num):
        down, across = (int(numbers.integers(0, n - side)) for n in source.shape[:2])
        cut.append(source[down : down + side, across : across + side])
    return np.stack(cut)


def eight_bits(num, side):
    """As photographs; but of every four one is noise, and one is noise of black and white."""
    views, noise = photographs(num, side), np.random.default_rng(1).integers(0, 256, (num, side, side, 3), np.uint8)
    views[1::4], views[2::4] = noise[1::4], 255 * (noise[2::4] // 128)
    return views


def floats(views):
    return torch.from_numpy(views).permute(0, 3, 1, 2).float() / 255


def painted(space, views, action):
    each = [space.paint(view.copy(), row) for view, row in zip(views, action.numpy(), strict=True)]
    assert all(one.dtype == np.uint8 and one.shape == view.shape for one, view in zip(each, views, strict=True))
    return torch.from_numpy(np.stack(each)).permute(0, 3, 1, 2).float()


# -- the matrix --------------------------------------------------------------------------------------------------------


def test_the_matrix_is_the_four_steps_in_any_order():
    space, x = ColorJitter(**STRONG, augment="fast"), pictures(48)
    action = draw(space, 48)
    action[24:, :4] = torch.tensor([1.3, 0.6, 1.6, 0.2])
    action[24:, 4:] = torch.tensor(list(itertools.permutations(range(4))))
    expected = [
        literal(image.reshape(3, -1).T.numpy(), row).T.reshape(image.shape)
        for image, row in zip(x, action.numpy(), strict=True)
    ]
    torch.testing.assert_close(
        space.act(x, action, 0).double(), torch.from_numpy(np.stack(expected)), rtol=0, atol=2e-6
    )


def test_of_one_action_and_of_many_it_is_the_same():
    action = draw(ColorJitter(**STRONG), 20)
    own, mean = matrices(action.double())
    for row, many, grey in zip(action.numpy(), own, mean, strict=True):
        one, share = matrix(row)
        np.testing.assert_allclose(one, many, rtol=0, atol=1e-12)
        np.testing.assert_allclose(share * YIQ[0], grey[0], rtol=0, atol=1e-12)


def test_an_action_that_changes_nothing_is_exactly_the_identity():
    own, mean = matrices(torch.tensor([ColorJitter.nothing]))
    assert torch.equal(own[0], torch.eye(3))
    assert not mean.any()


@pytest.mark.parametrize("which", ["brightness", "contrast", "saturation"])
def test_where_nothing_is_clamped_one_step_without_hue_is_the_exact_one(which):
    """Grey weighs red .299 here and .2989 in torchvision: with factors of .9 to 1.1 that is 1e-5."""
    strengths = {**dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0), which: 0.1}
    x = 0.3 + 0.4 * pictures(30)
    action = draw(ColorJitter(**strengths, p=1.0), 30)
    fast, exact = (ColorJitter(**strengths, augment=law).act(x, action, 0) for law in ("fast", "exact"))
    torch.testing.assert_close(fast, exact, rtol=0, atol=1e-5)
    assert (exact - x).abs().max() > 0.01


def test_hue_turns_the_same_way_as_the_exact_one():
    """Of the primaries, turned by a third of the circle, the largest channel is the same one (and by a twelfth, the
    second largest)."""
    x = torch.eye(3).view(3, 3, 1, 1)
    for shift in (1 / 3, -1 / 3, 1 / 12, -1 / 12):
        action = torch.tensor([[1, 1, 1, shift, 0, 1, 2, 3]]).expand(3, -1)
        fast, exact = (ColorJitter(augment=law).act(0.4 + 0.1 * x, action, 0).flatten(1) for law in ("fast", "exact"))
        order = slice(0, 1) if abs(shift) > 0.2 else slice(0, 3)
        assert torch.equal(fast.argsort(descending=True)[:, order], exact.argsort(descending=True)[:, order])


def statistics(views):
    """Of each view [B, 7]: mean and deviation of its channels, and its mean saturation (largest less least channel)."""
    seen = views.flatten(2)
    chroma = (seen.amax(dim=1) - seen.amin(dim=1)).mean(dim=1, keepdim=True)
    return torch.cat([seen.mean(dim=2), seen.std(dim=2), chroma], dim=1)


def distances(one, other):
    """How far apart the same views are (root mean square): in means of channels, their deviations and saturation."""
    square = (one - other).square().mean(dim=0)
    return tuple(float(some.max().sqrt()) for some in (square[:3], square[3:6], square[6:]))


def test_statistics_of_both_laws_on_photographs_are_alike():
    """600 drawn views. Hues turn otherwise in YIQ, so views differ a little; laws without one of the four, or that turn
    hues the wrong way, differ by more than is allowed here."""
    x, action = floats(photographs(150, 120)[:, ::3, ::3]).repeat_interleave(4, dim=0), draw(ColorJitter(), 600)
    allowed = (0.08, 0.02, 0.05)
    exact = statistics(ColorJitter().act(x, action, 0))

    def fast(column=0, factor=1.0, shift=0.0):
        other = action.clone()
        other[:, column] = other[:, column] * factor + shift
        return statistics(ColorJitter(augment="fast").act(x, other, 0))

    torch.testing.assert_close(fast().mean(dim=0), exact.mean(dim=0), rtol=0, atol=0.015)
    assert all(found < limit for found, limit in zip(distances(fast(), exact), allowed, strict=True))
    # No brightness, contrast, saturation or hue; hue turned the wrong way.
    for wrong in ((0, 0.0, 1.0), (1, 0.0, 1.0), (2, 0.0, 1.0), (3, 0.0), (3, -1.0)):
        assert any(found > limit for found, limit in zip(distances(fast(*wrong), exact), allowed, strict=True)), wrong


def test_the_law_is_one_of_two():
    with pytest.raises(UsageError, match=r"actions.color_jitter.augment='quick' is unknown: choose exact or fast"):
        ColorJitter(augment="quick")


# -- in 8 bits ---------------------------------------------------------------------------------------------------------


def test_a_painted_jitter_is_the_fast_one_to_a_level():
    space, views = ColorJitter(**STRONG, augment="fast"), eight_bits(40, 48)
    action = draw(space, 40)
    exact = 255 * space.act(floats(views), action, 0)
    assert (painted(space, views, action) - exact).abs().max() <= 1
    assert (painted(ColorJitter(), views, action) - exact).abs().max() <= 1  # whichever law is for the device


@pytest.mark.parametrize("side", [32, 96, 224])
def test_a_painted_blur_is_the_exact_one_to_a_level(side):
    space, views = GaussianBlur(p=1.0), eight_bits(8, side)
    action = draw(space, 8)
    action[0], action[1] = 0.1, 2.0
    exact = 255 * space.act(floats(views), action, 0)
    difference = painted(space, views, action) - exact
    assert difference.abs().max() <= 1
    assert difference.mean(dim=(1, 2, 3)).abs().max() < 0.05  # no light is lost


@pytest.mark.parametrize("kind", [Grayscale, Solarize])
def test_painted_grey_and_inversion_are_the_exact_ones_to_a_level(kind):
    space, views = kind(p=1.0), eight_bits(12, 32)
    action = draw(space, 12)
    exact = 255 * space.act(floats(views), action, 0)
    assert (painted(space, views, action) - exact).abs().max() <= (0.6 if kind is Grayscale else 1e-4)


@pytest.mark.parametrize("kind", [ColorJitter, Grayscale, GaussianBlur, Solarize])
def test_an_action_that_changes_nothing_gives_back_the_view_itself(kind):
    view = eight_bits(1, 32)[0]
    before = view.copy()
    assert kind().paint(view, np.array(kind.nothing, dtype=np.float32)) is view
    assert np.array_equal(view, before)


# -- the exact blur on a CPU -------------------------------------------------------------------------------------------


def test_the_exact_blur_is_the_whole_kernel_to_float32_for_any_kernel_of_any_batch():
    x = pictures(6, 96, 96)
    sigma = torch.tensor([[0.05], [0.5], [1.0], [2.0], [5.0], [30.0]])
    seen = GaussianBlur(sigma=(0.05, 30.0)).act(x, sigma, 0)
    for image, one, blurred in zip(x, sigma[:, 0].tolist(), seen, strict=True):
        expected = tv.gaussian_blur(image.double(), [9, 9], [one * 96 / 224] * 2)
        torch.testing.assert_close(blurred.double(), expected, rtol=0, atol=1e-6)
