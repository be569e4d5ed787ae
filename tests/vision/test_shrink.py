"""Packing with `shorter`: sizes, aspect, orientation, alpha and order of what is resized; the bytes of what is not."""

import io
import json
import logging

import numpy as np
import pytest
from PIL import Image

from stec.cli.shards import main
from stec.errors import DataError, UsageError
from stec.shards.reader import open_shards
from stec_vision import shrink
from stec_vision.packers import ImageFolder
from stec_vision.reading import Picture
from stec_vision.shrink import smaller

UPRIGHT, TURNED = 1, 6
ORIENTATION = 0x0112


def gradient(height, width):
    """uint8 [H, W, 3]: red grows downwards, green to the right, blue is 100. A resized one is the same gradient."""
    red = np.linspace(0, 250, height)[:, None].repeat(width, axis=1)
    green = np.linspace(0, 250, width)[None].repeat(height, axis=0)
    return np.stack([red, green, np.full_like(red, 100)], axis=-1).round().astype(np.uint8)


def encoded(pixels, kind="JPEG", **options):
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **({"quality": 95, "subsampling": "4:4:4"} if kind == "JPEG" else {}) | options)
    return file.getvalue()


def opened(raw):
    image = Image.open(io.BytesIO(raw))
    image.load()
    return image


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


@pytest.mark.parametrize(
    ("size", "becomes"), [((90, 120), (30, 40)), ((120, 90), (40, 30)), ((100, 51), (59, 30)), ((31, 999), (30, 967))]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_shorter_side_and_the_aspect(size, becomes, kind):
    extension, data = smaller(encoded(gradient(*size), kind), 30)
    image = opened(data)
    assert (extension, image.format, image.mode) == ("jpg", "JPEG", "RGB")
    assert (image.height, image.width) == becomes
    assert np.abs(np.asarray(image).astype(int) - gradient(*becomes)).mean() < 3


def test_a_jpeg_is_of_the_quality_and_the_sampling_that_are_told():
    raw = encoded(gradient(90, 120), comment=b"made by me", icc_profile=b"profile", exif=exif(UPRIGHT))
    _, data = smaller(raw, 30)
    image, wanted = opened(data), opened(encoded(gradient(30, 40), quality=90, subsampling="4:2:0"))
    assert image.quantization == wanted.quantization
    assert [part[1:3] for part in image.layer] == [(2, 2), (1, 1), (1, 1)]
    assert not {"exif", "icc_profile", "comment"} & set(image.info)


def test_antialiased_as_a_triangle_filter_and_not_by_leaving_pixels_out():
    """A chequerboard of single pixels is grey from afar."""
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    _, data = smaller(encoded(np.repeat(board[..., None], 3, axis=-1).astype(np.uint8), "PNG"), 16)
    assert np.abs(np.asarray(opened(data)).astype(int) - 127).max() <= 4


def test_a_picture_lying_on_its_side_is_put_upright_and_stays_so():
    """Its shorter side is that of the upright picture, which is what every decoder sees."""
    upright = gradient(60, 120)
    lying = encoded(np.rot90(upright), exif=exif(TURNED))  # to be turned clockwise by whoever shows it
    assert Picture(lying, 10_000).size == (60, 120)
    _, data = smaller(lying, 30)
    assert ORIENTATION not in opened(data).getexif()
    found = np.asarray(Picture(data, 10_000).rgb())
    assert found.shape == (30, 60, 3)
    assert np.abs(found.astype(int) - gradient(30, 60)).mean() < 3


def test_transparency_is_kept_with_the_colours_beneath_it():
    alpha = np.zeros((60, 120, 1), np.uint8)
    alpha[:, 60:] = 255
    extension, data = smaller(encoded(np.concatenate([gradient(60, 120), alpha], axis=-1), "PNG"), 30)
    assert (extension, opened(data).format, opened(data).mode) == ("png", "PNG", "RGBA")
    colours, shown = Picture(data, 10_000).layers()
    assert np.abs(np.asarray(colours).astype(int) - gradient(30, 60)).max() <= 3
    assert (np.asarray(shown)[:, :28] == 0).all()
    assert (np.asarray(shown)[:, 32:] == 255).all()


def test_an_alpha_channel_that_hides_nothing_is_no_transparency():
    pixels = np.concatenate([gradient(60, 120), np.full((60, 120, 1), 255, np.uint8)], axis=-1)
    extension, data = smaller(encoded(pixels, "WEBP", lossless=True), 30)
    assert (extension, opened(data).mode) == ("jpg", "RGB")


def test_what_is_longer_than_a_jpeg_can_be_is_a_png():
    extension, data = smaller(encoded(Image.new("L", (140_000, 4), 7), "PNG"), 2)
    assert (extension, opened(data).mode, opened(data).size) == ("png", "RGB", (70_000, 2))


def test_what_is_small_enough_is_left_alone():
    for size in ((30, 40), (40, 30), (30, 30), (4, 1000)):
        assert smaller(encoded(gradient(*size)), 30) is None


def test_the_same_bytes_each_time():
    raw = encoded(gradient(90, 120))
    assert smaller(raw, 30) == smaller(raw, 30)


def test_damage_and_too_many_pixels_are_told(monkeypatch):
    raw = encoded(gradient(90, 120))
    with pytest.raises(DataError, match="truncated or damaged"):
        smaller(raw[: len(raw) // 2], 30)
    monkeypatch.setattr(shrink, "MAX_PIXELS", 10_799)
    with pytest.raises(DataError, match="120x90 pixels, more than max_pixels=10799"):
        smaller(raw, 30)


@pytest.fixture
def folder(tmp_path):
    """40 pictures of two classes, every second one small; 7.jpeg is cut off, and 8.png is transparent."""
    root = tmp_path / "pictures"
    for number in range(40):
        path = root / ("cat", "dog")[number % 4 // 2] / f"{number}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(gradient(*((20, 24) if number % 2 else (60, 80 + number)))))
    (root / "dog" / "7.jpeg").write_bytes(encoded(gradient(90, 120))[:-300])
    (root / "cat" / "8.jpeg").unlink()
    (root / "cat" / "8.png").write_bytes(encoded(Image.new("RGBA", (60, 60), (9, 8, 7, 6)), "PNG"))
    return root


def paths(samples):
    return [json.loads(sample["json"])["path"] for sample in samples]


def member(sample):
    """(extension, bytes) of the picture."""
    ((extension, data),) = [(k, v) for k, v in sample.items() if k not in ("__key__", "json", "cls")]
    return extension, data


def test_samples_keep_their_order_labels_and_splits(folder):
    plain, packer = ImageFolder(str(folder)), ImageFolder(str(folder), shorter=30)
    assert plain.splits == packer.splits
    for split in plain.splits:
        before, after = list(plain.samples(split)), list(packer.samples(split))
        assert [{k: s[k] for k in ("__key__", "json", "cls")} for s in before] == [
            {k: s[k] for k in ("__key__", "json", "cls")} for s in after
        ]
        assert after == list(packer.samples(split))


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_resized_and_what_is_not(folder, threads, monkeypatch, caplog):
    monkeypatch.setattr(shrink, "cores", lambda: threads)
    caplog.set_level(logging.INFO, logger="stec")
    samples = list(ImageFolder(str(folder), holdout=0.0, shorter=30).samples("train"))
    for path, sample in zip(paths(samples), samples, strict=True):
        extension, data = member(sample)
        number = int(path.partition("/")[2].partition(".")[0])
        if number % 2:  # 7, the damaged one, among them
            assert (extension, data) == ("jpg", (folder / path).read_bytes())
        else:
            assert min(opened(data).size) == 30
            assert extension == ("png" if number == 8 else "jpg")
    told = [record.getMessage() for record in caplog.records]
    assert "more than 30 pixels are resized" in told[0]
    assert "detail is lost" in told[0]
    assert told[1].startswith(f"packed as it is: {folder / 'dog' / '7.jpeg'}: a truncated or damaged picture")
    assert told[2:] == ["train: 20 of 40 pictures resized; 1 that cannot be decoded are packed as they are"]


def test_a_file_that_goes_away_ends_it(folder):
    packer = ImageFolder(str(folder), holdout=0.0, shorter=30)
    (folder / "cat" / "4.jpeg").unlink()
    with pytest.raises(DataError, match=r"4\.jpeg: unreadable: No such file"):
        list(packer.samples("train"))


def test_little_is_held_in_memory(folder, monkeypatch):
    """However slow the reader of the samples is."""
    made = []
    monkeypatch.setattr(shrink, "cores", lambda: 2)
    monkeypatch.setattr(shrink, "smaller", lambda raw, shorter: made.append(raw))
    samples = ImageFolder(str(folder), holdout=0.0, shorter=30).samples("train")
    for taken in range(1, 20):
        next(samples)
        assert len(made) < taken + 4 * 2
    samples.close()


def test_the_command_and_what_the_index_says(folder, tmp_path, capsys):
    words = [str(folder), "--packer", "image_folder", "--out", str(tmp_path / "out"), "shorter=30", "holdout=0.2"]
    assert main(["pack", *words]) == 0
    told = capsys.readouterr()
    assert "detail is lost" in told.err
    assert "fields cls jpg json" in told.out
    for split in ("train", "test"):
        meta = open_shards(tmp_path / "out" / split).meta
        assert meta["resized"] == {"shorter": 30, "quality": 90}
        assert meta["classes"] == ["cat", "dog"]
    assert "resized" not in ImageFolder(str(folder)).meta("train")


def test_a_side_of_no_pixels_is_refused(folder):
    with pytest.raises(UsageError, match=r"packer\.shorter=0 must be at least 1 pixel, or null"):
        ImageFolder(str(folder), shorter=0)
