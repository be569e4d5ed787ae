"""Our modalities keep the contract that other people's are held to; and so do variants that no example names."""

import pytest

import stec_audio
import stec_vision
from stec.catalogue import Installed
from stec.testing import laws, spaces
from stec.testing.bench import Bench
from stec.testing.contract import all_cases
from stec.testing.fault import Skip

OURS = {m.name: Bench(Installed("stec", m)) for m in (stec_vision.MODALITY, stec_audio.MODALITY)}
CASES = {f"{name}, {case}": case for name, bench in OURS.items() for case in all_cases(bench)}
# What may be skipped: another device, a nuisance's prediction, and what an encoder does not have.
KNOWN = (
    "no GPU",
    "nuisance",
    "gives no sequence",
    "gives no local frames",
    "no parameters to learn",
    "performs nothing",
)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_contract(case):
    try:
        case()
    except Skip as reason:
        # The group law is known for windows only; that of quarter turns has a test of its own.
        known = (*KNOWN, "no law is known") if "quarter_turn" in case.part else KNOWN
        assert any(words in str(reason) for words in known)  # noqa: PT017


# Not the frame "published": in it the way from a window to itself depends on the window, as in the authors' release.
VARIANTS = [
    ("vision", "affine_crop", {"size": 20, "rotation": 0.5, "shear": 0.3}),
    ("vision", "affine_crop", {"size": 20, "require_overlap": True, "scale": [0.08, 0.2]}),
    ("vision", "affine_crop", {"size": 20, "frame": "allocentric"}),
    ("audio", "temporal_window", {"size": 2400}),
    ("audio", "temporal_window", {"size": 2400, "max_offset": 1.0}),
    ("audio", "temporal_window", {"size": 2400, "frame": "allocentric"}),
]


@pytest.mark.parametrize(("name", "part", "options"), VARIANTS, ids=[f"{p} {list(o)[1:]}" for _, p, o in VARIANTS])
def test_variants_of_an_action_space(name, part, options):
    extents, x = OURS[name].before(part)
    space = type(OURS[name].part("action_space", part))(**options)
    for check in (*spaces.CHECKS, *laws.CHECKS):
        try:
            check(spaces.Space(space, extents, x))
        except Skip:
            assert options.get("frame", "ego") != "ego" or check is spaces.on_a_gpu
