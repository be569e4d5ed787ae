"""The core stands alone: importing it brings no modality's library, and its sources speak of no modality."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import stec

FOREIGN = (
    "torchvision",
    "torchaudio",
    "PIL",
    "soundfile",
    "hydra",
    "stec_vision",
    "stec_audio",
    "skimage",
)
# Not "picture": that is the kind of part with which any modality, be it of sounds, draws its samples for a report.
WORDS = (
    *("image", "photo", "photograph", "pixel"),
    *("audio", "sound", "acoustic", "waveform", "flac", "wav", "mfcc"),
    *("speech", "speaker", "spoken", "voice", "utterance", "phone", "phoneme", "librispeech"),
)
SOURCES = sorted(p for p in Path(stec.__file__).parent.rglob("*.py") if "recipes" not in p.parts)


def brought_in(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "modules",
    [
        "stec.data, stec.loading, stec.resident, stec.catalogue, stec.identity.simclr, stec.manipulation.binned",
        "stec.training.loop, stec.evaluation.suite, stec.export",
        "stec.testing",
    ],
)
def test_importing_the_core_brings_in_no_modality_and_no_configuration(modules):
    assert brought_in(f"import {modules}") & set(FOREIGN) == set()


def test_the_package_itself_is_light():
    assert brought_in("import stec") & {"torch", "numpy", "omegaconf"} == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(Path(stec.__file__).parent)))
def test_the_core_speaks_of_no_modality(path):
    text = path.read_text(encoding="utf-8")
    text = text.replace("data:image/png", "")  # a word of the web's, in a report's page
    found = re.findall(rf"(?<![a-z])(?:{'|'.join(WORDS)})s?(?![a-z])", text, flags=re.IGNORECASE)
    assert found == []


def test_no_source_file_is_long():
    root = Path(stec.__file__).parents[1]
    files = [*SOURCES, *(root / "modalities").rglob("*.py")]
    lines = {str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: num for path, num in lines.items() if num > 300} == {}
