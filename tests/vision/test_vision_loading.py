"""Real pictures from real shards through both decoders: one order, one set of actions, the same views."""

import io

import numpy as np
import pytest
import torch
from PIL import Image as pil

from stec.actions import Compose
from stec.loading import Stream, examples, remake
from stec.resident import Resident
from stec.shards.reader import open_shards
from stec.shards.writer import write_split
from stec.views import make_views
from stec_vision.actions import AffineCrop
from stec_vision.decode import Image, ImageCrop
from stec_vision.photometry import ColorJitter, Grayscale

SPACE = Compose({"affine_crop": AffineCrop(size=24), "color_jitter": ColorJitter(), "grayscale": Grayscale()})


@pytest.fixture
def shards(tmp_path):
    """14 smooth pictures of 40 x 48 pixels, lossless, in three shards; the label is the number modulo 3."""
    across, down = np.meshgrid(np.linspace(0, 1, 48), np.linspace(0, 1, 40))
    samples = []
    for number in range(14):
        waves = [np.sin(5 * across + number), np.cos(4 * down - number), np.sin(6 * across * down + number)]
        file = io.BytesIO()
        pil.fromarray((127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)).save(file, "png")
        samples.append({"__key__": f"wave-{number:02d}", "png": file.getvalue(), "cls": str(number % 3).encode()})
    write_split(samples, tmp_path / "train", name="train", meta={"classes": ["a", "b", "c"]}, samples_per_shard=5)
    return open_shards(tmp_path / "train")


def streamed(shards, decoder, num_workers=0):
    return list(Stream(shards, decoder, SPACE, batch_size=4, seed=5, window=2, num_workers=num_workers).batches(1))


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.x, b.x, strict=True))
        assert torch.equal(a.actions, b.actions)
        assert torch.equal(a.keys, b.keys)
        assert torch.equal(a.labels, b.labels)


@pytest.mark.parametrize("kind", [Image, ImageCrop])
def test_workers_change_nothing_and_every_row_can_be_made_again(shards, kind):
    decoder = kind(SPACE)
    batches = streamed(shards, decoder)
    assert_same(streamed(shards, decoder, num_workers=2), batches)
    for batch in batches:
        assert all(x.dtype == torch.uint8 for x in batch.x)
        assert torch.equal(batch.labels, batch.keys[:, 2] % 3)
        for row, key in enumerate(batch.keys):
            again = remake(shards, decoder, SPACE, key)
            assert all(torch.equal(x[0], whole[row]) for x, whole in zip(again.x, batch.x, strict=True))
            assert torch.equal(again.actions[:, 0], batch.actions[:, row])


def test_pictures_in_memory_give_the_same_batches_and_examples(shards):
    kept = Resident(shards, Image(SPACE), SPACE, batch_size=4, seed=5, window=2)
    assert_same(list(kept.batches(1)), streamed(shards, Image(SPACE)))
    for (x, labels), (other, known) in zip(kept.examples(), examples(shards, Image(SPACE)), strict=True):
        assert x.shape == (14, 3, 40, 48)
        assert torch.equal(x, other)
        assert torch.equal(labels, known)


def test_views_cut_while_decoding_are_those_made_on_the_device(shards):
    whole, cut = Image(SPACE), ImageCrop(SPACE)
    for late, early in zip(streamed(shards, whole), streamed(shards, cut), strict=True):
        assert torch.equal(late.actions, early.actions)
        made = make_views(late, SPACE, performed=whole.performs, finish=whole.finish)
        begun = make_views(early, SPACE, performed=cut.performs, finish=cut.finish)
        for a, b in zip(made.x, begun.x, strict=True):
            assert a.shape == b.shape == (4, 3, 24, 24)
            # 8 bits between crop and colour (1/255, up to 1.4 times brighter, contrastier and more saturated)
            assert (a - b).abs().max() < 0.02
            assert (a - b).abs().mean() < 0.002
        assert all(torch.equal(made.copies[p].values, begun.copies[p].values) for p in made.copies)
