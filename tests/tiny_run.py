"""A real run in miniature: its options, its pictures, and what to look at afterwards."""

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
