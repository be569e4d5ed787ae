"""`stec-eval action` with every kind of component there is, and of what a nuisance must do even to a sample at rest."""

import io

import numpy as np
import pytest
import torch
from PIL import Image as pil

from stec import build
from stec.cli.eval import main
from stec.export import export

TURNS = {"quarter_turn": {"first_view": 0}}
ACTIONS = {
    "colours and turns": {"affine_crop": {"size": 16, "frame": "augself"}, "color_jitter": {"predict": True}, **TURNS},
    "background": {"affine_crop": {"size": 16}, "background": {}, "grayscale": {}},
}
# No crop is turned: these are constant, and not asked for.
CONSTANT = {"linear_xy", "linear_yx"}


def picture(seed: int) -> bytes:
    x, file = np.random.default_rng(seed).integers(0, 255, (20, 24, 4)), io.BytesIO()
    pil.fromarray(x.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("name", ACTIONS)
def test_what_was_done_is_answered(name, tmp_path, capsys):
    decoder = {"name": "image_crop", "saliency": True} if "background" in ACTIONS[name] else {"name": "image"}
    spec = {
        "format": build.SPEC_FORMAT,
        "actions": ACTIONS[name],
        "encoder": {"name": "resnet", "width": 4},
        "decoder": decoder,
        "picture": {"name": "boxes"},
        "identity": {},
        "manipulation": {"binned": {"hidden": 8}},
        "forward_views": "joint",
        "extents": [[20, 24]],
        "classes": [],
        "num_classes": 0,
    }
    torch.manual_seed(0)
    model = build.model(spec)
    export(tmp_path / "out", spec, model.encoder, model.stec.manipulation)
    for seed, file in enumerate("ab"):
        (tmp_path / file).write_bytes(picture(seed))
    words = ["action", tmp_path / "a", tmp_path / "b", "--model", tmp_path / "out", "--out", tmp_path / "answer.png"]
    assert main([*map(str, words)]) == 0
    said = capsys.readouterr().out
    assert all(c.name in said for c in model.space.components if c.name not in CONSTANT)
    with pil.open(tmp_path / "answer.png") as answer:
        assert answer.width > 100
