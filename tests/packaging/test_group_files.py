"""Every group file lists exactly the keys of the class it names, so that any of them can be overridden without `+`."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from stec.catalogue import find, names
from stec.cli.recipes import own
from stec.nodes import checked, keywords

NODES = [
    *((path, "encoder", (), {"name"}) for path in own().glob("encoder/*.yaml")),
    *((path, "packer", ("packer",), {"name"}) for path in own().glob("dataset/*.yaml")),
    *((path, "decoder", ("decoder",), {"name"}) for path in own().glob("dataset/*.yaml")),
]
ACTIONS = sorted(own().glob("actions/*.yaml"))
TERMS = [(kind, path) for kind in ("identity", "manipulation") for path in sorted(own().glob(f"{kind}/*.yaml"))]


def read(path: Path) -> dict[str, Any]:
    # What a file takes from the whole configuration is taken from its defaults.
    known = {"augment": OmegaConf.load(own() / "train.yaml").augment}
    node = OmegaConf.to_container(OmegaConf.merge(known, OmegaConf.load(path)), resolve=True)
    assert isinstance(node, dict)
    return {key: value for key, value in node.items() if key not in known}


def fits(make: type[Any], node: dict[str, Any], where: str) -> None:
    assert list(node) == list(keywords(make)), where
    checked(make, {key: value for key, value in node.items() if value != "???"}, where)


@pytest.mark.parametrize(
    ("path", "kind", "inside", "ours"), NODES, ids=[f"{k}:{p.parent.name}/{p.stem}" for p, k, _, _ in NODES]
)
def test_a_group_file_is_the_signature_of_its_class(path, kind, inside, ours):
    node = read(path)
    for step in inside:
        node = node[step]
    assert ours <= node.keys()
    fits(find(kind, node["name"]), {key: value for key, value in node.items() if key not in ours}, str(path))


@pytest.mark.parametrize("path", ACTIONS, ids=lambda p: p.stem)
def test_an_action_file_is_the_signatures_of_its_parts(path):
    parts = read(path)
    assert parts
    for name, node in parts.items():
        fits(find("action_space", name), node, f"{path.stem}.{name}")


@pytest.mark.parametrize(("kind", "path"), TERMS, ids=[f"{kind}/{path.stem}" for kind, path in TERMS])
def test_the_file_of_a_model_holds_its_weight_and_signature_under_its_name(kind, path):
    if path.stem == "none":
        assert read(path) == {}
        return
    ((name, node),) = read(path).items()
    assert name == path.stem
    assert list(node)[:2] == ["name", "weight"]
    assert node["name"] == name
    own = {key: value for key, value in node.items() if key not in ("name", "weight")}
    fits(find(kind, name), own, f"{kind}.{name}")


def test_there_is_a_file_for_every_identity_and_manipulation_model():
    for kind in ("identity", "manipulation"):
        assert {path.stem for each, path in TERMS if each == kind} == {*names(kind), "none"}
    assert NODES
    assert ACTIONS
