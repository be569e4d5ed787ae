"""A small part of tools/trust/fuzz.py, which tries some 25,000: the same inputs, here in one process."""

import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "tools/trust"))

import fuzz
import kinds
from seeds import planted

from stec.errors import DataError, UsageError

# How many of each kind: as many as take half a second.
FEW = {
    **{
        "tar, indexed": 60,
        "shards, damaged": 30,
        "shards, lying": 40,
        "samples of a shard": 30,
        "CIFAR": 40,
        "npz": 40,
    },
    **{
        "checkpoint, damaged": 8,
        "checkpoint, lying": 8,
        "exported, damaged": 5,
        "exported, lying": 8,
        "config.yaml": 6,
    },
    **{"ledger, table.json, metrics": 12, "table of a report": 8, "words of a command": 4, "phone labels": 40},
    **{f"picture, {name}": 20 for name in ("jpg", "png", "webp", "gif", "bmp", "tiff", "ppm")},
    **{f"sound, {name}": 12 for name in ("wav", "flac", "ogg", "mp3")},
}


@pytest.fixture(scope="module")
def sown(tmp_path_factory):
    seeds = planted(tmp_path_factory.mktemp("seeds"))
    return {kind.name: kind for kind in kinds.kinds(seeds)}


@pytest.mark.parametrize("name", FEW)
def test_every_input_is_read_or_refused(sown, name, tmp_path, monkeypatch):
    kind, ends = sown[name], set()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("STEC_CACHE", str(tmp_path / "cache"))

    @settings(
        max_examples=FEW[name], derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.integers(0, 2**32))
    def enter(seed):
        try:
            with warnings.catch_warnings(action="ignore"):
                found = kinds.enter(kind, seed, 0, fuzz.emptied(tmp_path / "place"))
        except (DataError, UsageError):
            ends.add("refused")
        else:
            ends.add("accepted")
            assert kind.whole in (None, found)

    enter()
    assert "refused" in ends
    assert not list(Path.cwd().iterdir())


def test_all_kinds_are_here(sown):
    assert sown.keys() - FEW.keys() == {"recipe"}  # of which each takes a second
