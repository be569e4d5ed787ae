"""The doors of the product: what reads a picture, a sample, a folder of shards ..., as far as training or a command
would read it, without doing what comes after."""

import json
import random
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from shutil import copytree
from typing import Any

import torch
import yaml
from mutations import marred, spoiled, warped

from stec import build, experiment
from stec.actions import Compose, sample_views
from stec.cli import train as cli_train
from stec.data import extents
from stec.errors import DataError, StecError, UsageError
from stec.experiment import Experiment
from stec.rng import make_keys
from stec.samples import make_batch
from stec.shards.reader import open_shards
from stec_audio.actions import TemporalWindow
from stec_audio.decode import Window
from stec_audio.phones import Phones
from stec_vision.actions import AffineCrop
from stec_vision.decode import Image, ImageCrop

SHOWN, HEARD = Compose({"crop": AffineCrop(size=16)}), Compose({"window": TemporalWindow(size=4000)})


def show(raw: bytes) -> None:
    decoder, whole = ImageCrop(SHOWN), Image(SHOWN, size=20)
    opened = decoder.open(raw)
    decoder(opened, sample_views(SHOWN, make_keys(0, 0, torch.tensor([0])), torch.tensor([opened.extent]), 2)[:, 0])
    whole.whole(whole.open(raw))


def hear(raw: bytes) -> None:
    decoder = Window(HEARD, max_seconds=600.0)
    opened = decoder.open(raw)
    actions = torch.zeros(1, HEARD.num_params)
    actions[:, 2] = 1.0
    for look in (lambda: decoder(opened, actions), lambda: decoder.whole(opened), lambda: decoder.all(opened)):
        with suppress(DataError):
            look()
    opened.content.check_end()


class One:
    """A source of one sample."""

    num_samples, shard_sizes = 1, (1,)

    def __init__(self, members: dict[str, bytes]):
        self.members, self.meta = members, {"classes": ["a", "b"], "phones": ["x", "y", "z"]}

    def read(self, _: int) -> dict[str, bytes]:
        return self.members

    def where(self, _: int) -> str:
        return "a.tar: x"


def sample(rng: random.Random, members: dict[str, bytes], recording: bytes) -> None:
    with suppress(DataError):
        Phones(Window(HEARD)).example({**members, "wav": recording}, {"phones": rng.choice([["x"], [], None, 3, "x"])})
    unwrapped(lambda: make_batch(One(members), ImageCrop(SHOWN), SHOWN, 2, 0, 0, [0]))
    unwrapped(lambda: extents(One(members), ImageCrop(SHOWN)))  # type: ignore[arg-type]


def unwrapped(act: Callable[[], object]) -> None:
    """What only says that a decoder failed is a failure here."""
    try:
        act()
    except (DataError, UsageError):
        raise
    except StecError as error:
        raise RuntimeError(str(error)) from error


def read_all(folder: Path) -> object:
    found = open_shards(folder)
    return found.fingerprint, found.fields, json.dumps(found.meta), [found.read(n) for n in range(found.num_samples)]


def told(tree: Any) -> object:
    """A tree with tensors, as something that can be compared."""
    if isinstance(tree, torch.Tensor):
        return (
            str(tree.dtype),
            tuple(tree.shape),
            zlib.crc32(tree.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()),
        )
    if isinstance(tree, dict):
        return {key: told(one) for key, one in tree.items()}
    return [told(one) for one in tree] if isinstance(tree, list | tuple) else tree


def weights(folder: Path) -> object:
    """What an exported folder promises (the heads of the identity model are not in it)."""
    found = build.load(str(folder))
    return told([found.encoder.state_dict(), found.stec and found.stec.manipulation.state_dict()])


def spoil_one(rng: random.Random, folder: Path, copy: Path) -> None:
    copytree(folder, copy)
    path = rng.choice(sorted(copy.iterdir()))
    path.write_bytes(spoiled(rng, path.read_bytes()))


def bytes_of(rng: random.Random, value: Any) -> bytes:
    text = str(value).encode("utf-8", "replace")
    return spoiled(rng, text) if rng.random() < 0.5 else text


def json_of(rng: random.Random, tree: Any) -> bytes:
    try:
        text = json.dumps(warped(rng, tree)).encode()
    except (RecursionError, ValueError, TypeError):
        text = b"[" * 100_000
    return spoiled(rng, text) if rng.random() < 0.3 else text


def yaml_of(rng: random.Random, tree: Any) -> bytes:
    try:
        text = yaml.safe_dump(warped(rng, tree) if rng.random() < 0.6 else tree, sort_keys=False, allow_unicode=True)
    except (RecursionError, ValueError):
        text = "a: " + "[" * 5000
    text = marred(rng, text) if rng.random() < 0.4 else text
    raw = text.encode("utf-8", "surrogateescape")
    return spoiled(rng, raw) if rng.random() < 0.3 else raw


def pack(packer: Any) -> None:
    for split in ("train", "test"):
        packer.meta(split)
        for _ in packer.samples(split):
            pass


def train(given: list[str]) -> None:
    """stec-train, up to the point where it would begin."""
    before, said = experiment.run, StringIO()
    experiment.run = lambda config: Experiment(config)  # type: ignore[assignment, misc]
    try:
        with redirect_stdout(said), redirect_stderr(said):
            code = cli_train.main(given)
    finally:
        experiment.run = before
    if code:
        raise UsageError(said.getvalue())
