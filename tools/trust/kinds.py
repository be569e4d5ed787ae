"""The kinds of hostile input: how one is drawn, and through which door of the product it goes.

A door raises a StecError, or lets its input in; it may then hand back what it has read, where a checksum promises that
this is what was once written.
"""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import copytree
from typing import NamedTuple

import doors
import lies
import torch
import yaml
from mutations import NUMBERS, nasty, spoiled, warped
from seeds import WORDS, Seeds

from stec import build, export, protocols
from stec.cli import source as cli_source
from stec.comparison import ledger, pick, tables
from stec.errors import StecError
from stec.experiment import Experiment
from stec.report.curves import read_curves
from stec.shards.index import index_folder
from stec.shards.tar import scan
from stec.shards.verify import verify
from stec.training import checkpoint
from stec.training.run import flat
from stec_audio import labels
from stec_vision.archives import Cifar
from stec_vision.packers import Npz

Door = Callable[[random.Random, Path], object]


class Kind(NamedTuple):
    """num: how many are tried; door: draws one, writes it into an empty folder if it is a file, and hands it over;
    whole: what the door hands back for what was not spoiled, None where nothing is promised."""

    name: str
    num: int
    door: Door
    whole: object = None


def kinds(seeds: Seeds) -> list[Kind]:
    shards, run, exported = seeds.folder / "shards", seeds.folder / "run", seeds.folder / "exported"
    ckpt = run / "checkpoints" / checkpoint.name(3)
    tar = next(shards.glob("*.tar")).read_bytes()

    def picture(files: list[bytes]) -> Door:
        others = [one for own in seeds.pictures.values() for one in own]
        return lambda rng, _: doors.show(lies.picture(rng, spoiled(rng, rng.choice(files), others)))

    def sound(files: list[bytes]) -> Door:
        others = [one for own in seeds.sounds.values() for one in own]
        return lambda rng, _: doors.hear(spoiled(rng, rng.choice(files), others))

    def scanned(rng: random.Random, place: Path) -> None:
        (place / "a.tar").write_bytes(lies.tar(rng, tar) if rng.random() < 0.5 else spoiled(rng, tar))
        scan(place / "a.tar")
        index_folder(place)
        doors.read_all(place)

    def damaged(rng: random.Random, place: Path) -> object:
        doors.spoil_one(rng, shards, place / "a")
        verify(place / "a")
        return doors.read_all(place / "a")

    def lying(rng: random.Random, place: Path) -> None:
        copytree(shards, place / "a")
        lies.index(rng, place / "a")
        verify(place / "a")
        doors.read_all(place / "a")

    def samples(rng: random.Random, _: Path) -> None:
        members = warped(rng, {"cls": "1", "group": "1", "phones": "0 1 2", "json": '{"path": "x"}', "jpg": "x"})
        spoilt = (
            {str(key): doors.bytes_of(rng, value) for key, value in members.items()}
            if isinstance(members, dict)
            else {}
        )
        if "jpg" in spoilt and rng.random() < 0.7:
            spoilt["jpg"] = spoiled(rng, seeds.pictures["jpg"][0]) if rng.random() < 0.3 else seeds.pictures["jpg"][0]
        doors.sample(rng, spoilt, seeds.sounds["wav"][0])

    def checkpoint_damaged(rng: random.Random, place: Path) -> object:
        path = place / "step-00000003.ckpt"
        path.write_bytes(spoiled(rng, ckpt.read_bytes()))
        build.load(str(path))
        return doors.told(checkpoint.load(path))

    def checkpoint_lying(rng: random.Random, place: Path) -> None:
        path = place / "checkpoints" / "step-00000003.ckpt"
        path.parent.mkdir()
        if rng.random() < 0.4:
            path.write_bytes(lies.pickled(rng, ckpt.read_bytes()))
        else:
            state = warped(rng, seeds.state if rng.random() < 0.3 else {"spec": seeds.state["spec"]}, shared=True)
            with suppress(Exception):  # what cannot be written, nobody can be sent
                torch.save({"format": 1, **seeds.state, **state}, path)
        build.load(str(place))

    def exported_damaged(rng: random.Random, place: Path) -> object:
        doors.spoil_one(rng, exported, place / "a")
        return doors.weights(place / "a")

    def exported_lying(rng: random.Random, place: Path) -> None:
        copytree(exported, place / "a")
        lies.exported(rng, place / "a")
        build.load(str(place / "a"))
        export.describe(place / "a")

    def config(rng: random.Random, place: Path) -> None:
        copytree(run, place / "a", ignore=lambda *_: ["checkpoints"])
        (place / "a" / "config.yaml").write_bytes(doors.yaml_of(rng, {**seeds.config, "data": str(shards)}))
        found = cli_source.config_of(str(place / "a"))
        assert found is not None
        flat(found)
        node = found.get("evaluation") or {}
        with suppress(StecError):
            protocols.baselines(node.get("baselines")) if isinstance(node, dict) else None
        for look in (lambda: ledger.entry(place / "a", "t", "r", "s", []), lambda: pick.read(place / "a")):
            with suppress(StecError):
                look()
        Experiment(found)
        cli_source.data_of(found, None, None)

    def records(rng: random.Random, place: Path) -> None:
        copytree(run, place / "a", ignore=lambda *_: ["checkpoints"])
        for name in rng.sample(["table.json", "metrics.jsonl", "train.log"], 2):
            text = (run / name).read_bytes()
            (place / "a" / name).write_bytes(
                doors.json_of(rng, json.loads(text))
                if name == "table.json" and rng.random() < 0.6
                else spoiled(rng, text)
            )
        read_curves(place / "a" / "metrics.jsonl")
        for look in (lambda: ledger.entry(place / "a", "t", "r", "s", []), lambda: pick.read(place / "a")):
            with suppress(StecError):
                look()
        line = ledger.entry(run, "t", "r", "s", [])
        (place / "t.jsonl").write_bytes(doors.json_of(rng, line.__dict__) + b"\n")
        ledger.read_all(place)

    def table(rng: random.Random, place: Path) -> None:
        text = next(Path(cli_source.__file__).parents[2].glob("recipes/tables/*.yaml")).read_text(encoding="utf-8")
        (place / "t.yaml").write_bytes(doors.yaml_of(rng, yaml.safe_load(text)))
        tables.read(place / "t.yaml")

    def recipe(rng: random.Random, place: Path) -> None:
        own = {key: seeds.config[key] for key in rng.sample(sorted(seeds.config), 6)}
        (place / "recipe").mkdir()
        (place / "recipe" / "mine.yaml").write_bytes(b"# @package _global_\n" + doors.yaml_of(rng, own))
        doors.train([f"--config-dir={place}", "recipe=mine"])

    def words(rng: random.Random, _: Path) -> None:
        chosen = rng.sample(WORDS, rng.randrange(1, 4))
        odd = [f"{word.partition('=')[0]}={rng.choice([nasty(rng), rng.choice(NUMBERS)])}"[:2000] for word in chosen]
        raw = spoiled(rng, odd[0].encode(errors="replace"))
        text = [raw.decode("utf-8", "replace").replace("\0", "")]
        given = [word for word in (text if rng.random() < 0.5 else odd) if not word.startswith("-")]
        if rng.random() < 0.5:
            cli_source.keys_of(given)
        else:
            doors.train(["recipe=my_images", *given])

    def cifar(rng: random.Random, place: Path) -> None:
        if rng.random() < 0.2:
            name = "cifar-100-python.tar.gz"
            (place / name).write_bytes(spoiled(rng, (seeds.folder / name).read_bytes()))
        else:
            copytree(seeds.folder / "cifar", place / "cifar-100-python")
            path = place / "cifar-100-python" / rng.choice(["meta", "train"])
            path.write_bytes(lies.instructions(rng, path.read_bytes()))
        doors.pack(Cifar(str(place), classes=100, subset=2))

    def npz(rng: random.Random, place: Path) -> None:
        copytree(seeds.folder / "npz", place / "a")
        path = place / "a" / "train-0.npz"
        path.write_bytes(lies.arrays(rng, path.read_bytes()))
        doors.pack(Npz(str(place / "a"), subset=2))

    def label_file(rng: random.Random, place: Path) -> None:
        text = spoiled(rng, (seeds.folder / "labels.txt").read_bytes())
        (place / "l.txt").write_bytes(
            text + (b"three " + str(nasty(rng)).encode("utf-8", "replace") if rng.random() < 0.3 else b"")
        )
        for read in (labels.read_names, labels.read_list):
            with suppress(StecError):
                read(place / "l.txt")
        labels.read(place / "l.txt")

    return [
        Kind("tar, indexed", 4000, scanned),
        Kind("shards, damaged", 1500, damaged, doors.read_all(shards)),
        Kind("shards, lying", 1500, lying),
        Kind("samples of a shard", 1500, samples),
        *(Kind(f"picture, {name}", 1000, picture(files)) for name, files in seeds.pictures.items()),
        *(Kind(f"sound, {name}", 1000, sound(files)) for name, files in seeds.sounds.items()),
        Kind("checkpoint, damaged", 600, checkpoint_damaged, doors.told(checkpoint.load(ckpt))),
        Kind("checkpoint, lying", 600, checkpoint_lying),
        Kind("exported, damaged", 400, exported_damaged, doors.weights(exported)),
        Kind("exported, lying", 400, exported_lying),
        Kind("config.yaml", 500, config),
        Kind("ledger, table.json, metrics", 800, records),
        Kind("table of a report", 200, table),
        Kind("recipe", 150, recipe),
        Kind("words of a command", 250, words),
        Kind("CIFAR", 1500, cifar),
        Kind("npz", 1500, npz),
        Kind("phone labels", 1000, label_file),
    ]


def enter(kind: Kind, seed: int, number: int, place: Path) -> object:
    """The input of this number through its door."""
    return kind.door(random.Random(f"{seed}/{kind.name}/{number}"), place)
