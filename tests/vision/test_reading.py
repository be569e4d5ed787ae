"""What reading a picture promises beside what test_decode.py tells: limits before allocation, and harmless oddities."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from stec.errors import DataError
from stec_vision.reading import Picture, to_tensor


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_limit_is_on_the_number_of_pixels_and_inclusive():
    raw = encoded(Image.fromarray(noise(6, 10)))
    assert Picture(raw, 60).size == (6, 10)
    with pytest.raises(DataError, match="10x6 pixels, more than max_pixels=59: not decoded"):
        Picture(raw, 59)


def test_pixels_come_through():
    pixels = noise(6, 10)
    found = to_tensor(Picture(encoded(Image.fromarray(pixels)), 60).rgb())
    assert found.is_contiguous()
    assert torch.equal(found, torch.from_numpy(pixels).permute(2, 0, 1))


def test_a_reduced_jpeg_stays_at_least_as_large_as_wanted():
    raw = encoded(Image.fromarray(noise(256, 512)), "JPEG")
    picture = Picture(raw, 10**6)
    picture.reduce(60, 120)
    image = picture.rgb()
    assert picture.size == (256, 512)
    assert (image.height, image.width) == (64, 128)
    whole = Picture(raw, 10**6)
    whole.reduce(256, 512)
    assert whole.rgb().size == (512, 256)


def test_reducing_a_turned_jpeg_asks_for_the_turned_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Picture(encoded(Image.fromarray(noise(256, 512)), "JPEG", exif=exif), 10**6)
    assert picture.size == (512, 256)
    picture.reduce(256, 60)
    assert picture.rgb().size == (128, 256)


def test_other_formats_are_not_reduced():
    picture = Picture(encoded(Image.fromarray(noise(64, 64))), 10**6)
    picture.reduce(8, 8)
    assert picture.rgb().size == (64, 64)


def test_a_damaged_orientation_does_not_spoil_a_picture():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert Picture(encoded(Image.fromarray(noise(4, 8)), exif=exif), 100).size == (4, 8)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # what PIL has to say about it
def test_a_damaged_exif_block_does_not_spoil_a_picture():
    broken = encoded(Image.fromarray(noise(8, 16)), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    assert Picture(broken, 1000).rgb().size == (16, 8)


def test_the_first_frame_of_an_animation_is_the_picture():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    raw = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Picture(raw, 100).rgb().getpixel((0, 0)) == (200, 0, 0)


def test_numbers_without_a_range_are_refused():
    raw = encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    with pytest.raises(DataError, match="no agreed range"):
        Picture(raw, 100).rgb()


def test_an_empty_sample_says_so():
    with pytest.raises(DataError, match="0 bytes: is the sample empty"):
        Picture(b"", 100)
