"""hardware.deterministic: runs repeat themselves, or it is said why they cannot; afterwards all is as before."""

import os
from functools import partial

import pytest
import torch
from tiny_run import TINY, draw, metrics, same, weights

from stec.cli.train import main
from stec.errors import UsageError
from stec.training.deterministic import deterministic
from stec.training.options import Hardware

PLAIN = ["evaluation.raw_input=false", "evaluation.knn=null", "evaluation.linear=null", "evaluation.action=null"]
KEPT = "CUBLAS_WORKSPACE_CONFIG"


def state():
    cudnn = torch.backends.cudnn
    return torch.get_deterministic_debug_mode(), cudnn.deterministic, cudnn.benchmark, os.environ.get(KEPT)


def shaky():
    """An operation that torch has no deterministic form of, on a CPU either."""
    torch.zeros(2).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("workspace", [None, ":0:0", ":16:8"])
def test_it_holds_inside_and_everything_is_as_before_outside(monkeypatch, workspace):
    monkeypatch.delenv(KEPT, raising=False)
    if workspace is not None:
        monkeypatch.setenv(KEPT, workspace)
    before = state()
    with deterministic(True):
        assert state() == (2, True, False, ":16:8" if workspace == ":16:8" else ":4096:8")
    assert state() == before
    with deterministic(False):
        assert state() == before
        shaky()
    with pytest.raises(UsageError, match=r"hardware.deterministic=true cannot be kept: put_"), deterministic(True):
        shaky()
    with pytest.raises(RuntimeError, match="another"), deterministic(True):
        raise RuntimeError("another one")
    assert state() == before


def test_the_first_lines_say_so():
    machine = partial(Hardware, device="cpu", precision="fp32", num_workers=0)
    assert "deterministic" in machine(deterministic=True).describe()
    assert "deterministic" not in machine().describe()


@pytest.mark.slow
def test_runs_repeat_themselves_with_it_and_without(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEC_CACHE", "cache")
    draw(tmp_path / "pictures")
    for name in ("plain", "again", "asked"):
        asked = [f"hardware.deterministic={str(name == 'asked').lower()}"]
        assert main([*TINY, *PLAIN, "training.epochs=1", "data=pictures", f"run_dir={name}", *asked]) == 0
    assert "deterministic" in (tmp_path / "asked" / "train.log").read_text()
    for name in ("again", "asked"):
        assert same(weights(tmp_path / "plain"), weights(tmp_path / name))
        assert metrics(tmp_path / "plain") == metrics(tmp_path / name)
