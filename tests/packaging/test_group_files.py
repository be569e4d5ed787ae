"""Every group file lists exactly the keys of the class it names, so that any of them can be overridden without `+`."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from stec.catalogue import find
from stec.cli.recipes import own
from stec.nodes import checked, keywords

NODES = [
    *((path, "encoder", (), {"name"}) for path in own().glob("encoder/*.yaml")),
    *((path, "identity", (), {"name", "weight"}) for path in own().glob("identity/*.yaml")),
    *((path, "manipulation", (), {"name", "weight"}) for path in own().glob("manipulation/*.yaml")),
    *((path, "packer", ("packer",), {"name"}) for path in own().glob("dataset/*.yaml")),
    *((path, "decoder", ("decoder",), {"name"}) for path in own().glob("dataset/*.yaml")),
]
ACTIONS = sorted(own().glob("actions/*.yaml"))


def read(path: Path) -> dict[str, Any]:
    node = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(node, dict)
    return node


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
    if kind == "manipulation" and node["name"] == "none":
        assert node == {"name": "none"}
        return
    assert ours <= node.keys()
    fits(find(kind, node["name"]), {key: value for key, value in node.items() if key not in ours}, str(path))


@pytest.mark.parametrize("path", ACTIONS, ids=lambda p: p.stem)
def test_an_action_file_is_the_signatures_of_its_parts(path):
    parts = read(path)
    assert parts
    for name, node in parts.items():
        fits(find("action_space", name), node, f"{path.stem}.{name}")


def test_there_is_a_file_for_every_identity_and_manipulation_model():
    assert {path.stem for path in own().glob("identity/*.yaml")} == {"simclr"}
    assert {path.stem for path in own().glob("manipulation/*.yaml")} == {"binned", "none"}
    assert NODES
    assert ACTIONS
