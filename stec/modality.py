"""What a modality package declares: names, and where the class of each name is found."""

from typing import NamedTuple

API_VERSION = 1
"""Version of the types a modality is written against; a package that declares another one is refused by name."""

KINDS = ("action_space", "encoder", "decoder", "packer", "picture", "example")


class Modality(NamedTuple):
    """parts: {kind: {name: "module:Class"}} with kinds of KINDS. Strings, so that declaring imports nothing."""

    name: str
    api_version: int
    parts: dict[str, dict[str, str]]
