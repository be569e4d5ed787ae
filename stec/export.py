"""The exported folder: weights under the names that others know, what they are in plain JSON, and a model card.

model.safetensors         the encoder, names without `Encoder.prefix`
manipulation.safetensors  the manipulation models with their fitted bins, if there are any
stec.json                 format, spec (installed names and plain arguments, never an import path), sha256, metrics
README.md                 the model card
"""

import hashlib
import json
import math
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from stec.encoder import Encoder
from stec.errors import UsageError
from stec.model_card import card
from stec.shards.fresh import fresh_folder
from stec.stored import from_json
from stec.whole import write_whole

FORMAT = 2
SPEC_NAME = "stec.json"
WEIGHTS = "model.safetensors"
MANIPULATION = "manipulation.safetensors"
CARD = "README.md"
MOST_VALUES = 1_000_000
"""Values in a description: one of 20,000 classes has some 20,000."""


class Exported(NamedTuple):
    """spec; state of the encoder under foreign names (without its prefix); of the manipulation models, or None."""

    spec: dict[str, Any]
    encoder: dict[str, Tensor]
    manipulation: dict[str, Tensor] | None


def export(
    folder: str | Path,
    spec: Mapping[str, Any],
    encoder: Encoder,
    manipulation: nn.ModuleDict | None = None,
    *,
    metrics: Mapping[str, float] | None = None,
    protocol: Mapping[str, str] | None = None,
    facts: Mapping[str, str] | None = None,
) -> list[str]:
    """Write the folder, whole or not at all; returns the lines that load it (they stand in the card as well).

    metrics {name: value} with protocol {start of the name: in words}, and facts such as {"recipe": ..., "data": ...},
    go into stec.json and the card. An older export in the same place is replaced; UsageError if anything else is there.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / SPEC_NAME).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and is no exported folder: choose another place.")
    described = plain(spec)
    states = {WEIGHTS: _foreign(encoder)}
    if manipulation is not None:
        states[MANIPULATION] = manipulation.state_dict()
    with fresh_folder(folder, replace=True) as new:
        for name, state in states.items():
            # A tensor of its own each: safetensors takes neither shared memory nor strides.
            own = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
            write_whole(new / name, save(own, metadata={"format": "pt"}))
        about = {
            "format": FORMAT,
            "spec": described,
            "sha256": {name: _digest((new / name).read_bytes()) for name in states},
            "metrics": {name: value for name, value in (metrics or {}).items() if math.isfinite(value)},
            "protocol": dict(protocol or {}),
            "facts": dict(facts or {}),
        }
        write_whole(new / SPEC_NAME, f"{json.dumps(about, indent=2, allow_nan=False)}\n".encode())
        name = os.path.basename(os.path.realpath(folder))  # its card names it without the way to it: it may travel
        text = card(name, about, loading_lines(name, encoder), manipulation)
        write_whole(new / CARD, text.encode(errors="replace"))  # the name of a folder need not be text
    return loading_lines(folder, encoder)


def read(folder: str | Path) -> Exported:
    """An exported folder, checked; UsageError in one sentence if a file is missing, damaged or was changed."""
    folder = Path(folder)
    about = describe(folder)
    digests = about.get("sha256")
    if not isinstance(digests, dict) or WEIGHTS not in digests:
        raise UsageError(f"{folder / SPEC_NAME}: it does not say what {WEIGHTS} must contain.")
    manipulation = _load(folder / MANIPULATION, digests[MANIPULATION]) if MANIPULATION in digests else None
    return Exported(about["spec"], _load(folder / WEIGHTS, digests[WEIGHTS]), manipulation)


def describe(folder: str | Path) -> dict[str, Any]:
    """All of stec.json: format, spec, sha256, metrics, protocol, facts. UsageError if it is not one of ours."""
    path = Path(folder) / SPEC_NAME
    try:
        about = from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): this is no exported folder.") from error
    except ValueError as error:
        raise UsageError(f"{path} is damaged: it is not JSON ({error}).") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else None
        raise UsageError(f"{path}: its format is {found}, this version of stec reads {FORMAT}.")
    if not isinstance(about.get("spec"), dict):
        raise UsageError(f"{path}: there is no description of a model (spec) in it.")
    about["spec"] = plain(about["spec"])
    return about


def loading_lines(folder: str | Path, encoder: Encoder) -> list[str]:
    """Lines of Python that load an exported folder: with stec and, where the encoder knows, with other libraries."""
    lines = [
        "from stec import build",
        f"encoder = build.load({str(folder)!r}).encoder  # x: {encoder.takes} -> encoder(x).pooled",
    ]
    others = getattr(encoder, "loading_lines", None)
    return lines + (list(others(str(Path(folder) / WEIGHTS))) if others else [])


def plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a description in plain JSON; UsageError if it holds anything else, a key such as _target_, or far more
    than a description does."""
    try:
        _check(spec, "spec", count())
    except RecursionError:
        raise UsageError("spec: it is nested too deeply.") from None
    copy: dict[str, Any] = json.loads(json.dumps(spec))
    return copy


def _check(value: Any, where: str, counted: Iterator[int]) -> None:
    if next(counted) > MOST_VALUES:  # a list that stands in many places is small only as long as nobody writes it out
        raise UsageError(f"{where}: there are more than {MOST_VALUES:,} values in it.")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str) or key.startswith("_"):
                raise UsageError(
                    f"{where}: the key {reprlib.repr(key)} is not allowed: names of installed parts and arguments only."
                )
            _check(inner, f"{where}.{key}", counted)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for number, inner in enumerate(value):
            _check(inner, f"{where}[{number}]", counted)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UsageError(f"{where}: a number of more than 64 bits is not plain JSON.")
    elif not (
        value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))
    ):
        raise UsageError(f"{where}: {reprlib.repr(value)} is not plain JSON (text, finite numbers, true, false, null).")


def _foreign(encoder: Encoder) -> dict[str, Tensor]:
    """The encoder's state under the names that others know."""
    state = encoder.state_dict()
    if strange := [name for name in state if not name.startswith(encoder.prefix)]:
        raise UsageError(
            f"the encoder's state has {strange[0]!r}, which does not begin with its prefix {encoder.prefix!r}."
        )
    return {name.removeprefix(encoder.prefix): value for name, value in state.items()}


def _load(path: Path, digest: str) -> dict[str, Tensor]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}), but {SPEC_NAME} names it.") from error
    if _digest(raw) != digest:  # a flipped byte of a tensor would load in silence
        raise UsageError(
            f"{path} is damaged or was changed: its sha256 is not the one in {SPEC_NAME}; export it again."
        )
    try:
        return load(raw)
    except (SafetensorError, ValueError, LookupError, RuntimeError) as error:  # of a type or a shape that torch has not
        raise UsageError(f"{path} is not a safetensors file ({error}).") from error


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
