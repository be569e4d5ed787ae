"""Patches: train and test share no pixel, the same names give the same bytes, and the photographs are really there."""

import inspect
import io
import json

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stec.cli.recipes import own
from stec.errors import UsageError
from stec_vision.patches import PHOTOGRAPHS, Patches


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Two photographs whose every pixel is different."""
    root = tmp_path_factory.mktemp("album")
    for number, (height, width) in enumerate([(100, 130), (96, 64)]):
        value = np.arange(height * width)
        channels = np.stack([value % 251, value // 251, np.full_like(value, number)], axis=-1)
        Image.fromarray(channels.reshape(height, width, 3).astype(np.uint8)).save(root / f"p{number}.png")
    return str(root)


OPTIONS = {"photographs": ["p0", "p1"], "window": 16, "size": 16, "block": 32, "num_train": 9, "num_test": 4}


def pixels(sample):
    return np.asarray(Image.open(io.BytesIO(sample["webp"])).convert("RGB"))


def test_a_patch_is_where_it_says_and_has_the_photographs_label(album):
    packer = Patches(album, **OPTIONS)
    assert packer.meta("train") == {"classes": ["p0", "p1"]}
    for split, num in (("train", 18), ("test", 8)):
        samples = list(packer.samples(split))
        assert [s["__key__"] for s in samples] == [f"{split}-{n:08d}" for n in range(num)]
        assert [int(s["cls"]) for s in samples] == [0, 1] * (num // 2)
        for sample in samples:
            where = json.loads(sample["json"])
            photograph = np.asarray(Image.open(f"{album}/{where['photograph']}.png"))
            row, column = where["row"], where["column"]
            assert np.array_equal(pixels(sample), photograph[row : row + 16, column : column + 16])
            assert packer.classes[int(sample["cls"])] == where["photograph"]
        assert len({s["webp"] for s in samples}) == num


def test_train_and_test_share_no_pixel(album):
    packer = Patches(album, **OPTIONS)
    seen = {
        split: {tuple(p) for s in packer.samples(split) for p in pixels(s).reshape(-1, 3).tolist()}
        for split in packer.splits
    }
    assert min(map(len, seen.values())) > 300
    assert not seen["train"] & seen["test"]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 30), st.integers(1, 9), st.integers(1, 300), st.integers(1, 300))
def test_no_layout_lets_a_pixel_leak(window, more, stride, height, width):
    packer = Patches("", window=window, block=window + more, stride=stride)
    touched = {}
    for split in packer.splits:
        touched[split] = np.zeros((height, width), dtype=bool)
        for row, column in packer.places(height, width, split).tolist():
            assert row + window <= height
            assert column + window <= width
            touched[split][row : row + window, column : column + window] = True
    assert not (touched["train"] & touched["test"]).any()
    whole_blocks = (height // packer.block) * (width // packer.block)
    assert whole_blocks == 0 or touched["train"].any() or touched["test"].any()


def test_about_a_quarter_of_the_blocks_is_for_testing():
    packer = Patches("", window=8, block=8)
    num = {split: len(packer.places(8 * 12, 8 * 12, split)) for split in packer.splits}
    assert num == {"train": 108, "test": 36}


def test_the_same_options_give_the_same_bytes_and_another_seed_others(album):
    first, again = (list(Patches(album, **OPTIONS).samples("train")) for _ in range(2))
    assert first == again
    other = list(Patches(album, **OPTIONS, seed=1).samples("train"))
    assert [s["json"] for s in other] != [s["json"] for s in first]


def test_fewer_patches_are_a_prefix(album):
    few = list(Patches(album, **OPTIONS | {"num_train": 3}).samples("train"))
    assert few == list(Patches(album, **OPTIONS).samples("train"))[:6]


def test_a_patch_is_resized_and_greyed_on_its_own(album):
    packer = Patches(album, **OPTIONS | {"size": 8, "grey": True})
    sample = next(packer.samples("train"))
    found = pixels(sample)
    assert found.shape == (8, 8, 3)
    assert np.array_equal(found[..., 0], found[..., 1])
    where = json.loads(sample["json"])
    cut = Image.open(f"{album}/{where['photograph']}.png").convert("L").convert("RGB")
    box = (where["column"], where["row"], where["column"] + 16, where["row"] + 16)
    # The filter sees the patch only, not its surroundings.
    assert np.array_equal(found, np.asarray(cut.crop(box).resize((8, 8), Image.Resampling.BILINEAR)))


def test_the_default_photographs_come_with_scikit_image():
    packer = Patches("", num_train=2, num_test=1)
    assert packer.classes == list(PHOTOGRAPHS)
    train = list(packer.samples("train"))
    assert len(train) == 2 * len(PHOTOGRAPHS)
    assert all(pixels(s).shape == (32, 32, 3) for s in train)
    assert len(list(packer.samples("test"))) == len(PHOTOGRAPHS)


def test_the_defaults_are_the_quickstarts():
    recipe = yaml.safe_load((own() / "dataset/quickstart.yaml").read_text(encoding="utf-8"))["packer"]
    parameters = inspect.signature(Patches).parameters
    defaults = {name: p.default for name, p in parameters.items() if name != "source"}
    assert {"name": "patches", **defaults, "photographs": list(PHOTOGRAPHS)} == recipe


def test_the_defaults_have_enough_patches_of_every_photograph():
    packer = Patches("")
    for split in packer.splits:
        assert next(packer.samples(split))["__key__"] == f"{split}-00000000"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"window": 33}, r"packer\.window=33 must be between 1 and block=32"),
        ({"stride": 0}, r"packer\.stride=0 must be at least 1"),
        ({"num_test": 0}, r"packer\.num_test=0 must be at least 1"),
        ({"photographs": ["p2"]}, r"packer\.photographs: no 'p2' here: There is: p0, p1\."),
        ({"photographs": []}, "must be different names, at least one"),
        ({"photographs": ["p0", "p0"]}, "must be different names, at least one"),
        ({"num_train": 10_000}, r"packer\.num_train=10000: 'p0' \(100x130 pixels\) has only \d+ such patches"),
    ],
)
def test_bad_options_are_told_in_a_sentence(album, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        list(Patches(album, **OPTIONS | options).samples("train"))


def test_no_such_folder_is_told_in_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="no such folder of photographs"):
        Patches(str(tmp_path / "nowhere"))
