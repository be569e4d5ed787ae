"""A real run in miniature: its options, its pictures, and what to look at afterwards; and the same of sound."""

import wave
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stec.training import checkpoint

TINY = [
    "recipe=my_images",
    "hardware=cpu",
    "hardware.num_workers=0",
    "batch_size=8",
    "actions.affine_crop.size=16",
    "encoder.width=4",
    "identity.simclr.hidden=16",
    "identity.simclr.out=8",
    "manipulation.binned.hidden=16",
    "training.epochs=2",
    "training.warmup_epochs=0.5",
    "training.log_every=2",
    "training.checkpoint_every=3",
    "evaluation.baselines=null",
    "evaluation.train_pairs=40",
    "evaluation.test_pairs=20",
    "evaluation.linear.grid=[0.1]",
    "evaluation.action.hidden=16",
    "evaluation.action.epochs=2",
]
# Nothing is measured at the end: it is the training that matters.
BARE = ["evaluation.action=null", "evaluation.knn=null", "evaluation.linear=null", "evaluation.raw_input=false"]

SOUND = [
    "recipe=my_audio",
    "hardware=cpu",
    "hardware.num_workers=0",
    "batch_size=4",
    "actions.temporal_window.size=3200",
    "encoder.channels=8",
    "encoder.width=8",
    "identity.cpc.steps=4",
    "identity.cpc.num_negatives=8",
    "identity.time_insensitive.hidden=16",
    "identity.time_insensitive.out=8",
    "training.epochs=2",
    "training.warmup_epochs=0.5",
    "training.log_every=2",
    "training.checkpoint_every=3",
    "evaluation.baselines=null",
    "evaluation.train_pairs=20",
    "evaluation.test_pairs=10",
    "evaluation.probes.speaker=null",
    "evaluation.probes.speaker_last=null",
    "evaluation.action.hidden=16",
    "evaluation.action.epochs=2",
]


def draw(folder: Path, num: int = 60) -> Path:
    """Smooth pictures of 40 x 44, three colours of them; in a folder for each colour."""
    numbers = np.random.default_rng(0)
    for i in range(num):
        small = numbers.integers(0, 90, (4, 4, 3))
        small[..., i % 3] += 120
        path = folder / f"colour-{i % 3}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small.astype(np.uint8)).resize((44, 40), Image.Resampling.BILINEAR).save(path)
    return folder


def sing(folder: Path, num: int = 28) -> Path:
    """Recordings of 0.5 s at 16 kHz: a tone that rises, with noise, of two voices; in a folder for each voice."""
    numbers = np.random.default_rng(0)
    for i in range(num):
        pitch = (200 + 300 * (i % 2)) * (1 + np.linspace(0, numbers.uniform(0.2, 1), 8000))
        x = 6000 * np.sin(2 * np.pi * np.cumsum(pitch) / 16_000) + 200 * numbers.standard_normal(8000)
        path = folder / f"voice-{i % 2}" / f"{i:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(x.astype("<i2").tobytes())
    return folder


def packed(place: Path) -> Path:
    """The shards of the pictures: those with labels and a test split."""
    labelled = [path for path in (place / "cache").glob("*/test/index.json") if "colour-0" in path.read_text()]
    return labelled[0].parent.parent


def metrics(run: Path) -> str:
    return (run / "metrics.jsonl").read_text()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(run / "checkpoints" / "last")["model"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(t, other[name]) for name, t in one.items())
