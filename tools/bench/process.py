"""What a measurement asks of its process: a single thread, another process of its own, how much memory it took."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch computes in one thread: several would count their waiting for each other as work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def child(script: Path | str, *words: object, timeout: float = 600) -> Any:
    """What a script, run as a process of its own with one thread, says in the last line that it prints, as JSON."""
    command = [sys.executable, str(script), *map(str, words)]
    # What the process frees, the system has back at once: its memory is what it holds.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        raise RuntimeError(f"{Path(script).name} {' '.join(map(str, words))} ended with {done.returncode}: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def extra_mib(work: Callable[[], object]) -> float:
    """MiB of memory that this process took beyond what it had before, at most, while it worked. (Linux only.)"""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(field: str) -> float:
    """MiB by a line of /proc/self/status, whose unit is kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024
