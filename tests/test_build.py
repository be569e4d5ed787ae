"""From plain words to objects and back: what does not fit is refused by name, and a stored description is only data."""

import json
from typing import Any

import pytest
import torch

from stec import build, export
from stec.errors import UsageError
from stec.training import checkpoint
from stec.training.optim import OPTIMIZERS

SPEC: dict[str, Any] = {
    "format": build.SPEC_FORMAT,
    "actions": {"affine_crop": {"size": 16}, "grayscale": {"p": 0.5}},
    "encoder": {"name": "resnet", "width": 4, "taps": ["layer2"]},
    "decoder": {"name": "image"},
    "picture": {"name": "boxes"},
    "identity": {"simclr": {"weight": 2.0, "hidden": 8, "out": 5}},
    "manipulation": {"binned": {"weight": 0.5, "hidden": 8}},
    "forward_views": "joint",
    "extents": [[20, 24], [32, 32]],
    "classes": ["a", "b", "c"],
    "num_classes": 3,
}
X = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Fewer pairs than usual to fit the bins on: where their edges lie is not the point here."""
    monkeypatch.setattr("stec.copies._FIT_DRAWS", 1000)


def stored(folder, spec=SPEC, **changes):
    """A run directory with a checkpoint of a fresh model, and that model."""
    torch.manual_seed(1)
    model = build.model(SPEC)
    model.encoder.train()
    model.encoder(X)  # so that the statistics of batch norm are not the initial ones
    state = {"spec": spec, "step": 3, "model": model.stec.state_dict()} | changes
    checkpoint.save(folder / "checkpoints" / checkpoint.name(3), state)
    return model


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(t, theirs[name]) for name, t in mine.items())


# -- checking ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        ({"width": 4}, r"encoder\.name is missing: There is: cpc, mfcc, resnet, timm\."),
        ({"name": "resnt"}, r"encoder='resnt' is unknown: did you mean 'resnet'\?"),
        ({"name": "os:system"}, "encoder='os:system' is unknown"),
        ({"name": "stec_vision.encoders:ResNet"}, r"encoder='stec_vision\.encoders:ResNet' is unknown"),
        ({"name": "resnet", "widht": 4}, r"encoder\.widht is unknown: did you mean 'width'\?"),
        ({"name": "resnet", "width": "wide"}, r"encoder\.width='wide' has the wrong type: int was expected\."),
        (None, "encoder=None has the wrong type: a group of keys was expected"),
        ("resnet", "encoder='resnet' has the wrong type: a group of keys was expected"),
    ],
)
def test_a_node_that_does_not_fit_is_refused_by_name(node, sentence):
    with pytest.raises(UsageError, match=sentence):
        build.part("encoder", node, "encoder")


def test_a_part_is_a_class_with_its_arguments():
    part = build.part("encoder", {"name": "resnet", "width": "4", "depth": 18}, "encoder")
    assert part.described() == {"name": "resnet", "width": 4, "depth": 18}
    assert part().dims["pooled"] == 32
    chosen = build.choice(OPTIMIZERS, {"name": "sgd", "lr": 1}, "optimizer")
    assert (chosen.make, chosen.options) == (OPTIMIZERS["sgd"], {"lr": 1.0})
    with pytest.raises(UsageError, match=r"optimizer\.name=adam is unknown: did you mean 'adamw'\?"):
        build.choice(OPTIMIZERS, {"name": "adam"}, "optimizer")
    with pytest.raises(UsageError, match="optimizer=None has the wrong type"):
        build.choice(OPTIMIZERS, None, "optimizer")


def test_a_part_is_made_of_what_its_constructor_names():
    class Wants:
        def __init__(self, extents: object, dims: object, *, size: int = 3):
            self.got = (extents, dims, size)

    known = {"encoder": "e", "dims": "d", "space": "s", "extents": "x"}
    assert build.Part("wants", Wants, {"size": 4}).of(**known).got == ("x", "d", 4)
    with pytest.raises(UsageError, match=r"wants wants 'dims', but it can only be given encoder, extents\."):
        build.Part("wants", Wants, {}).of(encoder="e", extents="x")


@pytest.mark.parametrize("section", build.Plan._fields)
@pytest.mark.parametrize("junk", [None, 3, "junk", [], {}, {"name": 7}, {"name": None}])
def test_every_section_of_a_plan_is_checked(section, junk):
    """{} and a null node stand for none: no action at all is refused when the space is made, no term by STEC."""
    if section in ("identity", "manipulation") and junk in ({}, {"name": None}):
        assert build.plan({**SPEC, section: junk})._asdict()[section] == {}
        return
    with pytest.raises(UsageError, match=r"^[^\n]+$"):
        build.space(build.plan({**SPEC, section: junk}))
    with pytest.raises(UsageError, match=rf"{section}.*=None has the wrong type"):
        build.plan({key: value for key, value in SPEC.items() if key != section})


@pytest.mark.parametrize("weight", ["much", None, True, [1]])
def test_a_weight_is_a_number(weight):
    with pytest.raises(UsageError, match=r"identity\.simclr\.weight=.* has the wrong type: a number was expected"):
        build.plan({**SPEC, "identity": {"simclr": {"weight": weight}}})


def test_terms_are_told_by_their_keys_and_may_be_of_one_class():
    terms = {"near": {"name": "simclr", "weight": 1}, "far": {"name": "simclr", "temperature": 0.9}, "simclr": None}
    parts = build.plan({**SPEC, "identity": terms}).identity
    assert [(name, weight, part.name, part.options) for name, (weight, part) in parts.items()] == [
        ("near", 1.0, "simclr", {}),
        ("far", 1.0, "simclr", {"temperature": 0.9}),
    ]
    with pytest.raises(UsageError, match=r"^identity\.far\.temperatur is unknown: did you mean 'temperature'\?"):
        build.plan({**SPEC, "identity": {"far": {"name": "simclr", "temperatur": 0.9}}})
    with pytest.raises(UsageError, match=r"^identity\.temperature=0\.9 has the wrong type: a group of keys"):
        build.plan({**SPEC, "identity": {"temperature": 0.9}})


def test_a_part_of_the_actions_may_be_left_out_or_called_otherwise():
    actions = {"affine_crop": {"size": 16}, "grayscale": None, "second": {"name": "solarize", "p": 0.1}}
    space = build.space(build.plan({**SPEC, "actions": actions}))
    assert list(space.parts) == ["affine_crop", "second"]
    assert type(space.parts["second"]).__name__ == "Solarize"


# -- building ------------------------------------------------------------------------------------------------------


def test_a_model_has_the_terms_and_weights_of_its_spec():
    model = build.model(SPEC)
    assert model.stec.weights == {"identity.simclr": 2.0, "manipulation.binned": 0.5, "probes.online": 1.0}
    assert list(model.space.parts) == ["affine_crop", "grayscale"]
    assert model.stec.encoder is model.encoder
    assert model.decoder.performs == 0
    alone = build.model({**SPEC, "manipulation": {}, "num_classes": 1})
    assert alone.stec.weights == {"identity.simclr": 2.0}
    assert "=" not in alone.stec.describe().removeprefix("loss = ").split("[")[0]
    with pytest.raises(UsageError, match="the objective is empty"):
        build.model({**SPEC, "manipulation": {}, "identity": {"simclr": None}})
    with pytest.raises(UsageError, match="forward_views='both' is unknown"):
        build.model({**SPEC, "forward_views": "both"})


# -- loading -------------------------------------------------------------------------------------------------------


def test_run_checkpoint_and_export_give_the_same_model(tmp_path):
    made = stored(tmp_path / "run")
    export.export(tmp_path / "out", made.spec, made.encoder, made.stec.manipulation)
    file = tmp_path / "run" / "checkpoints" / checkpoint.name(3)
    for source in (tmp_path / "run", file, tmp_path / "out"):
        model = build.load(str(source))
        assert same(model.encoder, made.encoder), source
        assert same(model.stec.manipulation, made.stec.manipulation), source
        assert not any(module.training for module in model.stec.modules())
        assert model.spec == made.spec
    export.export(tmp_path / "alone", made.spec, made.encoder)
    alone = build.load(str(tmp_path / "alone"))
    assert same(alone.encoder, made.encoder)
    assert not alone.stec.manipulation


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "torn.ckpt").write_bytes(b"PK")
    for source, sentence in (
        (tmp_path / "nowhere", "neither a run directory"),
        (tmp_path / "file.txt", "neither a run directory"),
        (tmp_path, "no usable checkpoint in it"),
        (tmp_path / "none.ckpt", r"none\.ckpt"),
        (tmp_path / "torn.ckpt", r"torn\.ckpt"),
        ("resnet/18", "a kind with published weights was expected"),
        ("timm/resnet_18", "timm/resnet_18 is not in timm"),
    ):
        with pytest.raises(UsageError, match=sentence):
            build.load(str(source))


JUNK = [None, -1, "junk", [], {}, [[1], [2, 3]], [["a"]], {"name": "os:system"}]


@pytest.mark.parametrize("key", SPEC)
def test_a_stored_description_is_data_and_is_checked(key, tmp_path):
    """Whatever stands in it is refused in a sentence; that there are no names of classes is all that may be."""
    made = stored(tmp_path)
    file = tmp_path / "checkpoints" / checkpoint.name(3)
    rest = {name: node for name, node in SPEC.items() if name != key}
    for spec in [rest, *({**rest, key: junk} for junk in JUNK)]:
        checkpoint.save(file, {"spec": spec, "step": 3, "model": made.stec.state_dict()})
        if spec.get("classes") == []:
            assert same(build.load(str(file)).stec, made.stec)
            continue
        with pytest.raises(UsageError, match=r"^[^\n]+$"):
            build.load(str(file))


@pytest.mark.parametrize("spec", [None, [], "spec", {"format": 99}, {**SPEC, "extra": 1}, {**SPEC, "x": torch.ones(1)}])
def test_a_description_of_another_kind_is_refused(spec, tmp_path):
    stored(tmp_path, spec)
    with pytest.raises(UsageError, match=r"^[^\n]+$"):
        build.load(str(tmp_path))


def test_weights_of_another_shape_are_refused_by_name(tmp_path):
    stored(tmp_path, {**SPEC, "encoder": {**SPEC["encoder"], "width": 8}})
    with pytest.raises(UsageError, match=r"does not fit this model: encoder\.conv1\.weight is \[4, .* there and \[8, "):
        build.load(str(tmp_path))


def test_a_stored_timm_model_fetches_nothing(tmp_path):
    """Its description says pretrained, which was so once; the weights are in the checkpoint."""
    spec = {**SPEC, "encoder": {"name": "timm", "model": "test_resnet", "pretrained": False}}
    model = build.model(spec)
    told = {**spec, "encoder": {**spec["encoder"], "pretrained": True}}
    state = {"spec": told, "step": 3, "model": model.stec.state_dict()}
    checkpoint.save(tmp_path / "checkpoints" / checkpoint.name(3), state)
    assert same(build.load(str(tmp_path)).encoder, model.encoder)


def test_weights_start_an_encoder_by_name(tmp_path):
    made = stored(tmp_path)
    other = build.model({**SPEC, "manipulation": {}, "encoder": {**SPEC["encoder"], "taps": []}})
    build.weights(other.encoder, str(tmp_path))
    assert same(other.encoder, made.encoder)
    wide = build.model({**SPEC, "encoder": {**SPEC["encoder"], "width": 8}})
    with pytest.raises(UsageError, match="does not fit this model"):
        build.weights(wide.encoder, str(tmp_path))


def test_a_published_encoder_that_is_not_at_hand_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="its published weights are not on this machine"):
        build.at_hand("timm/resnet18")


def test_a_description_survives_json():
    assert json.loads(json.dumps(build.model(SPEC).spec)) == SPEC


def test_the_encoder_gives_the_layer_that_a_term_reads():
    read = {**SPEC, "manipulation": {"binned": {"hidden": 8, "tap": "layer3"}}}
    model = build.model(read)
    assert model.encoder.dims == {"pooled": 32, "layer2": 8, "layer3": 16}
    assert model.spec["encoder"]["taps"] == ["layer2", "layer3"]
    assert read["encoder"]["taps"] == ["layer2"]
    assert build.model(SPEC).encoder.dims == {"pooled": 32, "layer2": 8}
    with pytest.raises(UsageError, match=r"encoder\.taps: 'layer9' is unknown"):
        build.model({**SPEC, "manipulation": {"binned": {"tap": "layer9"}}})
