"""Every identity model x every manipulation model x images, sequences and a third party's signal: built and stepped, or
refused in a sentence."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_terms import MULTI_CROP, SMALL

from stec import build
from stec.actions import sample_views
from stec.catalogue import CORE
from stec.errors import UsageError
from stec.rng import make_keys
from stec.views import Batch, make_views

NUM, VIEWS = 4, 3
IDENTITY, MANIPULATION = [*CORE["identity"], "none"], [*CORE["manipulation"], "none"]
SMALL_ALSO: dict[str, dict[str, Any]] = {
    "moco": {"queue": 8},
    "cpc": {"steps": 2, "num_negatives": 3},
    "time_insensitive": {"hidden": 8, "out": 4},
    "frame_offset": {"hidden": 8, "reach": 2, "num_bins": 2, "num_pairs": 2},
}

# What a modality is tried with: the parts of its spec, the shape of what its decoder would hand over, in the two cases.
MODALITIES: dict[str, dict[str, Any]] = {
    "image": {
        "actions": {"affine_crop": {"size": 16}, "color_jitter": {"predict": True}, "quarter_turn": {}},
        "encoder": {"name": "resnet", "width": 2, "stem": "imagenet", "taps": []},
        "decoder": {"name": "image"},
        "picture": {"name": "boxes"},
        "extents": [[20, 24]],
        "x": (3, 20, 24),
    },
    "sequence": {
        "actions": {"temporal_window": {"size": 1600, "speeds": [0.9, 1.0, 1.1]}, "gain": {}},
        "encoder": {"name": "cpc", "channels": 4, "width": 4},
        "decoder": {"name": "window"},
        "picture": {"name": "windows"},
        "extents": [[6000]],
        "x": (1, 1600),
    },
    "toy": {
        "actions": {"motion_window": {"size": 16}, "motion_gain": {}},
        "encoder": {"name": "motion", "channels": 4},
        "decoder": {"name": "motion"},
        "picture": {"name": "motion"},
        "extents": [[40]],
        "x": (3, 40),
    },
}
MOVING = {"image": "affine_crop", "sequence": "temporal_window"}


@pytest.fixture(scope="module", autouse=True)
def third_party():
    """The toy plug-in as an installed distribution (its metadata is all that is needed of one)."""
    package = Path(__file__).parents[1] / "plugins" / "stec_toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(package))
        patch.setattr("stec.catalogue._installed", _with_toy(build.catalogue._installed()))
        # Fewer pairs than usual to fit the bins on: where their edges lie is not the point here.
        patch.setattr("stec.copies._FIT_DRAWS", 500)
        yield
    for name in [name for name in sys.modules if name.startswith("stec_toy")]:
        del sys.modules[name]


def _with_toy(points: list) -> Any:
    from importlib.metadata import EntryPoint

    return lambda: [*points, EntryPoint("toy", "stec_toy:MODALITY", "stec.modalities")]


def refusal(modality: str, identity: str, manipulation: str) -> str | None:
    """Why this makes no sense, as a pattern of the sentence; None if it does. (The identity model is built first.)"""
    if identity in ("cpc", "time_insensitive") and modality != "sequence":
        return f"identity\\.{identity}.*context"
    if manipulation == "frame_offset" and modality != "sequence":
        return "frame_offset reads the output context"
    if manipulation == "rotation" and modality != "image":
        return r"manipulation\.rotation.*quarter_turn"
    if manipulation == "rotation" and identity in MULTI_CROP:
        return rf"identity\.{identity} makes all views alike, but manipulation\.rotation keeps view 2 apart"
    if manipulation == "augself" and modality == "toy":
        return r"manipulation\.augself.*augself"
    return "the objective is empty" if identity == manipulation == "none" else None


def spec_of(modality: str, identity: str, manipulation: str) -> dict[str, Any]:
    def chosen(name: str) -> dict[str, Any]:
        return {} if name == "none" else {name: SMALL.get(name, {}) | SMALL_ALSO.get(name, {})}

    parts = {key: value for key, value in MODALITIES[modality].items() if key != "x"}
    if manipulation == "augself" and modality in MOVING:
        moving = MOVING[modality]
        parts["actions"] = parts["actions"] | {moving: parts["actions"][moving] | {"frame": "augself"}}
    facts = {"format": build.SPEC_FORMAT, "forward_views": "joint", "classes": [], "num_classes": 0}
    return {**parts, **facts, "identity": chosen(identity), "manipulation": chosen(manipulation)}


@pytest.mark.parametrize("manipulation", MANIPULATION)
@pytest.mark.parametrize("identity", IDENTITY)
@pytest.mark.parametrize("modality", MODALITIES)
def test_it_learns_or_is_refused(modality, identity, manipulation):
    torch.manual_seed(0)
    spec = spec_of(modality, identity, manipulation)
    if sentence := refusal(modality, identity, manipulation):
        with pytest.raises(UsageError, match=sentence):
            build.model(spec)
        return
    model = build.model(spec)
    stec, space = model.stec, model.space
    assert stec.num_views <= VIEWS
    keys = make_keys(0, 0, torch.arange(NUM))
    actions = sample_views(space, keys, torch.tensor(spec["extents"] * NUM), VIEWS)
    performed = model.decoder.performs
    x = tuple(torch.rand(NUM, *MODALITIES[modality]["x"]) for _ in range(VIEWS if performed else 1))
    views = make_views(Batch(x, actions, keys), space, stec.pairs, performed=performed)
    before = {name: p.detach().clone() for name, p in stec.encoder.named_parameters()}
    stec.before_step(0, 10)
    out = stec(views)
    out.loss.backward()
    assert torch.isfinite(out.loss)
    wanted = {"train/loss", *["train/loss_id"] * (identity != "none"), *["train/loss_manip"] * (manipulation != "none")}
    assert wanted <= out.sums.keys()
    assert (identity != "none", manipulation != "none") == (bool(stec.identity), bool(stec.manipulation))
    torch.optim.SGD([p for p in stec.parameters() if p.requires_grad], lr=0.1).step()
    assert any(not torch.equal(p, before[name]) for name, p in stec.encoder.named_parameters())
