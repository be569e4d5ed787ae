"""Data, checkpoints and archives made by somebody who means harm: the canary is never there afterwards."""

import io
import pickle
import tarfile
from functools import partial

import pytest
import torch
from damaged_data import limit_memory, log_of, sample, write_shards

from stec import build
from stec.shards.index import read_index
from stec.training import checkpoint

ONE_STEP = ("training.stop_after=1",)
MB = 1 << 20


class Trap:
    """Unpickled, it writes the canary."""

    def __reduce__(self):
        return (open, ("canary", "w"))


def canaries(place):
    """What was written, by a trap or an archive: from here, or up to two folders above."""
    above = [path for folder in place.parents[:2] for path in folder.glob("canary*")]
    return above + list(place.rglob("*canary*"))


@pytest.mark.fault(
    34, "data=pipe:COMMAND, as WebDataset would run it", "refused: there is no such file; nothing is run"
)
def test_data_that_is_a_command(train, seen, place):
    ended = train("data=pipe:touch canary", "run_dir=run")
    assert ended.code == 2
    assert not canaries(place)
    seen(ended)


@pytest.mark.fault(34, "an index that names files outside of its folder", "refused, by their names")
def test_an_index_that_leads_out(train, seen, place):
    folder = write_shards(place / "own", map(sample, range(8)))
    path = folder / "index.json"
    text = path.read_text().partition(', "check"')[0].partition(',\n "check"')[0] + "}"
    path.write_text(text.replace("train-000000.tar", "../../shards/train/train-000000.tar"))
    ended = train("data=own", "run_dir=run")
    assert ended.code == 4
    assert "not a file of its folder" in ended.refusal
    seen(ended)


@pytest.mark.fault(35, "members .pyd .pth .pkl .pickle, links, and names that lead out of the folder",
                   "not read, not followed, never written")  # fmt: skip
def test_members_that_are_code(command, train, seen, place):
    trap = pickle.dumps(Trap())
    folder = place / "own" / "train"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "train-000000.tar", "w") as tar:

        def add(name, data=b"", **facts):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in facts.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))

        for number in range(8):
            members = {"png": sample(number)["png"], "cls": b"1", "pyd": trap, "pth": trap, "pkl": trap, "pickle": trap}
            for field, data in members.items():
                add(f"p{number:04d}.{field}", data)
        add("../../canary.png", sample(8)["png"])
        add(f"{place}/canary/absolute.png", sample(9)["png"])
        add("link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("hard.png", type=tarfile.LNKTYPE, linkname="p0000.png")
        add("device.png", type=tarfile.CHRTYPE)
    assert command("stec-shards", "index", "own/train").code == 0
    ended = train("data=own", "run_dir=run", *ONE_STEP)
    assert ended.code == 0, ended.err
    assert not canaries(place)
    told = log_of(place / "run").partition("data: ")[2].partition(" to learn from")[0]
    assert told == "10 samples"
    assert read_index(folder).num_skipped == 3
    seen(f"survived: {told}, and 3 entries that are no files are skipped")


@pytest.mark.fault(11, "a checkpoint whose description asks for foreign code", "refused: a description is data")
def test_a_description_that_asks_for_code(command, seen, place):
    spec = {"format": build.SPEC_FORMAT, "encoder": {"_target_": "builtins.open", "file": "canary", "mode": "w"}}
    checkpoint.save(place / "step-00000001.ckpt", {"step": 1, "model": {"w": torch.zeros(1)}, "spec": spec})
    ended = command("stec-eval", "step-00000001.ckpt", "data=shards")
    assert ended.code == 2
    assert not canaries(place)
    seen(ended)


@pytest.mark.fault(14, "a config.yaml with !!python/object and references that unfold to 3^40 values",
                   "refused: a stored configuration is data")  # fmt: skip
def test_a_stored_configuration_is_data(train, seen, place):
    (place / "run").mkdir()
    laughs = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else '1'] * 3)}]\n" for n in range(40))
    trap = "trap: !!python/object/apply:builtins.open [canary, w]\n"
    checkpoint.save(place / "run" / "checkpoints" / checkpoint.name(1), {"step": 1, "model": {}})
    (place / "run" / "config.yaml").write_text(trap)
    assert "could not determine a constructor" in train("run_dir=run").refusal
    (place / "run" / "config.yaml").write_text(laughs)
    ended = train("run_dir=run")
    assert ended.code == 2
    assert not canaries(place)
    seen(ended)


@pytest.mark.fault(36, "an archive of CIFAR, 300 kB, that unfolds to 300 MB", "refused, with 600 MB of memory")
def test_an_archive_that_is_a_bomb(command, seen, place):
    (place / "cifar").mkdir()
    with tarfile.open(place / "cifar" / "cifar-100-python.tar.gz", "w:gz", compresslevel=6) as tar:
        info = tarfile.TarInfo("cifar-100-python/meta")
        info.size = 300 * MB
        tar.addfile(info, Zeros())
    assert (place / "cifar" / "cifar-100-python.tar.gz").stat().st_size < MB
    words = ("stec-shards", "pack", "cifar", "--packer", "cifar", "--out", "out")
    ended = command(*words, before=partial(limit_memory, 600 * MB))
    assert ended.code == 4
    seen(ended)


class Zeros(io.RawIOBase):
    def read(self, size=-1):
        return bytes(size)
