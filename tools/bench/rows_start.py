"""R8: from the command to the first batch, of data as large as ImageNet: anew, and resumed in the middle of an epoch.

The shards are one tar of real JPEGs under 1,300 names (hard links): so the index, its table and the order are those of
1.3 million samples, and the bytes take the room of a thousand. They lie in the system's cache: no disk is timed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from process import child
from row import Options, Outcome, Row, Way

_RECIPE = "imagenet_simclr"


class Job:
    """The training of a small ResNet on shards in a folder, as a command; its first batches are real ones (224 pixels,
    256 samples), unless `small`."""

    def __init__(self, folder: Path, small: bool):
        self.folder = folder
        size, batch = (32, 4) if small else (224, 256)
        self.words = [f"recipe={_RECIPE}", f"data={folder / 'shards'}", f"run_dir={folder / 'run'}", "hardware=cpu"]
        self.words += [f"batch_size={batch}", f"actions.affine_crop.size={size}", "encoder.width=16"]
        self.words += ["encoder.depth=18", "training.epochs=2", "training.warmup_epochs=0"]

    def seconds(self, resumed: bool) -> tuple[float, float]:
        """From the start of the command's process until its first batch is there: on the wall, and of CPU time.
        RuntimeError if it is the first one of an epoch though the command should have `resumed`, or the contrary."""
        begun = time.time()
        there, worked, step = child(__file__, *self.words)
        if resumed != (step > 0):
            raise RuntimeError(f"the command began at step {step} of an epoch: {'not ' * resumed}resumed")
        return there - begun, worked

    def halfway(self) -> None:
        """Leave a checkpoint of the middle of the first epoch: that of the first step, said to be a later one."""
        from stec.training import checkpoint

        command = [sys.executable, "-m", "stec.cli.train", *self.words, "training.stop_after=1"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise RuntimeError(f"stec-train ended with {done.returncode}: {(done.stderr.split() or ['no word'])[-1]}")
        first = checkpoint.latest(self.folder / "run/checkpoints")
        assert first is not None
        state = checkpoint.load(first)
        index = json.loads((self.folder / "shards/train/index.json").read_text())
        step = index["num_samples"] // int(state["data"]["batch_size"]) // 2
        checkpoint.save(first.with_name(checkpoint.name(step)), {**state, "step": step})


@contextmanager
def job(options: Options) -> Iterator[Job]:
    from splits import photographs, shards  # what the child does not need: imports are timed

    with tempfile.TemporaryDirectory() as folder:
        num_tars, each = (3, 8) if options.small else (1300, 1000)
        shards(Path(folder) / "shards", num_tars, photographs(each))
        yield Job(Path(folder), options.small)


def _outcome(started: Job, options: Options, resumed: bool) -> Outcome:
    wall, worked = zip(*(started.seconds(resumed) for _ in range(min(options.rounds, 3))), strict=True)
    ways = [Way("to the first batch", "s (wall)", wall), Way("to the first batch", "s (CPU)", worked)]
    return Outcome(wall, ways, "imports (torch, torchvision, timm) and a batch decoded")


def anew(options: Options) -> Outcome:
    with job(options) as started:
        return _outcome(started, options, False)


def resumed(options: Options) -> Outcome:
    with job(options) as started:
        started.halfway()
        return _outcome(started, options, True)


ROWS = [
    Row(
        "R8",
        "stec-train, 1.3 M samples, files in the system's cache, index already written: seconds from the command to the"
        " first batch",
        10,
        None,
        anew,
        most=True,
    ),
    Row("R8b", "the same, resumed in the middle of an epoch", 10, None, resumed, most=True),
]


def _main(words: list[str]) -> None:
    """The child's part: the command, left with the time of day as soon as its first batch is there."""
    from stec import loading
    from stec.cli.train import main

    batches = loading.Stream.batches

    def first(self: Any, epoch: int, first: int = 0) -> Iterator[Any]:
        next(batches(self, epoch, first))
        print("\n" + json.dumps([time.time(), time.process_time(), first]), flush=True)
        os._exit(0)

    loading.Stream.batches = first  # type: ignore[method-assign]
    main(words)


if __name__ == "__main__":
    _main(sys.argv[1:])
