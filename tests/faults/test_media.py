"""Pictures and recordings of every odd kind: read as they are meant, or a damaged sample, within bounded memory."""

import io
import struct
import wave
import zlib
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from damaged_data import limit_memory, log_of, sample, tell_peak, write_shards
from PIL import Image as pil
from tiny_run import SOUND

from stec.actions import Compose
from stec.shards.reader import open_shards
from stec_audio.reading import Sound
from stec_vision.actions import AffineCrop
from stec_vision.decode import Image

ONE_STEP = ("batch_size=64", "training.stop_after=1")  # of as many samples as there are
MB = 1 << 20


def huge_png(side):
    """A whole PNG of one bit a pixel, all of them black: a few kB."""
    compress = zlib.compressobj(1)
    row = bytes(1 + -(-side // 8)) * 100
    data = b"".join(compress.compress(row) for _ in range(side // 100)) + compress.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.fault(36, "a PNG of 20000x20000 pixels in a few kB", "a damaged sample, for less than 50 MB of memory")
def test_a_picture_that_is_a_bomb(train, seen, place):
    write_shards(place / "plain", map(sample, range(16)))
    write_shards(place / "bomb", [*map(sample, range(15)), sample(15, png=huge_png(20_000))])
    peaks = {}
    for name in ("plain", "bomb"):
        words = (f"data={name}", f"run_dir=run-{name}", "dataset.max_bad=0.1", *ONE_STEP)
        ended = train(*words, before=partial(tell_peak, place / name / "peak"))
        assert ended.code == 0, ended.err
        peaks[name] = int((place / name / "peak").read_text())
    told = "train-000000.tar: p0015: a picture of far too many pixels: not decoded"
    assert log_of(place / "run-bomb").count(f"damaged sample: {told}") == 1
    assert peaks["plain"] > 100 * MB
    assert peaks["bomb"] - peaks["plain"] < 50 * MB
    seen(f"survived: {told}")


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def kinds():
    """{file: (bytes, height, width, the mean of each colour in [0, 1])}: a picture that is left 100, right 200."""
    grey = np.repeat(np.array([[100] * 16 + [200] * 16], np.uint8), 24, 0)
    rgb = pil.fromarray(np.stack([grey, grey // 2, grey // 4], -1))
    one, colours = pil.fromarray(grey), (150 / 255, 75 / 255, 37.5 / 255)
    turned, exif = rgb.transpose(pil.Transpose.ROTATE_90), pil.Exif()
    exif[0x0112] = 6
    half = pil.merge("LA", (one, pil.new("L", one.size, 51)))  # a fifth of it, on white
    wide = pil.fromarray(np.full((24, 32), 40_000, np.uint16))
    whitish = (0.2 * 150 / 255 + 0.8,) * 3
    red, blue = pil.new("RGB", (32, 24), "red"), pil.new("RGB", (32, 24), "blue")
    return {
        "cmyk.jpg": (encoded(rgb.convert("CMYK"), "JPEG", quality=95), 24, 32, colours),
        "grey.png": (encoded(one), 24, 32, (150 / 255,) * 3),
        "grey_and_alpha.png": (encoded(half), 24, 32, whitish),
        "palette.png": (encoded(rgb.quantize(8)), 24, 32, colours),
        "palette.gif": (encoded(rgb.quantize(8), "GIF"), 24, 32, colours),
        "16_bits.png": (encoded(wide), 24, 32, (40_000 / 65_535,) * 3),
        "16_bits.tif": (encoded(wide, "TIFF"), 24, 32, (40_000 / 65_535,) * 3),
        "1_bit.png": (encoded(pil.new("1", (32, 24), 1)), 24, 32, (1.0,) * 3),
        "turned.jpg": (encoded(turned, "JPEG", exif=exif, quality=95), 24, 32, colours),
        "a_png.jpg": (encoded(rgb), 24, 32, colours),
        "1x1.png": (encoded(pil.new("RGB", (1, 1), "red")), 1, 1, (1.0, 0.0, 0.0)),
        "1x900.png": (encoded(pil.new("RGB", (1, 900), "red")), 900, 1, (1.0, 0.0, 0.0)),
        "animated.gif": (encoded(red, "GIF", save_all=True, append_images=[blue]), 24, 32, (1.0, 0.0, 0.0)),
        "animated.webp": (encoded(red, "WEBP", save_all=True, append_images=[blue], lossless=True), 24, 32, (1, 0, 0)),
    }


@pytest.mark.fault(38, "CMYK, grey, alpha, palette, 16 bits, 1 bit, EXIF, 1x1, 1x900, animated, a wrong extension",
                   "upright RGB in [0, 1]; 16 bits are scaled, not clipped")  # fmt: skip
def test_every_kind_of_picture(train, seen, place):
    folder = place / "kinds"
    folder.mkdir()
    for name, (raw, *_) in kinds().items():
        (folder / name).write_bytes(raw)
    ended = train("data=kinds", "run_dir=run", "dataset.max_bad=0", *ONE_STEP)
    assert ended.code == 0, ended.err
    decoder = Image(Compose({"affine_crop": AffineCrop(size=16)}))
    for name, (raw, height, width, mean) in kinds().items():
        x = decoder.finish(decoder.whole(decoder.open(raw)))
        assert x.shape == (3, height, width), name
        assert torch.allclose(x.mean((1, 2)), torch.tensor(mean, dtype=torch.float32), atol=0.02), name
    splits = [open_shards(index.parent) for index in (place / "cache").glob("*/*/index.json")]
    assert sum(split.num_samples for split in splits) == len(kinds())
    seen(f"survived: all {len(kinds())} are read, and none is damaged")


# -- sound -------------------------------------------------------------------------------------------------------------


def tone(num=8000, rate=16_000, channels=1, pitch=300.0):
    """float32 [num, channels], each channel half as loud as the one before."""
    wave_ = 0.5 * np.sin(2 * np.pi * pitch / rate * np.arange(num))
    return (wave_[:, None] * 0.5 ** np.arange(channels)).astype(np.float32)


def stored(x, rate=16_000, kind="WAV", subtype="PCM_16"):
    buffer = io.BytesIO()
    soundfile.write(buffer, x, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def lying_flac(num):
    """A FLAC of half a second whose header promises `num` samples."""
    raw = bytearray(stored(tone(), kind="FLAC"))
    assert raw[:4] == b"fLaC"
    raw[21] = raw[21] & 0xF0 | num >> 32
    raw[22:26] = (num & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(raw)


def of_rate(rate):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(16_000))
    return buffer.getvalue()


def recordings(place, odd):
    """Shards of 12 plain recordings, and the odd ones {key: (extension, bytes)}."""
    plain = [{"__key__": f"r{n:04d}", "wav": stored(tone(pitch=200.0 + 20 * n))} for n in range(12)]
    return write_shards(place / "sounds", [*plain, *({"__key__": key, e: raw} for key, (e, raw) in odd.items())])


@pytest.fixture
def listen(command):
    return lambda *words, **options: command("stec-train", *SOUND, "data=sounds", *ONE_STEP, *words, **options)


def damaged(place, run="run"):
    """{key: why} of the samples that a run named."""
    lines = [line.partition("damaged sample: train-000000.tar: ")[2] for line in log_of(place / run).splitlines()]
    return {key: why for key, _, why in (line.partition(": ") for line in lines) if key}


@pytest.mark.fault(37, "hours of silence in a small FLAC, headers that lie about length, rate and channels",
                   "damaged samples, by their headers, with 512 MB of memory")  # fmt: skip
def test_recordings_that_are_bombs(listen, seen, place):
    many = bytearray(stored(tone(channels=2)))
    many[22:24] = (65_535).to_bytes(2, "little")
    odd = {
        "long": ("flac", stored(np.zeros(7_300_000, np.int16), 1_000, "FLAC")),
        "longer": ("flac", lying_flac(3_000_000_000)),
        "short": ("flac", lying_flac(50_000_000)),  # within the limit, but it is not there
        "fast": ("wav", of_rate(2_147_483_647)),
        "broad": ("wav", bytes(many)),
    }
    assert len(odd["long"][1]) < 100_000
    recordings(place, odd)
    ended = listen("run_dir=run", "dataset.max_bad=0.4", before=partial(limit_memory, 512 * MB))
    assert ended.code == 0, ended.err
    found = damaged(place)
    assert found.keys() == odd.keys()
    assert "of 7,300 seconds, more than max_seconds=3600: not decoded" in found["long"]
    assert "of 187,500 seconds, more than max_seconds=3600: not decoded" in found["longer"]
    assert "a sampling rate of 2147483647 Hz" in found["fast"]
    seen("survived: each is named, replaced and counted")


SHORT = {"none": ("wav", stored(tone(0))), "one": ("wav", stored(tone(1))), "hundred": ("wav", stored(tone(100)))}


@pytest.mark.fault(
    39, "recordings of 0, 1 and 100 samples, decoder.short=pad", "0 is a damaged sample, others are padded"
)
def test_short_recordings_are_padded(listen, seen, place):
    recordings(place, SHORT)
    ended = listen("run_dir=run", "dataset.max_bad=0.3")
    assert ended.code == 0, ended.err
    assert damaged(place) == {"none": "a recording of 0 samples"}
    seen("survived: none: a recording of 0 samples; the others are learnt from")


@pytest.mark.fault(39, "recordings of 0, 1 and 100 samples, decoder.short=refuse", "damaged samples")
def test_short_recordings_are_refused(listen, seen, place):
    recordings(place, SHORT)
    ended = listen("run_dir=run", "dataset.max_bad=0.3", "dataset.decoder.short=refuse")
    assert ended.code == 0, ended.err
    found = damaged(place)
    assert found.keys() == SHORT.keys()
    told = "a recording of 100 samples, shorter than a window of 3200 (decoder.short=refuse)"
    assert found["hundred"] == told
    seen(f"survived: {told}")


@pytest.mark.fault(40, "2 and 8 channels, rates of 8, 44.1, 48 and 96 kHz", "averaged and resampled to 16 kHz")
def test_channels_and_rates(listen, seen, place):
    odd = {
        "stereo": ("flac", stored(tone(channels=2), kind="FLAC")),
        "eight": ("wav", stored(tone(channels=8))),
        **{f"rate{rate}": ("wav", stored(tone(rate // 2, rate), rate)) for rate in (8_000, 44_100, 48_000, 96_000)},
    }
    recordings(place, odd)
    ended = listen("run_dir=run", "dataset.max_bad=0")
    assert ended.code == 0, ended.err
    for key, (_, raw) in odd.items():
        sound = Sound(raw)
        x = sound.read(1000, 7000) / 32768
        loud = {"stereo": 0.75, "eight": (2 - 2**-7) / 8}.get(key, 1.0)
        assert sound.num_samples == 8000, key
        assert np.abs(x - loud * tone()[1000:7000, 0]).max() < 0.01, key
    seen(f"survived: all {len(odd)} are learnt from")


@pytest.mark.fault(40, "rates of 500 Hz and 1 MHz", "damaged samples")
def test_rates_that_no_recording_has(listen, seen, place):
    recordings(place, {"slow": ("wav", of_rate(500)), "fast": ("wav", of_rate(1_000_000))})
    ended = listen("run_dir=run", "dataset.max_bad=0.2")
    assert ended.code == 0, ended.err
    found = damaged(place)
    assert found.keys() == {"slow", "fast"}
    seen(f"survived: {found['fast']}")


@pytest.mark.fault(41, "NaN, infinity and 1e30 in a recording of floats", "damaged samples; 1e30 is clipped")
def test_numbers_that_are_no_sound(listen, seen, place):
    odd = {}
    for key, value in {"nan": np.nan, "infinity": np.inf, "loud": 1e30}.items():
        x = tone(3200)
        x[1000] = value
        odd[key] = ("wav", stored(x, subtype="FLOAT"))
    recordings(place, odd)
    ended = listen("run_dir=run", "dataset.max_bad=0.2")
    assert ended.code == 0, ended.err
    found = damaged(place)
    assert found.keys() == {"nan", "infinity"}
    seen(f"survived: {found['nan']}")
