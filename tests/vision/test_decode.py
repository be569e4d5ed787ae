"""Every kind of file becomes upright 8-bit RGB, damage and bombs one sentence; cutting while decoding cuts the same."""

import io
import struct
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as pil
from PIL import ImageFile
from toy_source import Memory

from stec.actions import Compose, sample_views
from stec.errors import DataError, UsageError
from stec.rng import make_keys
from stec.samples import make_batch
from stec.views import make_views
from stec_vision.actions import AffineCrop
from stec_vision.decode import Image, ImageCrop
from stec_vision.photometry import ColorJitter, GaussianBlur, Grayscale, Solarize
from stec_vision.quarter_turn import QuarterTurn


def photograph(height, width):
    """A smooth picture with some detail, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (5 + c)) + np.cos(y / (7 - c)) + np.sin((x + y) / 3.1) / 4 for c in range(3)]
    return ((np.stack(waves, -1) + 2.25) / 4.5 * 255).round().astype(np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def space(size=32, **options):
    return Compose({"crop": AffineCrop(size=size, **options)})


def whole(raw, **options):
    decoder = Image(space(), **options)
    return decoder.whole(decoder.open(raw))


def bomb(width, height):
    """A well-formed PNG header that promises width x height pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation, kind):
    upright = photograph(20, 30)
    undo = {
        2: pil.Transpose.FLIP_LEFT_RIGHT,
        3: pil.Transpose.ROTATE_180,
        4: pil.Transpose.FLIP_TOP_BOTTOM,
        5: pil.Transpose.TRANSPOSE,
        6: pil.Transpose.ROTATE_90,
        7: pil.Transpose.TRANSVERSE,
        8: pil.Transpose.ROTATE_270,
    }
    stored = pil.fromarray(upright)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = pil.Exif()
    exif[0x0112] = orientation
    raw = encoded(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    decoder = Image(space())
    assert decoder.open(raw).extent == (20, 30)
    assert torch.equal(decoder.whole(decoder.open(raw)), torch.from_numpy(upright).permute(2, 0, 1))


def test_orientation_of_a_jpeg_that_is_reduced_while_decoding():
    upright = photograph(256, 384)
    exif = pil.Exif()
    exif[0x0112] = 6
    raw = encoded(pil.fromarray(upright).transpose(pil.Transpose.ROTATE_90), "JPEG", quality=98, exif=exif)
    plain = encoded(pil.fromarray(upright), "JPEG", quality=98)
    decoder = ImageCrop(space(32))
    assert decoder.open(raw).extent == (256, 384)
    assert (decoder.whole(decoder.open(raw)).float() - decoder.whole(decoder.open(plain)).float()).abs().max() <= 8


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1", "I;16", "YCbCr"])
def test_every_mode_becomes_rgb(mode):
    rgb = pil.fromarray(photograph(16, 24))
    if mode == "I;16":
        image, kind = pil.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257), "PNG"
        expected = rgb.convert("L").convert("RGB")
    else:
        image, kind = rgb.convert(mode), {"CMYK": "TIFF", "YCbCr": "TIFF"}.get(mode, "PNG")
        expected = image.convert("RGB")
    found = whole(encoded(image, kind))
    assert found.dtype == torch.uint8
    assert found.shape == (3, 16, 24)
    assert (found.permute(1, 2, 0).numpy().astype(int) - np.asarray(expected).astype(int)).__abs__().max() <= 1


def test_cmyk_jpeg_and_sixteen_bits_are_scaled_not_clipped():
    grey = pil.fromarray(np.full((8, 8, 3), 128, np.uint8))
    assert (whole(encoded(grey.convert("CMYK"), "JPEG", quality=95)).float() - 128).abs().max() <= 2
    assert torch.equal(
        whole(encoded(pil.fromarray(np.full((8, 8), 40000, np.uint16)))), torch.full((3, 8, 8), 156, dtype=torch.uint8)
    )


def test_transparency_is_laid_on_white():
    image = pil.new("RGBA", (8, 8), (200, 0, 0, 0))
    assert whole(encoded(image)).min() == 255
    palette = pil.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30])
    assert whole(encoded(palette, transparency=0)).min() == 255


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9])
def test_damage_is_one_sentence(kind, keep):
    raw = encoded(pil.fromarray(photograph(64, 64)), kind)
    cut = raw[: int(len(raw) * keep)]
    for decoder in (Image(space()), ImageCrop(space())):
        with pytest.raises(DataError) as caught:
            decoder.whole(decoder.open(cut))
        assert "\n" not in str(caught.value)


def test_other_formats_are_not_even_tried():
    with pytest.raises(DataError, match="not a picture"):
        whole(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")


@pytest.mark.parametrize(("width", "height"), [(9000, 9000), (20000, 20000)])
def test_a_bomb_is_refused_from_its_header(width, height, monkeypatch):
    raw = bomb(width, height)
    for place, name in ((ImageFile.ImageFile, "load"), (pil.core, "new"), (pil.core, "fill")):
        # What this raises is no Exception, so the decoder cannot take it for damage.
        monkeypatch.setattr(place, name, lambda *_, **__: pytest.fail("pixels of a bomb are allocated"))
    for decoder in (Image(space()), ImageCrop(space())):
        with pytest.raises(DataError, match="not decoded"):
            decoder.open(raw)


@contextmanager
def at_most(more):
    """Lets this process take only so many bytes more than it has: PIL's pixels, too, which tracemalloc does not see."""
    resource, sizes = pytest.importorskip("resource"), Path("/proc/self/statm")
    if not sizes.exists():
        pytest.skip("this system does not tell how much memory a process has")
    old = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(sizes.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + more, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


def test_a_long_thin_picture_does_not_become_a_large_one():
    """Resized as a whole, each would take 4 GB."""
    wide, tall = (encoded(pil.new("RGB", size)) for size in ((20000, 1), (1, 20000)))
    for decoder in (Image(space(), size=224), ImageCrop(space(224))):
        for raw in (wide, tall):
            with at_most(256_000_000):
                assert decoder.whole(decoder.open(raw)).shape == (3, 224, 224)


def test_a_size_makes_a_ragged_folder_even():
    for height, width in [(40, 70), (70, 40), (9, 9)]:
        raw = encoded(pil.fromarray(photograph(height, width)))
        decoder = Image(space(), size=24)
        assert decoder.open(raw).extent == (24, 24)
        assert decoder.whole(decoder.open(raw)).shape == (3, 24, 24)


@pytest.mark.parametrize("shape", [(300, 400), (401, 299), (64, 64)])
def test_evaluation_view_is_torchvisions(shape):
    from torchvision.transforms import v2

    image = pil.fromarray(photograph(*shape))
    expected = v2.Compose([v2.Resize(73), v2.CenterCrop(64)])(image)
    decoder = ImageCrop(space(64))
    found = decoder.whole(decoder.open(encoded(image))).permute(1, 2, 0).numpy()
    assert np.abs(found.astype(int) - np.asarray(expected).astype(int)).max() <= 2


def views_both_ways(raw, size, num=24):
    both = space(size)
    keys = make_keys(0, 0, torch.arange(num))
    late, early = Image(both), ImageCrop(both)
    actions = sample_views(both, keys, torch.tensor([early.open(raw).extent] * num), 2)
    source = late.finish(late.whole(late.open(raw)))
    for sample in range(num):
        cut = early(early.open(raw), actions[:, sample])
        for view in range(2):
            expected = both.act(source[None], actions[view, sample : sample + 1], view)[0]
            assert cut[view].dtype == torch.uint8
            yield (early.finish(cut[view]) - expected).abs() * 255


def test_a_view_is_the_same_whether_cut_now_or_later():
    """Within 1.5 of 255: two roundings to 8 bits, against none."""
    raw = encoded(pil.fromarray(photograph(120, 160)))
    assert max(float(error.max()) for error in views_both_ways(raw, 32)) <= 1.5


def test_a_view_of_a_reduced_jpeg_is_nearly_the_same():
    """Detail that a reduced decoding skips is above what the view can hold: 2 of 255 on average, 12 at worst."""
    raw = encoded(pil.fromarray(photograph(512, 640)), "JPEG", quality=95)
    errors = list(views_both_ways(raw, 16, num=12))
    assert max(float(error.mean()) for error in errors) <= 2
    assert max(float(error.max()) for error in errors) <= 12


COLOURS = {
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1, "p": 0.8},
    "grayscale": {"p": 0.2},
    "gaussian_blur": {"p": 0.5},
    "solarize": {"p": 0.2},
}


def painting(size=48):
    """ImageCrop that leaves colours and blur to the device, and the one that performs them; with their space."""
    made = {"color_jitter": ColorJitter, "grayscale": Grayscale, "gaussian_blur": GaussianBlur, "solarize": Solarize}
    both = Compose({"crop": AffineCrop(size=size)} | {name: make(**COLOURS[name]) for name, make in made.items()})
    return both, ImageCrop(both), ImageCrop(both, augment="fast")


def test_fast_performs_all_that_can_be_painted_with_the_same_actions():
    both, exact, fast = painting()
    assert (exact.performs, fast.performs) == (1, 5)
    raw = encoded(pil.fromarray(photograph(120, 160)))
    source = Memory([{"png": raw}] * 32)
    batches = [make_batch(source, decoder, both, 2, 0, 0, range(32))[0] for decoder in (exact, fast)]
    assert torch.equal(batches[0].actions, batches[1].actions)
    seen = [
        make_views(batch, both, performed=decoder.performs, finish=decoder.finish)
        for batch, decoder in zip(batches, (exact, fast), strict=True)
    ]
    assert torch.equal(seen[0].copies[0, 1].values, seen[1].copies[0, 1].values)
    assert torch.equal(seen[0].copies[0, 1].valid, seen[1].copies[0, 1].valid)
    jittered = both.parts["color_jitter"].touches(batches[0].actions[0][:, both.slices["color_jitter"]])
    apart = (seen[0].x[0] - seen[1].x[0]).abs().amax(dim=(1, 2, 3))
    # Grey, blur and inversion differ by roundings to 8 bits; colours by the order in which they are clamped as well.
    assert apart[~jittered].max() < 3 / 255
    near = (seen[0].x[0] - seen[1].x[0])[jittered].abs().mean()
    far = (seen[0].x[0] - exact.finish(batches[0].x[0]))[jittered].abs().mean()
    assert near < far / 2


def test_a_part_that_cannot_be_painted_ends_the_painting():
    parts = {"crop": AffineCrop(size=24), "grayscale": Grayscale(), "turn": QuarterTurn(), "solarize": Solarize()}
    assert ImageCrop(Compose(parts), augment="fast").performs == 2


def test_batches_of_views_lie_channels_last():
    both, exact, fast = painting()
    source = Memory([{"png": encoded(pil.fromarray(photograph(60, 70)))}] * 3)
    for decoder in (exact, fast):
        batch, _ = make_batch(source, decoder, both, 2, 0, 0, range(3))
        assert all(x.is_contiguous(memory_format=torch.channels_last) for x in batch.x)
        assert decoder.finish(batch.x[0]).is_contiguous(memory_format=torch.channels_last)


def test_refusals():
    with pytest.raises(UsageError, match="augment='slow' is unknown: choose exact or fast"):
        ImageCrop(space(), augment="slow")
    with pytest.raises(UsageError, match="upright"):
        ImageCrop(space(rotation=0.3))
    with pytest.raises(UsageError, match="max_pixels"):
        Image(space(), max_pixels=0)
    with pytest.raises(UsageError, match="size"):
        Image(space(), size=0)
