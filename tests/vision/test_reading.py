"""What reading a picture promises beside what test_decode.py tells: limits before allocation, and harmless oddities."""

import io
import struct
import zlib

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


def announced(width, height):
    """A PNG of a few bytes whose header promises this many pixels."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b"")]
    each = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(each)


@pytest.mark.parametrize(
    ("side", "says"), [(10_000, "10000x10000 pixels, more than max_pixels=99"), (100_000, "far too many pixels: not d")]
)
def test_a_header_that_promises_too_much_is_one_sentence_and_no_warning(side, says):
    with pytest.raises(DataError, match=says) as error:
        Picture(announced(side, side), 99)
    assert ".." not in str(error.value)


def test_damaged_metadata_is_passed_over_in_silence():
    pixels = Image.fromarray(noise(8, 8))
    raw = encoded(pixels, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0")
    with pytest.warns(UserWarning, match="EXIF"):
        Image.open(io.BytesIO(raw)).getexif()
    assert Picture(raw, 64).size == (8, 8)


def test_pixels_come_through():
    pixels = noise(6, 10)
    found = to_tensor(Picture(encoded(Image.fromarray(pixels)), 60).rgb())
    assert found.is_contiguous()
    assert torch.equal(found, torch.from_numpy(pixels).permute(2, 0, 1))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (63, 97), (1, 1), (5, 300)])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 100}])
def test_pixels_of_a_jpeg_are_pils_bit_for_bit(height, width, options):
    raw = encoded(Image.fromarray(noise(height, width)), "JPEG", **options)
    found = Picture(raw, 10**6).pixels()
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, np.asarray(Picture(raw, 10**6).rgb()))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_jpegs_have_the_same_pixels_too(mode):
    raw = encoded(Image.fromarray(noise(20, 30)).convert(mode), "JPEG")
    np.testing.assert_array_equal(Picture(raw, 10**6).pixels(), np.asarray(Picture(raw, 10**6).rgb()))


def test_a_jpeg_that_is_cut_off_anywhere_is_refused():
    raw = encoded(Image.fromarray(noise(16, 16)), "JPEG", quality=50)
    for num in range(len(raw)):
        with pytest.raises(DataError):
            Picture(raw[:num], 10**6).pixels()


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
