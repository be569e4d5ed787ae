"""The printed lines are run as they are: others must be able to load what was exported."""

import json

import pytest
import timm
import torch

from stec.export import export, read
from stec_vision.encoders import ResNet
from stec_vision.timm_encoder import Timm


def run(lines: list[str], file: str) -> torch.nn.Module:
    """The module that the lines (those after our own two) leave under the name `model`."""
    names: dict = {}
    exec("\n".join(lines[2:]), names)
    assert file in "\n".join(lines)
    return names["model"].eval()


@pytest.mark.parametrize("stem", ["imagenet", "stl", "cifar"])
@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_loads_it_strictly_and_gives_the_same(tmp_path, stem, depth):
    torch.manual_seed(0)
    encoder = ResNet(depth=depth, stem=stem)
    lines = export(tmp_path / "out", {"encoder": {"name": "resnet", "depth": depth, "stem": stem}}, encoder)
    end = lines.index("import timm") if "import timm" in lines else None
    model = run(lines[:end], str(tmp_path / "out" / "model.safetensors"))
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), encoder.eval()(x).pooled, rtol=1e-5, atol=1e-5)


def test_timm_loads_our_resnet(tmp_path):
    torch.manual_seed(0)
    encoder = ResNet(stem="imagenet")
    lines = export(tmp_path / "out", {"encoder": {"name": "resnet"}}, encoder)
    model = run(lines, "model.safetensors")
    assert isinstance(model, timm.models.ResNet)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), encoder.eval()(x).pooled, rtol=1e-5, atol=1e-5)


VIT = {"model": "vit_tiny_patch16_224", "image_size": 32}
MINI = {**VIT, "patch_size": 8, "depth": 2, "embed_dim": 48, "drop_path": 0.1, "freeze_patch_embed": True}


@pytest.mark.parametrize(
    "options", [{"model": "resnet10t"}, VIT, {**MINI, "taps": ["block0"]}, {**MINI, "dynamic_size": True}]
)
def test_timm_loads_its_own(tmp_path, options):
    torch.manual_seed(0)
    encoder = Timm(**options)
    lines = export(tmp_path / "out", {"encoder": {"name": "timm", **options}}, encoder)
    names: dict = {}
    exec("\n".join(lines[2:]), names)
    x = torch.rand(2, 3, 32, 32)
    mean, deviation = (torch.tensor(names[n]).view(-1, 1, 1) for n in ("mean", "deviation"))
    with torch.no_grad():
        theirs = names["model"].eval()((x - mean) / deviation)
        torch.testing.assert_close(theirs, encoder.eval()(x).pooled, rtol=1e-5, atol=1e-5)


def test_a_width_that_others_lack_is_loaded_by_stec_alone(tmp_path):
    encoder = ResNet(width=8)
    lines = export(tmp_path / "out", {"encoder": {"name": "resnet", "width": 8}}, encoder)
    assert lines[1].endswith("# x: images [B, 3, H, W] in [0, 1] -> encoder(x).pooled")
    assert [line for line in lines[2:] if not line.startswith("# torchvision and timm have")] == []
    other = ResNet(width=8)
    other.load_state_dict(read(tmp_path / "out").encoder)
    assert torch.equal(other.conv1.weight, encoder.conv1.weight)


def test_the_json_holds_names_not_import_paths(tmp_path):
    export(tmp_path / "out", {"encoder": {"name": "resnet", "width": 8}}, ResNet(width=8))
    about = json.loads((tmp_path / "out" / "stec.json").read_text())
    assert about["spec"] == {"encoder": {"name": "resnet", "width": 8}}
    assert "stec_vision" not in json.dumps(about)
