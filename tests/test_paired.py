"""tools/paired.py: means, paired differences and their intervals, against numbers worked out by hand."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools/paired.py"


@pytest.fixture(scope="module")
def paired():
    spec = importlib.util.spec_from_file_location("paired", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, arm, seed, knn, linear, bits):
    """A finished run, as far as the tool looks."""
    run = folder / arm / f"run-{seed}"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(f"seed: {seed}\n")
    row = {"eval/knn/top1": knn, "eval/linear/top1": linear, "eval/action_bits/xx": bits}
    (run / "table.json").write_text(json.dumps({"rows": {"trained": row, "random": {}}}))


def table(paired, monkeypatch, capsys, folder, *arms):
    """{first cell: the other cells} of what the tool prints."""
    monkeypatch.setattr("sys.argv", ["paired.py", *(f"{arm}={folder}/{arm}/run-*" for arm in arms)])
    assert paired.main() == 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_three_runs_in_closed_form(paired, tmp_path, monkeypatch, capsys):
    """Differences 1, 2 and 3: mean 2, deviation 1, and Student's t of 2 degrees of freedom is 4.302653 at .975."""
    for seed, gain in enumerate((1, 2, 3)):
        write(tmp_path, "plain", seed, 0.5 + 0.1 * seed, 0.7, 1.0)
        write(tmp_path, "stec", seed, 0.5 + 0.1 * seed + 0.01 * gain, 0.7 + 0.01 * gain, 1.0 + gain)
    half = f"{4.302653 / 3**0.5:.2f}"
    assert half == "2.48"
    assert table(paired, monkeypatch, capsys, tmp_path, "plain", "stec") == {
        "arm": ["seeds", "knn", "linear", "action_bits/xx"],
        "---": ["---"] * 4,
        "plain": ["3", "60.00", "70.00", "1.00"],
        "stec": ["3", "62.00", "72.00", "3.00"],
        "stec - plain": ["3 paired", *[f"+2.00 ± {half}"] * 3],
    }


def test_a_seed_that_one_arm_lacks_is_not_paired(paired, tmp_path, monkeypatch, capsys):
    for seed in (0, 1, 2):
        write(tmp_path, "plain", seed, 0.1 * seed, 0.5, 0.0)
    for seed in (2, 1):  # in any order; seed 0 has not finished
        write(tmp_path, "stec", seed, 0.1 * seed + 0.02, 0.5, 0.0)
    (tmp_path / "stec/run-0").mkdir()
    write(tmp_path, "other", 7, 0.9, 0.9, 0.9)
    found = table(paired, monkeypatch, capsys, tmp_path, "plain", "stec", "other")
    assert found["stec"][:2] == ["2", "17.00"]
    assert found["stec - plain"] == ["2 paired", "+2.00 ± 0.00", "+0.00 ± 0.00", "+0.00 ± 0.00"]
    assert found["other"][0] == "1"
    assert "other - plain" not in found


def test_directories_may_be_spelt_out_one_by_one(paired, tmp_path, monkeypatch, capsys):
    """As a shell expands plain=plain/run-{0,1}: an arm that comes again is added to, and none of its runs is lost."""
    for seed in (0, 1):
        write(tmp_path, "plain", seed, 0.1, 0.5, 0.0)
        write(tmp_path, "fast", seed, 0.2, 0.5, 0.0)
    words = [f"{arm}={tmp_path}/{arm}/run-{seed}" for arm in ("plain", "fast") for seed in (0, 1)]
    monkeypatch.setattr("sys.argv", ["paired.py", *words])
    assert paired.main() == 0
    told = capsys.readouterr().out
    assert "| plain | 2 | 10.00 |" in told
    assert "| fast - plain | 2 paired | +10.00 ± 0.00 |" in told


def test_one_pair_has_no_interval(paired):
    assert paired.interval([0.5]) == "+0.50"


def test_an_arm_without_a_finished_run_is_told(paired, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["paired.py", f"plain={tmp_path}/nothing-*"])
    assert paired.main() == 2
    assert "no finished run for the arm plain" in capsys.readouterr().err
