"""Names -> classes: the core's own and those of installed modalities, imported only when a name is asked for.

A modality is a distribution with an entry point in the group `stec.modalities` that leads to a `Modality`. A name of
the core is answered without looking further; for any other name the declarations (not the classes) of the modalities
are imported.
"""

import difflib
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from stec.errors import UsageError
from stec.modality import API_VERSION, KINDS, Modality

GROUP = "stec.modalities"

CORE: dict[str, dict[str, str]] = {
    "identity": {
        "simclr": "stec.identity.simclr:SimCLR",
        "relic": "stec.identity.relic:ReLIC",
        "relicv2": "stec.identity.relicv2:ReLICv2",
        "byol": "stec.identity.byol:BYOL",
        "simsiam": "stec.identity.simsiam:SimSiam",
        "vicreg": "stec.identity.vicreg:VICReg",
        "barlow": "stec.identity.barlow:BarlowTwins",
        "moco": "stec.identity.moco:MoCo",
        "swav": "stec.identity.swav:SwAV",
        "lejepa": "stec.identity.lejepa:LeJEPA",
        "cpc": "stec.identity.cpc:CPC",
        "time_insensitive": "stec.identity.time_insensitive:TimeInsensitive",
    },
    "manipulation": {
        "binned": "stec.manipulation.binned:Binned",
        "regression": "stec.manipulation.regression:Regression",
        "augself": "stec.manipulation.augself:AugSelf",
        "rotation": "stec.manipulation.rotation:Rotation",
        "forward_model": "stec.manipulation.forward_model:ForwardModel",
        "frame_offset": "stec.manipulation.frame_offset:FrameOffset",
    },
}


class Installed(NamedTuple):
    """A modality that can be read, and the distribution that brings it."""

    distribution: str
    modality: Modality


class Entry(NamedTuple):
    """Where the class of a name is ("module:Class") and which distribution says so."""

    target: str
    distribution: str


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error sentence: the nearest of `names`, if any is near, and all of them."""
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}There is: {', '.join(known) or 'nothing'}."


def find(kind: str, name: str) -> type[Any]:
    """The class called `name` among the `kind`s; UsageError with the nearest name if there is none."""
    if name in CORE.get(kind, {}):
        return load(kind, name, Entry(CORE[kind][name], "stec"))
    known, broken = _declared(kind)
    if name not in known:
        unread = "".join(f" Not readable: {sentence}" for sentence in broken)
        raise UsageError(f"{kind}={name!r} is unknown: {nearest(name, known)}{unread}")
    return load(kind, name, known[name])


def names(kind: str) -> tuple[str, ...]:
    """All names of a kind, sorted; a modality that cannot be imported has none."""
    return tuple(sorted(_declared(kind)[0]))


def installed() -> tuple[list[Installed], list[str]]:
    """All modalities that can be read, and a sentence for each that cannot."""
    found, broken = [], []
    for point in _installed():
        try:
            found.append(Installed(_owner(point), _read(point)))
        except UsageError as error:
            broken.append(str(error))
    return found, broken


def load(kind: str, name: str, entry: Entry) -> type[Any]:
    """Import the class of an entry; UsageError names the distribution whose fault it is."""
    module, _, attribute = entry.target.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (Exception, SystemExit) as error:  # a stranger's module may do anything on import
        raise UsageError(
            f"{kind}={name!r} of {entry.distribution} cannot be imported from {entry.target}:"
            f" {type(error).__name__}: {error}."
        ) from error
    if not isinstance(found, type):
        raise UsageError(f"{kind}={name!r} of {entry.distribution} is not a class: {entry.target}.")
    return found


def _declared(kind: str) -> tuple[dict[str, Entry], list[str]]:
    """Everything called a `kind`, and a sentence for each modality that could not be read."""
    if kind not in (*CORE, *KINDS):
        raise UsageError(f"there is no kind {kind!r} of part: {nearest(kind, (*CORE, *KINDS))}")
    known = {name: Entry(target, "stec") for name, target in CORE.get(kind, {}).items()}
    found, broken = installed()
    for owner, modality in found:
        for name, target in modality.parts.get(kind, {}).items():
            if name in known:
                raise UsageError(
                    f"{kind}={name!r} is declared by both {known[name].distribution} and {owner}: uninstall one."
                )
            known[name] = Entry(target, owner)
    return known, broken


def _installed() -> list[EntryPoint]:
    """The entry points of all modalities, from metadata alone; one found twice on the path counts once."""
    points = {(point.name, point.value, _owner(point)): point for point in entry_points(group=GROUP)}
    return [points[key] for key in sorted(points)]


def _owner(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed distribution"


def _read(point: EntryPoint) -> Modality:
    """Import the declaration of a modality; UsageError if it fails or was written for other types."""
    try:
        modality = point.load()
    except (Exception, SystemExit) as error:  # whatever a stranger's module does must not take the others down
        raise UsageError(
            f"{point.value} of {_owner(point)} failed on import: {type(error).__name__}: {error}."
        ) from error
    if not isinstance(modality, Modality):
        raise UsageError(
            f"{point.value} of {_owner(point)} is a {type(modality).__name__}, not a stec.modality.Modality."
        )
    if modality.api_version != API_VERSION:
        raise UsageError(
            f"{point.value} of {_owner(point)} is written for api_version {modality.api_version}, not {API_VERSION}."
        )
    if strange := sorted(modality.parts.keys() - set(KINDS)):
        raise UsageError(f"{point.value} of {_owner(point)} declares {strange[0]!r}: {nearest(strange[0], KINDS)}")
    return modality
