"""Options of training and machine: ranges, what `auto` means, and that the YAML files list every key."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from stec.errors import UsageError
from stec.nodes import checked, keywords
from stec.training.optim import OPTIMIZERS
from stec.training.options import Hardware, Training

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("path", sorted((RECIPES / "training").glob("*.yaml")), ids=lambda p: p.stem)
def test_training_files_list_every_key(path):
    node = yaml.safe_load(path.read_text())
    assert list(node) == list(keywords(Training))
    Training(**checked(Training, node, "training"))


@pytest.mark.parametrize("path", sorted((RECIPES / "hardware").glob("*.yaml")), ids=lambda p: p.stem)
def test_hardware_files_list_every_key(path):
    node = yaml.safe_load(path.read_text())
    assert list(node) == list(keywords(Hardware))
    checked(Hardware, node, "hardware")


@pytest.mark.parametrize("path", sorted((RECIPES / "optimizer").glob("*.yaml")), ids=lambda p: p.stem)
def test_optimizer_files_list_every_key(path):
    node = yaml.safe_load(path.read_text())
    target = OPTIMIZERS[node.pop("name")]
    assert list(node) == list(keywords(target))
    checked(target, node, "optimizer")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"epochs": 0}, "training.epochs=0 must be at least 1."),
        ({"epochs": 20, "log_every": 0}, "training.log_every=0"),
        ({"epochs": 5}, "training.warmup_epochs=10 must be 0 or more and less than training.epochs=5."),
        ({"epochs": 20, "eval_every": -1}, "training.eval_every=-1"),
        ({"epochs": 20, "ema": 1.0}, "training.ema=1.0"),
        ({"epochs": 20, "clip_grad": 0.0}, "training.clip_grad=0.0"),
        ({"epochs": 20, "stop_after": 0}, "training.stop_after=0"),
    ],
)
def test_training_ranges(options, told):
    with pytest.raises(UsageError) as caught:
        Training(**options)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"device": "gpu"}, "hardware.device='gpu'"),
        ({"device": "meta"}, "hardware.device='meta'"),
        ({"device": "cpu", "precision": "fp8"}, "hardware.precision='fp8'"),
        ({"device": "cpu", "precision": "fp16"}, "hardware.precision=fp16 needs a GPU"),
        ({"device": "cpu", "num_workers": -1}, "hardware.num_workers=-1"),
        ({"device": "cpu", "micro_batch": 0}, "hardware.micro_batch=0"),
    ],
)
def test_hardware_ranges(options, told):
    with pytest.raises(UsageError) as caught:
        Hardware(**options)
    assert str(caught.value).startswith(told)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "5")
    with pytest.raises(UsageError, match=r"GPU number 5, but this machine shows 2 GPUs"):
        Hardware(device="cuda")
    with pytest.raises(UsageError, match="GPU number 7"):
        Hardware(device="cuda:7")


@pytest.mark.parametrize(
    ("able", "precision"),
    [
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, "bf16"),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon"}, "fp32"),
        ({"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, "bf16"),
        ({"avx2": True}, "fp32"),
    ],
)
def test_auto_on_a_cpu(monkeypatch, able, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    machine = Hardware()
    assert (machine.device, machine.precision) == (torch.device("cpu"), precision)
    assert machine.num_workers == 1
    assert machine.describe() == f"cpu (2 cores), {precision}, 1 loading process, channels_last"
    assert machine.describe(nn.Conv2d(1, 1, 1)) == machine.describe()
    assert "channels_last" not in machine.describe(nn.Conv1d(1, 1, 1))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert Hardware().num_workers == 0
