"""Two large views and some small ones: their law, their sizes, and their way through every kind of loading."""

import io

import numpy as np
import pytest
import torch
from PIL import Image as pil

from stec.actions import Compose, sample_views
from stec.errors import UsageError
from stec.loading import Stream, remake
from stec.objective import STEC, Out, Term, tally
from stec.resident import Resident
from stec.rng import make_keys
from stec.shards.reader import open_shards
from stec.shards.writer import write_split
from stec.training.gradcache import GradCache
from stec.training.gradient import Pass, Plain
from stec.training.options import Hardware
from stec.views import make_views
from stec_vision.actions import AffineCrop
from stec_vision.decode import Image, ImageCrop
from stec_vision.photometry import ColorJitter, GaussianBlur
from stec_vision.timm_encoder import Timm

MULTI = {"size": 24, "scale": (0.14, 1.0), "num_global": 2, "small_size": 10}
SPACE = Compose({"crop": AffineCrop(**MULTI), "color_jitter": ColorJitter(), "gaussian_blur": GaussianBlur()})
SIDES = [24, 24, 10, 10, 10]
CPU = Hardware(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """10 smooth pictures of 40 x 48 pixels, lossless, in two shards."""
    place, across, down = tmp_path_factory.mktemp("multi"), *np.meshgrid(np.linspace(0, 1, 48), np.linspace(0, 1, 40))
    samples = []
    for number in range(10):
        waves = [np.sin(5 * across + number), np.cos(4 * down - number), np.sin(6 * across * down + number)]
        file = io.BytesIO()
        pil.fromarray((127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)).save(file, "png")
        samples.append({"__key__": f"wave-{number:02d}", "png": file.getvalue(), "cls": b"0"})
    write_split(samples, place / "train", name="train", meta={"classes": ["a"]}, samples_per_shard=5)
    return open_shards(place / "train")


def batches(shards, decoder, num_workers=0):
    return list(Stream(shards, decoder, SPACE, batch_size=4, num_views=5, seed=3, num_workers=num_workers).batches(0))


def completed(batch, decoder):
    return make_views(batch, SPACE, performed=decoder.performs, finish=decoder.finish)


@pytest.mark.parametrize("kind", [Image, ImageCrop])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_streamed_views_have_their_sizes_and_say_how_many_are_large(shards, kind, num_workers):
    decoder = kind(SPACE)
    for batch in batches(shards, decoder, num_workers):
        assert len(batch.x) == (5 if decoder.performs else 1)
        views = completed(batch, decoder)
        assert [tuple(x.shape) for x in views.x] == [(4, 3, side, side) for side in SIDES]
        assert views.num_global == 2
        assert views.copies[0, 1].values.shape == (4, 6)
        for row, key in enumerate(batch.keys):
            again = remake(shards, decoder, SPACE, key, num_views=5)
            assert all(torch.equal(x[0], whole[row]) for x, whole in zip(again.x, batch.x, strict=True))


def test_both_decoders_make_the_same_views_and_so_does_memory(shards):
    whole, cut = Image(SPACE), ImageCrop(SPACE)
    kept = Resident(shards, whole, SPACE, batch_size=4, num_views=5, seed=3).batches(0)
    for late, early, resident in zip(batches(shards, whole), batches(shards, cut), kept, strict=True):
        assert torch.equal(late.actions, early.actions)
        made = completed(late, whole)
        for a, b, c in zip(made.x, completed(early, cut).x, completed(resident, whole).x, strict=True):
            assert (a - b).abs().mean() < 0.003
            assert (a - b).abs().max() < 0.03
            assert torch.equal(a, c)


def test_small_views_are_windows_of_their_own_scale_and_large_ones_are_as_ever():
    crop, plain = AffineCrop(**MULTI), AffineCrop(size=24, scale=(0.14, 1.0))
    keys, extent = make_keys(0, 0, torch.arange(4000)), torch.tensor([[200, 300]]).expand(4000, 2)
    for view in range(4):
        action = crop.sample(keys, extent, view)
        share = action[:, 2] * action[:, 3] / (200 * 300)
        low, high = (0.14, 1.0) if view < 2 else (0.05, 0.14)
        assert low * 0.98 < share.min()
        assert share.max() < high * 1.02
        assert crop.side(view) == SIDES[view]
        assert torch.equal(action, plain.sample(keys, extent, view)) == (view < 2)


def test_a_small_view_is_that_of_a_space_of_its_size_also_with_a_turn():
    x = torch.rand(3, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    for options in ({}, {"rotation": 0.3}):
        crop, small = AffineCrop(**MULTI, **options), AffineCrop(size=10, **options)
        action = crop.sample(make_keys(0, 0, torch.arange(3)), torch.tensor([[40, 48]]).expand(3, 2), 2)
        assert torch.equal(crop.act(x, action, 2), small.act(x, action, 0))


def test_a_jpeg_is_reduced_only_as_far_as_the_most_demanding_view_allows():
    """Large views of a large window allow a coarser decoding than a small window; the finest one decides."""
    across, down = np.meshgrid(np.arange(480), np.arange(400))
    waves = [np.sin(across / (3 + c)) + np.cos(down / (4 + c)) for c in range(3)]
    file, lossless = io.BytesIO(), io.BytesIO()
    image = pil.fromarray((127 + 60 * np.stack(waves, axis=-1)).astype(np.uint8))
    image.save(file, "JPEG", quality=98, subsampling=0)
    image.save(lossless, "PNG")
    space = Compose({"crop": AffineCrop(**MULTI)})
    actions = sample_views(space, make_keys(0, 0, torch.tensor([1])), torch.tensor([[400, 480]]), 5)[:, 0]
    decoder = ImageCrop(space)
    each = (decoder(decoder.open(stored.getvalue()), actions) for stored in (file, lossless))
    for one, other in zip(*each, strict=True):
        assert (one.float() - other.float()).abs().mean() < 3


class EveryView(Term):
    """Pulls all views to their mean: a loss that reaches each of them."""

    needs = frozenset({"pooled"})
    num_views = 2

    def forward(self, features, views):
        z = torch.stack([f.pooled for f in features])
        loss = (z - z.mean(dim=0)).square().mean() + (z[: views.num_global] - 1).square().mean()
        return Out(loss, {"train/loss_id": tally(loss)})


def test_micro_batches_give_the_whole_batch_s_gradient(shards):
    decoder = ImageCrop(SPACE)
    views = completed(batches(shards, decoder)[0], decoder)
    views = views._replace(x=tuple(x.double() for x in views.x))
    found = []
    for micro in (False, True):
        torch.manual_seed(0)
        encoder = Timm(model="test_vit", image_size=24, patch_size=2, dynamic_size=True, depth=1)
        stec = STEC(encoder, {"every": (1.0, EveryView())}, {}, {}).double()
        if micro:
            GradCache(stec, CPU, lambda loss: loss, 2)(views, False)
        else:
            Plain(Pass(stec), CPU, lambda loss: loss)(views, False)
        found.append([p.grad for p in stec.parameters()])
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 1e-6 * one.norm()  # timm resamples the positions of patches in float32


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_global": 0, "small_size": 8}, "actions.affine_crop.num_global=0 must be at least 1"),
        ({"num_global": 2}, "num_global and small_size go together"),
        ({"small_size": 8}, "num_global and small_size go together"),
        ({"num_global": 2, "small_size": 24}, "actions.affine_crop.small_size=24 must be at least 1 and below size=24"),
        ({"num_global": 2, "small_size": 0}, "small_size=0"),
        ({"small_scale": (0.2, 0.1)}, "actions.affine_crop.small_scale"),
    ],
)
def test_refusals(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        AffineCrop(size=24, **options)
