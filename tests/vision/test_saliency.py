"""Alpha says what is the thing: it travels with the views, paints the background, and is gone before the encoder."""

import io

import numpy as np
import pytest
import torch
from PIL import Image as pil

from stec.actions import Compose, sample_views
from stec.errors import UsageError
from stec.rng import make_keys
from stec.views import Batch, make_views
from stec_vision.actions import AffineCrop
from stec_vision.decode import Image, ImageCrop, _no_alpha
from stec_vision.photometry import ColorJitter, Grayscale
from stec_vision.saliency import Background

SIDE = 16


def space(p=1.0, **options):
    parts = {"crop": AffineCrop(size=SIDE, flip=1.0), "background": Background(p=p, **options)}
    return Compose({**parts, "color_jitter": ColorJitter(p=0.0), "grayscale": Grayscale(p=0.0)})


def colours():
    """Smooth colours uint8 [40, 48, 3]."""
    y, x = np.mgrid[:40, :48]
    return (128 + 100 * np.stack([np.sin(x / 9), np.cos(y / 8), np.sin((x + y) / 11)], axis=-1)).astype(np.uint8)


def encoded(array):
    file = io.BytesIO()
    pil.fromarray(array).save(file, "PNG")
    return file.getvalue()


def with_alpha(left):
    """The colours with alpha `left` in the left half and 255 in the right one."""
    alpha = np.full((40, 48, 1), 255, dtype=np.uint8)
    alpha[:, :24] = left
    return encoded(np.concatenate([colours(), alpha], axis=2))


def actions(made, number=0, num_views=2):
    return sample_views(made, make_keys(0, 0, torch.tensor([number])), torch.tensor([[40, 48]]), num_views)[:, 0]


def views(made, raw, num_views=2):
    action = actions(made, num_views=num_views)
    x = tuple(view[None] for view in cut(made, raw, action))
    batch = Batch(x, action[:, None], torch.zeros(1, 3, dtype=torch.int64))
    return make_views(batch, made, performed=1, finish=ImageCrop(made, saliency=True).finish)


def cut(made, raw, action):
    """The views, with alpha as their fourth channel."""
    decoder = ImageCrop(made, saliency=True)
    return decoder(decoder.open(raw), action)


def plain(raw, action):
    """The view without any saliency."""
    decoder = ImageCrop(Compose({"crop": AffineCrop(size=SIDE, flip=1.0)}))
    return decoder(decoder.open(raw), action[:, :9])


def test_the_fourth_channel_is_cut_as_the_colours_are():
    made = space()
    action = actions(made)
    for alpha, view in enumerate(cut(made, with_alpha(0), action)):
        assert view.shape == (4, SIDE, SIDE)
        # Colours beneath alpha 0 are there: neither laid on white nor multiplied away.
        assert torch.equal(view[:3], plain(encoded(colours()), action)[alpha])
        mask = np.zeros((40, 48, 3), dtype=np.uint8)
        mask[:, 24:] = 255
        assert torch.equal(view[3], plain(encoded(mask), action)[alpha][0])


def test_a_picture_without_alpha_is_all_thing():
    made = space()
    for view in cut(made, encoded(colours()), actions(made)):
        assert (view[3] == 255).all()


@pytest.mark.parametrize("fill", [0.5, 0.2])
def test_the_background_is_grey_and_the_thing_is_as_it_was(fill):
    made = space(fill=fill)
    seen = views(made, with_alpha(0))
    for v, x in enumerate(seen.x):
        raw = cut(made, with_alpha(0), actions(made))[v].float() / 255
        expected = raw[:3] * raw[3] + fill * (1 - raw[3])
        torch.testing.assert_close(x[0], expected, rtol=0, atol=1e-6)
        assert x.shape == (1, 3, SIDE, SIDE)
    assert any(bool((x - fill).abs().amax(dim=1).lt(1e-6).any()) for x in seen.x)


def test_with_probability_0_and_in_other_views_only_the_channel_is_dropped():
    never, first = views(space(p=0.0), with_alpha(0)), views(space(views=[0]), with_alpha(0))
    bare = [x.float() / 255 for x in plain(encoded(colours()), actions(space()))]
    for x, expected in zip(never.x, bare, strict=True):
        assert torch.equal(x[0], expected)
    assert not torch.equal(first.x[0][0], bare[0])
    assert torch.equal(first.x[1][0], bare[1])


def test_the_evaluation_view_has_three_channels_of_the_colours_beneath():
    decoder, opaque = ImageCrop(space(), saliency=True), ImageCrop(Compose({"crop": AffineCrop(size=SIDE)}))
    seen = decoder.whole(decoder.open(with_alpha(0)))
    bare = opaque.whole(opaque.open(encoded(colours())))
    assert torch.equal(seen, bare)


def test_share_of_backgrounds_and_an_upright_thing():
    drawn = Background(p=0.1).sample(make_keys(0, 0, torch.arange(20_000)), torch.ones(20_000, 2), 0)
    assert float(drawn.mean()) == pytest.approx(0.1, abs=0.01)
    stored = pil.open(io.BytesIO(with_alpha(0))).transpose(pil.Transpose.ROTATE_90)
    exif, file = pil.Exif(), io.BytesIO()
    exif[0x0112] = 6  # to be turned clockwise
    stored.save(file, "PNG", exif=exif)
    made = space()
    turned, upright = (cut(made, raw, actions(made)) for raw in (file.getvalue(), with_alpha(0)))
    assert all(map(torch.equal, turned, upright))


def test_refusals():
    crop, part = AffineCrop(size=SIDE), Background()
    late = Compose({"crop": crop, "grayscale": Grayscale(), "background": part})
    for made, saliency in ((Compose({"crop": crop}), True), (space(), False), (late, True)):
        with pytest.raises(UsageError, match=r"saliency=(true|false) and actions.background go together"):
            ImageCrop(made, saliency=saliency)
    for options, sentence in (({"p": 2.0}, "background.p=2.0"), ({"fill": -0.1}, "actions.background.fill=-0.1")):
        with pytest.raises(UsageError, match=sentence):
            Background(**options)


def test_without_an_alpha_channel_it_is_said_once(caplog):
    _no_alpha.cache_clear()
    for _ in range(2):
        Image(space())
    assert caplog.text.count("actions.background does nothing: decoder=image") == 1
