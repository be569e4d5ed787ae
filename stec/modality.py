"""What a modality package declares: names, and where the class of each name is found."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

API_VERSION = 1
"""Version of the types a modality is written against; a package that declares another one is refused by name."""

KINDS = ("action_space", "encoder", "decoder", "packer", "picture", "probe", "example")


class Modality(NamedTuple):
    """parts: {kind: {name: "module:Class"}} with kinds of KINDS. Strings, so that declaring imports nothing."""

    name: str
    api_version: int
    parts: dict[str, dict[str, str]]


class Example(Protocol):
    """The part of kind "example": a few small samples made from nothing, so that `stec.testing` needs no data.

    It is made without arguments, has the face of a packer (one class may be both), and tells with which options the
    parts of its modality are to be checked: {kind: {name: {keyword: value}}}. Those it does not name take their
    defaults. All action spaces are composed in the order in which they are declared.
    """

    @property
    def splits(self) -> tuple[str, ...]: ...

    @property
    def options(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]: ...

    def samples(self, split: str) -> Iterator[dict[str, Any]]:
        """{"__key__": str, extension: bytes, ...}: the same ones at each call, at least 4."""

    def meta(self, split: str) -> dict[str, Any]:
        """What JSON can hold of a split, such as {"classes": [...]}."""
