"""What is spoiled: small whole files of every format that the product reads, written once into a folder."""

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
import yaml
from hydra import compose, initialize_config_dir
from PIL import Image

from stec import build, export
from stec.cli import composing, recipes
from stec.experiment import Experiment
from stec.shards.writer import write_split
from stec.training import checkpoint

WORDS = [
    *("recipe=my_images", "hardware=cpu", "hardware.num_workers=0", "batch_size=8", "actions.affine_crop.size=16"),
    *("encoder.width=4", "identity.simclr.hidden=16", "identity.simclr.out=8", "manipulation.binned.hidden=16"),
    *("training.epochs=2", "run_dir=x", "data=shards"),
]  # fmt: skip
_PICTURES = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF", "ppm": "PPM"}
_SOUNDS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


class Seeds(NamedTuple):
    """pictures, sounds: {extension: files}; folder: shards/, run/, exported/ ...; config, state: of the run."""

    folder: Path
    pictures: dict[str, list[bytes]]
    sounds: dict[str, list[bytes]]
    config: dict[str, Any]
    state: dict[str, Any]


def picture(number: int = 0, side: int = 40) -> Image.Image:
    small = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side + 4, side), Image.Resampling.BILINEAR)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pictures() -> dict[str, list[bytes]]:
    """One plain file of each format, and its oddities: progressive, palette, 16 bits, alpha, compression, frames."""
    plain, other = picture(), picture(1)
    found = {extension: [encoded(plain, form)] for extension, form in _PICTURES.items()}
    exif = Image.Exif()
    exif[0x0112] = 6
    found["jpg"] += [encoded(plain, "JPEG", progressive=True, exif=exif), encoded(plain.convert("CMYK"), "JPEG")]
    grey = Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40)
    found["png"] += [encoded(grey, "PNG"), encoded(plain.convert("RGBA"), "PNG"), encoded(plain.convert("P"), "PNG")]
    found["png"] += [encoded(plain, "PNG", save_all=True, append_images=[other])]
    found["gif"] += [encoded(plain, "GIF", save_all=True, append_images=[other], loop=0)]
    found["webp"] += [
        encoded(plain, "WEBP", lossless=True),
        encoded(plain, "WEBP", save_all=True, append_images=[other]),
    ]
    found["tiff"] += [
        encoded(plain, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
    ]
    found["tiff"] += [encoded(grey, "TIFF"), encoded(plain.convert("1"), "TIFF", compression="group4")]
    found["bmp"] += [encoded(plain.convert("P"), "BMP")]
    found["ppm"] += [encoded(plain.convert("L"), "PPM"), b"P3 2 2 255 " + b"9 " * 12, b"Pf 2 2 -1.0\n" + bytes(16)]
    return found


def sounds() -> dict[str, list[bytes]]:
    """Half a second of a falling tone: mono at 16 kHz and stereo at 44.1 kHz, in each format."""
    found = {}
    for extension, (form, subtype) in _SOUNDS.items():
        found[extension] = []
        for rate, channels in ((16_000, 1), (44_100, 2)):
            time = np.arange(rate // 2)[:, None] / rate
            buffer = io.BytesIO()
            soundfile.write(
                buffer, 0.3 * np.sin(2000 * time * (1 - time)).repeat(channels, 1), rate, format=form, subtype=subtype
            )
            found[extension].append(buffer.getvalue())
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros((4000, 1)), 8000, format="WAV", subtype="FLOAT")
    found["wav"].append(buffer.getvalue())
    return found


def configuration() -> dict[str, Any]:
    recipes.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(recipes.own())):
        return composing.plain(compose("train", overrides=WORDS))


def planted(folder: Path) -> Seeds:
    """Everything, in a folder that is there and empty."""
    shown, heard, config = pictures(), sounds(), configuration()
    samples = []
    for number in range(8):
        names = {"cls": b"%d" % (number % 3), "group": b"1", "json": json.dumps({"path": f"{number}.jpg"}).encode()}
        samples.append({"__key__": f"s{number}", "jpg": encoded(picture(number), "JPEG"), "phones": b"0 1 2", **names})
    write_split(samples, folder / "shards", name="train", meta={"classes": ["a", "b", "c"], "phones": ["x", "y", "z"]})
    facts = {"extents": [[40, 44]], "classes": ["a", "b", "c"], "num_classes": 3}
    model = build.model({**Experiment(config).spec, **facts})
    assert model.stec is not None
    state = {"spec": model.spec, "step": 3, "model": model.stec.state_dict(), "optimizer": {}, "ema": None}
    state |= {"data": {"fingerprint": "x", "batch_size": 8, "seed": 0}, "log": {}}
    checkpoint.save(folder / "run" / "checkpoints" / checkpoint.name(3), state)
    (folder / "run" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "run" / "finished").write_text("step 3\n")
    (folder / "run" / "train.log").write_text(
        "2026-01-01T00:00:00Z INFO machine: cpu (2 cores), fp32\n2026-01-01T00:00:09Z INFO end\n"
    )
    table = {
        "rows": {"trained": {"eval/knn/top1": 0.5}},
        "protocol": {"eval/knn": "k"},
        "data": {"fingerprint": "x", "num_train": 8},
    }
    (folder / "run" / "table.json").write_text(json.dumps(table | {"commit": "c", "num_test": 9}))
    (folder / "run" / "metrics.jsonl").write_text(
        '{"step": 1, "epoch": 0.1, "train/loss": 2.0}\n{"step": 2, "epoch": 0.2, "train/loss": 1.0}\n'
    )
    export.export(
        folder / "exported", model.spec, model.encoder, model.stec.manipulation, metrics={"eval/knn/top1": 0.5}
    )
    _archives(folder)
    return Seeds(folder, shown, heard, config, torch.load(folder / "run" / "checkpoints" / checkpoint.name(3)))


def _archives(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    (folder / "cifar").mkdir()
    content = {
        "meta": {"fine_label_names": ["a", "b", "c"]},
        "train": {"data": pixels, "fine_labels": [0, 1, 2], "filenames": ["x.png", "y.png", "z.png"]},
        "test": {"data": pixels[:1], "fine_labels": [1]},
    }
    for name, one in content.items():
        (folder / "cifar" / name).write_bytes(pickle.dumps(one, protocol=2))
    with tarfile.open(folder / "cifar-100-python.tar.gz", "w:gz") as tar:
        for name in content:
            tar.add(folder / "cifar" / name, f"cifar-100-python/{name}")
    (folder / "npz").mkdir()
    webp = [encoded(picture(number), "WEBP") for number in range(3)]
    arrays = {
        "classes": np.array(["a", "b"]),
        "webp": np.frombuffer(b"".join(webp), np.uint8),
        "offset": np.cumsum([0, *map(len, webp)]),
        "y": np.array([0, 1, 1], np.uint8),
        "filename": np.array(["x", "y", "z"]),
    }
    for name in ("train-0", "test"):
        np.savez(folder / "npz" / f"{name}.npz", **arrays)
    (folder / "labels.txt").write_text("one 0 0 1 2\ntwo 1 1\n")
