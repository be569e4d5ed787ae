"""From a description in plain words to objects. Here names become classes, and the configuration dies.

A description (`spec`) is what a checkpoint and an exported folder keep: names that the installed packages declare, and
plain arguments; never an import path. All of its nodes are checked against their classes before anything is built.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from stec import catalogue, export
from stec.actions import Compose
from stec.encoder import Encoder
from stec.errors import UsageError
from stec.modest import within
from stec.nodes import checked, group, positional
from stec.objective import STEC, Term
from stec.probe import OnlineProbe
from stec.training import checkpoint

SPEC_FORMAT = 2


@dataclass(frozen=True)
class Part:
    """A class (or function), found by name, and keyword arguments that fit it."""

    name: str
    make: Callable[..., Any]
    options: dict[str, Any]

    def __call__(self, *injected: Any) -> Any:
        return self.make(*injected, **self.options)

    def of(self, **known: Any) -> Any:
        """Made of those of the `known` things that its positional parameters are named after."""
        wanted = positional(self.make)
        if unknown := [name for name in wanted if name not in known]:
            raise UsageError(f"{self.name} wants {unknown[0]!r}, but it can only be given {', '.join(known)}.")
        return self.make(*(known[name] for name in wanted), **self.options)

    def described(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


class Plan(NamedTuple):
    """All parts of a model, checked and not yet built; weights beside the terms."""

    actions: dict[str, Part]
    encoder: Part
    decoder: Part
    picture: Part
    identity: dict[str, tuple[float, Part]]
    manipulation: dict[str, tuple[float, Part]]


class Model(NamedTuple):
    """What a spec describes. stec is None if the source held an encoder alone (then space may lack components)."""

    encoder: Encoder
    space: Compose
    decoder: Any
    picture: Any
    stec: STEC | None
    spec: dict[str, Any]


def part(kind: str, node: Any, where: str) -> Part:
    """The class that `node["name"]` names among the `kind`s, with the other keys as its checked arguments."""
    if "name" not in group(node, where):
        raise UsageError(f"{where}.name is missing: {catalogue.nearest('', catalogue.names(kind))}")
    make = catalogue.find(kind, str(node["name"]))
    return Part(str(node["name"]), make, checked(make, _options(node), where))


def choice(known: Mapping[str, Callable[..., Any]], node: Any, where: str) -> Part:
    """As `part`, for names that no package but ours declares."""
    name = str(group(node, where).get("name"))
    if name not in known:
        raise UsageError(f"{where}.name={name} is unknown: {catalogue.nearest(name, known)}")
    return Part(name, known[name], checked(known[name], _options(node), where))


def _options(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "name"}


def _terms(kind: str, nodes: Any) -> dict[str, tuple[float, Part]]:
    """{name: (weight, part)}. A node may carry the name of its class (its own key, if not); null nodes are left out."""
    found = {}
    for key, node in group(nodes, kind).items():
        if node is None:
            continue
        where = f"{kind}.{key}"
        weight = group(node, where).get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise UsageError(f"{where}.weight={weight!r} has the wrong type: a number was expected.")
        rest = {name: value for name, value in node.items() if name != "weight"}
        found[str(key)] = float(weight), part(kind, {"name": key, **rest}, where)
    return found


def plan(spec: Mapping[str, Any]) -> Plan:
    """Check every node of a spec; UsageError in one sentence for the first that does not fit."""
    actions = {
        name: part("action_space", {"name": name, **group(node, f"actions.{name}")}, f"actions.{name}")
        for name, node in group(spec.get("actions"), "actions").items()
        if node is not None
    }
    return Plan(
        actions,
        part("encoder", spec.get("encoder"), "encoder"),
        part("decoder", spec.get("decoder"), "dataset.decoder"),
        part("picture", spec.get("picture"), "dataset.picture"),
        _terms("identity", spec.get("identity")),
        _terms("manipulation", spec.get("manipulation")),
    )


def space(parts: Plan) -> Compose:
    return Compose({name: make() for name, make in parts.actions.items()})


def model(spec: Mapping[str, Any]) -> Model:
    """Encoder, action space, decoder and objective of a spec whose "extents" and "num_classes" are known.

    The encoder is told to give the layers that terms read (`tap`). What a term is made of: the encoder (for a copy of
    it), its dims, the space and the extents, whichever of these its constructor names.
    """
    for node in [
        *group(spec.get("identity"), "identity").values(),
        *group(spec.get("manipulation"), "manipulation").values(),
    ]:
        spec = _tapped(spec, node.get("tap") if isinstance(node, Mapping) else None)
    parts = plan(spec)
    actions = space(parts)
    decoder = parts.decoder(actions)
    encoder: Encoder = parts.encoder()
    known = {
        "encoder": encoder,
        "dims": encoder.dims,
        "space": actions,
        "extents": torch.tensor(spec["extents"]),
    }
    identity: dict[str, tuple[float, Term]] = {
        name: (weight, make.of(**known)) for name, (weight, make) in parts.identity.items()
    }
    manipulation: dict[str, tuple[float, Term]] = {
        name: (weight, make.of(**known)) for name, (weight, make) in parts.manipulation.items()
    }
    probes: dict[str, tuple[float, Term]] = {}
    if spec["num_classes"] >= 2:
        probes["online"] = (1.0, OnlineProbe(encoder.dims, spec["num_classes"]))
    stec = STEC(encoder, identity, manipulation, probes, forward_views=spec["forward_views"])
    return Model(encoder, actions, decoder, parts.picture(actions), stec, dict(spec))


def load(source: str, layer: str | None = None) -> Model:
    """A trained model from a run directory, a checkpoint, an exported folder, or KIND/NAME such as timm/resnet18.

    On the CPU, in eval mode. layer: one whose output the encoder is to give, beside those it was trained with.
    UsageError if the source is none of these, does not fit what it says of itself, or has no such layer.
    """
    path = Path(source).expanduser()
    if path.is_dir() and (path / export.SPEC_NAME).is_file():
        return _exported(path, layer)
    if path.is_dir() or os.path.realpath(path).endswith(".ckpt"):  # checkpoints/last is a link
        return _trained(path, layer)
    if is_published(source):
        return _published(source)
    raise UsageError(f"{source}: neither a run directory, a .ckpt file, an exported folder nor ENCODER/NAME.")


def is_published(source: str) -> bool:
    """Is this KIND/NAME of an encoder, rather than a path?"""
    kind, _, name = source.partition("/")
    return bool(name) and kind in catalogue.names("encoder") and not Path(source).expanduser().exists()


def _tapped(spec: Mapping[str, Any], layer: str | None) -> Mapping[str, Any]:
    """The spec, its encoder told to give `layer` as well, if it is of a kind that has taps."""
    node = spec.get("encoder")
    if layer in (None, "pooled") or not isinstance(node, dict) or "taps" not in node or layer in (node["taps"] or ()):
        return spec
    return {**spec, "encoder": {**node, "taps": [*(node["taps"] or ()), layer]}}


def _trained(path: Path, layer: str | None) -> Model:
    if path.is_dir():
        found = checkpoint.latest(path / "checkpoints")
        if found is None:
            raise UsageError(f"{path}: no usable checkpoint in it and no {export.SPEC_NAME}.")
        path = found
    state = checkpoint.load(path)
    with within(path.stat().st_size, str(path)):
        built = model(_tapped(_known(state.get("spec"), str(path)), layer))
    assert built.stec is not None
    checkpoint.fill(built.stec, state["model"], str(path))
    built.stec.eval()
    return built


def _exported(folder: Path, layer: str | None) -> Model:
    spec, encoder, manipulation = export.read(folder)
    if manipulation is None:
        spec = {**spec, "manipulation": {}}
    with within((folder / export.WEIGHTS).stat().st_size, str(folder)):
        spec = dict(_tapped(_known(spec, str(folder)), layer))
        built = model({**spec, "num_classes": 0})._replace(spec=spec)  # the probe stayed with the run
    checkpoint.fill(built.encoder, {built.encoder.prefix + name: t for name, t in encoder.items()}, str(folder))
    assert built.stec is not None
    if manipulation is not None:
        checkpoint.fill(built.stec.manipulation, manipulation, str(folder))
    built.stec.eval()
    return built


def published_spec(source: str) -> dict[str, Any]:
    """The spec of KIND/NAME, an encoder by name with its published weights; its own class says how its samples are
    prepared. UsageError if there is no such kind, or no such name."""
    kind, _, name = source.partition("/")
    make: Any = catalogue.find("encoder", kind)
    if not name or not hasattr(make, "published"):
        raise UsageError(
            f"{source}: ENCODER/NAME of a kind with published weights was expected, such as timm/resnet18."
        )
    return {"format": SPEC_FORMAT, "identity": {}, "manipulation": {}, **make.published(name)}


def _published(source: str, offline: bool = False) -> Model:
    spec = published_spec(source)
    spec["encoder"] = {**spec["encoder"], "offline": offline}
    parts = plan(spec)
    actions = space(parts)
    encoder: Encoder = parts.encoder()
    return Model(encoder.eval(), actions, parts.decoder(actions), parts.picture(actions), None, spec)


def at_hand(source: str) -> Model:
    """A published encoder, KIND/NAME, if its weights are on this machine already; UsageError if not."""
    return _published(source, offline=True)


def weights(encoder: Encoder, source: str) -> None:
    """Start `encoder` from the weights of another source, name by name; UsageError if any is missing or misshapen."""
    other = load(source).encoder
    state = {encoder.prefix + n.removeprefix(other.prefix): t for n, t in other.state_dict().items()}
    checkpoint.fill(encoder, state, source)


def _known(spec: Any, source: str) -> dict[str, Any]:
    """A stored spec is data: it must be of our format, plain, and say of the training data what a model needs."""
    if not isinstance(spec, dict) or spec.get("format") != SPEC_FORMAT:
        found = spec.get("format") if isinstance(spec, dict) else type(spec).__name__
        raise UsageError(f"{source}: its description has format {found}, this version reads {SPEC_FORMAT}.")
    known = export.plain(spec)
    facts = checked(_facts, {key: value for key, value in known.items() if key not in Plan._fields}, f"{source}: spec")
    if len({len(size) for size in facts["extents"]}) != 1:
        raise UsageError(f"{source}: spec.extents={facts['extents']!r}: one or more sizes of one length were expected.")
    # The weights are in the source: none are to be fetched from elsewhere.
    encoder = group(known.get("encoder"), "encoder")
    return {**known, **facts, "encoder": {**encoder, **({"pretrained": False} if "pretrained" in encoder else {})}}


def _facts(*, format: int, extents: list[list[int]], classes: list[str], num_classes: int, forward_views: str) -> None:
    """What stands in a stored spec beside the nodes of the parts, and of which types it is."""
