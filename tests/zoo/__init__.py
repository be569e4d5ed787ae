"""A small modality that keeps its contract, and creatures that each break it in one way."""

from stec.modality import Modality

_GOOD = {
    "action_space": "Level",
    "decoder": "Plain",
    "encoder": "Look",
    "probe": "Labels",
    "picture": "Drawn",
    "packer": "Few",
    "example": "Few",
}
_MODULES = {"action_space": "spaces", "decoder": "decoders", "encoder": "encoders"}


def modality(**other: str) -> Modality:
    """The good parts, but for those named: {kind: class}."""
    parts = (_GOOD | other).items()
    return Modality("zoo", 1, {k: {"one": f"zoo.{_MODULES.get(k, 'others')}:{name}"} for k, name in parts})
