"""Deaths in the middle of a write, and what a run looks like that died; for `before=` of a command."""

import io
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import torch
from tiny_run import metrics

from stec.report import page
from stec.shards import index, writer
from stec.training import checkpoint, records, run
from stec.training.run import Run
from stec.views import Batch
from stec.whole import write_whole


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def torn(path: Path, data: bytes) -> None:
    """Half of it, and then no more."""
    path.write_bytes(data[: len(data) // 2])
    die()


def dies_writing(what: str, time_of_it: int) -> None:
    """The process is killed in the middle of its first (second, ...) write of a file of a run; the others are not."""
    if os.environ.get("RANK", "0") != "0":
        return
    left = [time_of_it]

    def due(name: str) -> bool:
        left[0] -= name == what or (what == "checkpoint" and name.endswith(".ckpt"))
        return left[0] == 0

    def whole(path: Path, data: Any, kept: Any = write_whole) -> None:
        if due(path.name):
            buffer = io.BytesIO()
            data(buffer) if callable(data) else buffer.write(data)
            torn(path.with_name(f".{path.name}.{os.getpid()}.tmp"), buffer.getvalue())
        kept(path, data)

    def line(path: Path, data: bytes, kept: Any = records.append) -> None:
        if due(path.name):
            kept(path, data[: len(data) // 2])
            die()
        kept(path, data)

    def replace(source: Any, target: Any, kept: Any = os.replace) -> None:
        if Path(target).name == "last" and due("last"):
            die()
        kept(source, target)

    for module in (checkpoint, run, page):
        module.write_whole = whole  # type: ignore[attr-defined]
    records.append, os.replace = line, replace  # type: ignore[assignment]


def dies_packing(what: str) -> None:
    """Killed in the middle of the second tar, or of the index."""
    done = [0]

    def tar(path: Path, samples: Any, kept: Any = writer._write_tar) -> None:
        kept(path, samples)
        done[0] += 1
        if what == "tar" and done[0] == 2:
            os.truncate(path, path.stat().st_size // 2)
            die()

    def whole(path: Path, data: bytes, kept: Any = write_whole) -> None:
        if what == path.name:
            torn(path.with_name(f".{path.name}.{os.getpid()}.tmp"), bytes(data))
        kept(path, data)

    writer._write_tar, index.write_whole = tar, whole  # type: ignore[assignment]


def notes_keys() -> None:
    """The keys of each step's samples, of this rank, go to keys.jsonl beside the run directory's metrics."""
    seen: list[Run] = []
    start, to = Run.start, Batch.to

    def started(run: Run, total: int) -> None:
        seen.append(run)
        start(run, total)

    def moved(batch: Batch, device: Any) -> Batch:
        if seen:
            row = [seen[0].step + 1, int(os.environ.get("RANK", "0")), batch.keys.tolist()]
            with open(seen[0].directory / "keys.jsonl", "a") as file:
                file.write(json.dumps(row) + "\n")
        return to(batch, device)

    Run.start, Batch.to = started, moved  # type: ignore[method-assign]


def order(run: Path) -> dict[int, list[list[int]]]:
    """{step: the keys of its samples, over all ranks}, as noted."""
    rows = [json.loads(line) for line in (run / "keys.jsonl").read_text().splitlines()]
    return {step: [key for s, _, keys in sorted(rows) if s == step for key in keys] for step, _, _ in rows}


def unfinished(whole: Path, run: Path) -> Path:
    """A finished run as it was some steps before: as if it had been killed then."""
    shutil.copytree(whole, run, symlinks=True)
    for name in ("finished", "report.html", "table.json", "keys.jsonl"):
        (run / name).unlink(missing_ok=True)
    before, last = checkpoint.stored(run / "checkpoints")
    last.unlink()
    (run / "checkpoints" / "last").unlink()
    (run / "checkpoints" / "last").symlink_to(before.name)
    return run


def equal(one: Any, other: Any) -> bool:
    """Is all of two checkpoints the same, to the bit? (Their files need not be: pickle writes what is shared once.)"""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.equal(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def difference(one: Path, other: Path) -> str:
    """What of two finished runs is not equal, to the bit; empty if nothing is."""
    folders = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in (one, other)]
    if folders[0] != folders[1]:
        return f"checkpoints {folders[0]} and {folders[1]}"
    told = ["metrics.jsonl"] * (metrics(one) != metrics(other))
    told += ["last"] * (not equal(*(checkpoint.load(run / "checkpoints" / "last") for run in (one, other))))
    told += [f"left over: {path.name}" for path in other.rglob(".*") if path.suffix in (".tmp", ".part")]
    return ", ".join(told + [f"no {n}" for n in ("finished", "report.html", "table.json") if not (other / n).is_file()])
