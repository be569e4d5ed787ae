"""What a measurement asks of its process is what it gets: one thread, another process, how much memory was taken."""

import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[2] / "tools/bench"
sys.path.insert(0, str(BENCH))

import process  # noqa: E402


def test_one_thread_is_given_back():
    torch.set_num_threads(2)
    with process.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_memory_is_what_was_taken_on_the_way(tmp_path):
    """In a process of its own, as the rows do it: this one may have memory left over from before."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(BENCH)!r})\nimport numpy as np\nfrom process import extra_mib\n"
        "kept = np.ones(2**20)\n"
        "print([extra_mib(lambda: np.ones(2**23).sum()), extra_mib(lambda: kept.sum())])\n"
    )
    taken, nothing = process.child(script)
    assert taken == pytest.approx(64, abs=8)
    assert nothing < 4


def test_a_child_tells_its_last_line_or_why_it_failed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint('noise')\nprint([1, float(sys.argv[1])])\n")
    assert process.child(script, 2) == [1, 2.0]
    with pytest.raises(RuntimeError, match=r"script.py two ended with 1: ValueError"):
        process.child(script, "two")
