"""tools/window_speed.py: every way is measured against a full decode of its own kind; what it gives is the same."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from stec.actions import Compose
from stec_audio.actions import TemporalWindow
from stec_audio.decode import Window

SCRIPT = Path(__file__).parents[1] / "tools/window_speed.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("window_speed", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_ways_give_the_same_windows(tool):
    space = Compose({"temporal_window": TemporalWindow(size=500)})
    x = np.random.default_rng(0).integers(-3000, 3000, 9000).astype(np.int16)
    ways = tool.ways(Window(space), space, 500, [tool.flac(x), tool.flac(x[::-1].copy())])
    for number in range(4):
        full, *others = (way(number) for way in ways.values())
        for found in others:
            found = found[1] if isinstance(found, tuple) and len(found) == 2 else found
            np.testing.assert_array_equal(np.asarray(found[0] if isinstance(found, tuple) else found).squeeze(), full)


def test_a_measurement_goes_on_until_the_clock_can_tell(tool, monkeypatch):
    calls = []
    monkeypatch.setattr(tool.time, "process_time", lambda: 0.002 * len(calls))
    assert tool.measured(calls.append) == pytest.approx(0.002)
    assert len(calls) * 0.002 >= 0.05
    assert calls == list(range(tool._COUNT)) * (len(calls) // tool._COUNT)


def test_the_table_has_a_row_for_each_way(tool, monkeypatch, capsys, tmp_path):
    x = np.random.default_rng(0).integers(-3000, 3000, 12 * 16_000).astype(np.int16)
    (tmp_path / "a.flac").write_bytes(tool.flac(x))
    (tmp_path / "short.flac").write_bytes(tool.flac(x[:100]))
    monkeypatch.setattr(sys, "argv", ["window_speed.py", str(tmp_path), "--rounds", "1", "--size", "400"])
    assert tool.main() == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0].strip() for row in rows][::3] == ["flac, soundfile full decode", "pcm, soundfile full decode"]
    assert [float(row[3]) for row in rows][::3] == [1.0, 1.0]
    assert len(rows) == 6
    monkeypatch.setattr(sys, "argv", ["window_speed.py", str(tmp_path / "nothing")])
    assert tool.main() == 2
    assert "no FLAC of 12 to 17 seconds" in capsys.readouterr().err
