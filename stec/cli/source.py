"""What the words after `stec-eval` name: a source and the configuration of its run, its data, and key=value pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stec import build
from stec.build import Model
from stec.data import Dataset, Splits, open_data
from stec.errors import UsageError
from stec.measure import Begun, projector
from stec.nodes import checked, group
from stec.stored import configuration


def keys_of(words: list[str]) -> dict[str, Any]:
    """key=value words as a nested mapping; a path is taken as it is written."""
    for word in words:
        if "=" not in word:
            raise UsageError(f"{word!r} is not of the form key=value.")
    plain = {key: value for key, _, value in (word.partition("=") for word in words) if key in ("data", "packer")}
    rest = [word for word in words if word.partition("=")[0] not in plain]
    try:
        nested = OmegaConf.to_container(OmegaConf.from_dotlist(rest), resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{' '.join(rest)} is not readable as key=value: {str(error).splitlines()[0]}") from error
    assert isinstance(nested, dict)
    return {**{str(key): value for key, value in nested.items()}, **plain}


def config_of(source: str) -> dict[str, Any] | None:
    """The configuration of the run that a directory or checkpoint belongs to, if it does."""
    path = Path(source)
    file = (path if path.is_dir() else path.parent.parent) / "config.yaml"
    if not path.exists() or not file.is_file():
        return None
    found = configuration(file)
    if not isinstance(found.get("dataset"), dict) or not isinstance(found.get("data"), str | None):
        raise UsageError(f"{file} is not the configuration of a run.")
    return found


def data_of(config: Mapping[str, Any] | None, data: str | None, packer: str | None) -> tuple[Splits, float]:
    """What is measured on, and the share of damaged samples that is put up with."""
    if config is None and data is None:
        raise UsageError("data=PATH is needed: this source does not say what it was trained on.")
    dataset, node = Dataset(name="evaluation", needs_data=True), {"name": packer}
    if config is not None:
        own = {k: v for k, v in config["dataset"].items() if k not in ("packer", "decoder", "picture")}
        dataset = Dataset(**checked(Dataset, own, "dataset"))
        node = dict(group(config["dataset"].get("packer"), "dataset.packer")) if packer is None else node
        data = data if data is not None else _nearby(config.get("data"))
    if node.get("name") is None:

        def nobody(source: str) -> Any:
            raise UsageError(f"data={source} holds no shards: say who reads it with packer=NAME.")

        return open_data(dataset, data, nobody, {"name": "evaluation"}), dataset.max_bad
    chosen = build.part("packer", node, "packer")
    return open_data(dataset, data, chosen, chosen.described()), dataset.max_bad


def _nearby(data: str | None) -> str | None:
    """Where a run says that its data are; UsageError for what only the user may ask to be fetched."""
    if data is not None and "://" in data:
        raise UsageError(
            "this run learnt from data on a network: they are fetched if you say data=..., not if a file does."
        )
    return data


def untrained(model: Model) -> Begun:
    """The same network with weights drawn anew."""
    node = dict(model.spec["encoder"])
    node |= {"pretrained": False} if "pretrained" in node else {}
    spec = {**model.spec, "encoder": node}
    torch.manual_seed(0)
    if model.stec is None:
        return Begun("untrained", build.plan(spec).encoder(), None)
    fresh = build.model(spec)
    return Begun("untrained", fresh.encoder, projector(fresh.stec))


def fingerprints(splits: Splits) -> dict[str, str]:
    named = {"train": splits.labelled, "test": splits.test}
    return {name: shards.fingerprint for name, shards in named.items() if shards is not None}
