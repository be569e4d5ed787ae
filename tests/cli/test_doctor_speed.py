"""stec-doctor speed: what it measures and says, and how it finds the recipe."""

from itertools import chain, repeat
from types import SimpleNamespace

import pytest
import torch
from tiny_run import TINY

from stec.cli import doctor, doctor_speed
from stec.errors import UsageError
from stec.training.limits import Account, Augment
from stec.training.making import PARTS, Making
from stec.training.options import Hardware
from stec.training.phases import PHASES


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(doctor_speed, "_EACH", 0.05)
    monkeypatch.setattr(doctor_speed, "_LONG", 0.05)


def test_a_folder_is_measured_and_the_limit_named(place, capsys):
    words = [word for word in TINY if not word.startswith("recipe=")]
    assert doctor.main(["speed", "data=pictures", *words, "hardware.num_workers=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("my_images: 54 samples of ")
    assert "batches of 8" in lines[1]
    assert [line[:12].strip() for line in lines[2:-1]] == ["disk", "one core", "loader", "step"]
    for line in lines[2:-1]:
        assert float(line[12:24].replace(",", "")) > 0
        assert "samples/s" in line
    for piece in ("read ", "decode ", "backward ", "8 samples at once", "hardware.num_workers=1"):
        assert piece in "\n".join(lines)
    assert " limits: " in lines[-1]


def concluded(num_workers, *, read, core, loader, step, resident=False):
    """The sentence for so many samples a second from the disk, of one core, of the loader, and in a step."""
    making = None if resident else Making(dict.fromkeys(PARTS, 0.0) | {"decode": 1 / core})
    account = Account(dict.fromkeys(PHASES, 0.0) | {"forward": 8 / step}, 8, making)
    hardware = Hardware(device="cpu", precision="fp32", num_workers=num_workers)
    return doctor_speed.conclusion(account, read, loader, hardware, Augment())


def test_the_slowest_of_all_is_named():
    said = concluded(1, read=20, core=100, loader=80, step=100)
    assert said.startswith("the disk limits: it reads 20 samples/s, the step could take 100")
    said = concluded(1, read=1000, core=100, loader=80, step=100)
    assert said.startswith("the loader limits: 1 loading process delivers 80 samples/s, the step could take 100")
    said = concluded(1, read=1000, core=200, loader=150, step=100)
    assert said.startswith("computing limits: forward and backward on cpu take 100%")


def test_without_loading_processes_making_and_computing_add_up():
    """1/150 s to make each sample, and then 1/100 s: 60 a second."""
    said = concluded(0, read=1000, core=150, loader=150, step=100)
    assert said.startswith(
        "the loader limits: without loading processes it delivers 60 samples/s, the step could take 100"
    )


def test_data_in_memory_need_neither_loader_nor_disk(place, capsys, monkeypatch):
    said = concluded(0, read=20, core=30, loader=30, step=100, resident=True)
    assert said.startswith("computing limits: ")
    assert said.endswith("Batches come from memory.")
    monkeypatch.setattr(doctor_speed, "disk", lambda shards: 1.0)  # a byte a second
    options = ["~dataset.decoder", "+dataset.decoder={name: image, size: 16}", "actions.gaussian_blur=null"]
    assert doctor.main(["speed", "data=pictures", *TINY, *options, "dataset.resident=true"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "once, before the first step" in lines[3]
    assert not any(line.startswith("  loader") for line in lines)
    assert "disk" not in lines[-1]


def test_the_recipe_is_found_by_what_decoders_read(tmp_path):
    sound = tmp_path / "talks" / "a.flac"
    sound.parent.mkdir()
    sound.touch()
    assert doctor_speed.own([f"data={sound.parent}"]) == "my_audio"
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    with pytest.raises(UsageError, match=r"none of my_audio, my_images reads what is at .* \(txt\)"):
        doctor_speed.own([f"data={tmp_path / 'texts'}"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data=nowhere"], "data=nowhere: there is no such file or folder."),
        (["batch_size=4"], "data=PATH is needed."),
        (["recipe=my_imagse", "data=pictures"], "recipe=my_imagse is unknown"),
        (["recipe=my_images", "data=pictures", "batchsize=4"], "did you mean 'batch_size'?"),
    ],
)
def test_slips_are_a_sentence(place, capsys, words, told):
    assert doctor.main(["speed", *words]) == UsageError.exit_code
    assert told in capsys.readouterr().err


def test_the_disk_s_bytes_are_counted(tmp_path, monkeypatch):
    """All of three files, in 4 s by a clock that stands still while they are read."""
    sizes = {"a": 5_000_000, "b": 0, "c": 7}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(bytes(size))
    looks = chain([0.0], repeat(4.0))
    monkeypatch.setattr(doctor_speed, "_EACH", 10.0)
    monkeypatch.setattr(doctor_speed, "time", SimpleNamespace(perf_counter=lambda: next(looks)))
    assert doctor_speed.disk(SimpleNamespace(folder=tmp_path, shard_names=tuple(sizes))) == sum(sizes.values()) / 4


def test_the_first_batch_of_a_stream_is_not_counted(monkeypatch):
    """It takes 100 s, since processes begin; each of the others brings 6 samples in 2 s."""
    now = [0.0]

    def batches(epoch):
        for number in range(3):
            now[0] += 2.0 if epoch or number else 100.0
            yield SimpleNamespace(keys=range(6 if epoch or number else 1000))

    monkeypatch.setattr(doctor_speed, "_EACH", 9.0)
    monkeypatch.setattr(doctor_speed, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert doctor_speed.delivered(SimpleNamespace(batches=batches)) == pytest.approx(3)
    assert now[0] == 110.0  # in the second epoch, as soon as it was long enough


def test_a_step_that_does_not_fit_is_made_on_fewer_samples():
    class Steps:
        hardware = None

        def __init__(self):
            self.phases = self.optimizer = self
            self.tried = []

        def seconds(self):
            return {}

        def zero_grad(self):
            pass

        def timed(self, batch, least):
            self.tried.append(len(batch.keys))
            if len(batch.keys) > 8:
                raise torch.OutOfMemoryError("too much")
            return {"forward": 0.001}, 1

    steps, keys = Steps(), torch.arange(9).view(3, 3)
    batch = doctor_speed.Batch((torch.zeros(3, 2),), torch.zeros(2, 3, 4), keys)
    account = doctor_speed.stepped(steps, batch, 100)
    assert steps.tried == [8, 8, 32, 8]
    assert account.samples == 8
    assert doctor_speed._rows(batch, 5).keys.tolist() == keys[[0, 1, 2, 0, 1]].tolist()
