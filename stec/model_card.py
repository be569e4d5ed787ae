"""The model card of an exported folder: what it is, what it scored by which protocol, and the lines that load it."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from stec.actions import Component


def card(name: str, about: Mapping[str, Any], lines: Sequence[str], manipulation: nn.ModuleDict | None) -> str:
    """Markdown from the content of stec.json, the loading lines and the manipulation models (for their components)."""
    spec = about["spec"]
    sections = [
        f"---\nlibrary_name: stec\ntags: [self-supervised, feature-extraction]\n---\n\n# {name}\n",
        "An encoder trained without labels by `stec` (self-supervised learning through efference copies: is it the "
        f"same thing, and what was done to it?){_origin(about)}.\n",
        "| | |\n|---|---|\n" + "\n".join(f"| {key} | {_cell(value)} |" for key, value in _facts(about).items()) + "\n",
        "## Load it\n\n```python\n" + "\n".join(lines) + "\n```\n",
    ]
    # A model of what lies within one sample has none.
    components = [c for term in (manipulation or {}).values() for c in getattr(term, "components", ())]
    if components:
        sections.append(_actions(components, spec))
    if about["metrics"]:
        sections.append(_metrics(about["metrics"], about["protocol"]))
    sections.append(
        "## Licence and limits\n\nThe code that made these weights is under Apache-2.0. They were computed from the "
        "data named above: whoever passes them on must respect the terms of that data. They know what that data shows, "
        "with its gaps and biases; measure them on your own task before you rely on them.\n"
    )
    return "\n".join(sections)


def _origin(about: Mapping[str, Any]) -> str:
    """Said if the training did not begin with random weights: they may have seen labels, and have a licence."""
    source = about["facts"].get("started from")
    if source is None and about["spec"]["encoder"].get("pretrained"):
        source = f"the published weights of {about['spec']['encoder'].get('model', 'its encoder')}"
    return "" if source is None else f", starting from {source}, whose training data and licence count as well"


def _facts(about: Mapping[str, Any]) -> dict[str, str]:
    spec = about["spec"]
    parts = {"encoder": _part(spec["encoder"])}
    parts |= {kind: _terms(spec[kind]) for kind in ("identity", "manipulation") if spec.get(kind)}
    if isinstance(spec.get("actions"), dict):
        parts["actions"] = ", ".join(spec["actions"])
    files = {f"sha256 of {name}": digest for name, digest in about["sha256"].items()}
    return {**{str(k): str(v) for k, v in about["facts"].items()}, **parts, **files}


def _part(node: Mapping[str, Any]) -> str:
    options = ", ".join(
        f"{key} {value}" for key, value in node.items() if key != "name" and value not in (None, [], "")
    )
    return f"{node.get('name', '?')} ({options})" if options else str(node.get("name", "?"))


def _terms(nodes: Mapping[str, Any]) -> str:
    return ", ".join(_part({"name": name, **node}) for name, node in nodes.items() if node is not None)


def _actions(components: Sequence[Component], spec: Mapping[str, Any]) -> str:
    listed = "\n".join(f"* `{c.name}` in {c.unit}" for c in components)
    source = f"`manipulation.safetensors` ({_terms(spec['manipulation'])})" if "manipulation" in spec else "It"
    text = (
        f"{source} answers q(action | x, x'): what was done between two views. It gives a probability for each bin of:"
    )
    return f"## What was done?\n\n{text}\n\n{listed}\n"


def _metrics(metrics: Mapping[str, float], protocol: Mapping[str, str]) -> str:
    rows = "\n".join(f"| `{name}` | {value:.4g} |" for name, value in sorted(metrics.items()))
    how = "\n".join(f"* `{start}`: {words}" for start, words in protocol.items())
    return f"## Measured\n\n| metric | value |\n|---|---|\n{rows}\n\n{how}\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
