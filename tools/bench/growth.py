"""How the cost grows: with samples in the index, with the batch, with loading processes, with ranks.

    python tools/bench/growth.py [FOLDER] [--small]

Writes FOLDER/growth.png (docs/ without one) and prints what the curves say. Times of the index and of a batch are CPU
times of one thread; those of processes and ranks are on the wall, and the cores of this machine are all they have.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from clock import interleaved
from process import child, extra_mib, one_thread
from row import Options
from rows_loading import seconds
from rows_loss import embeddings, forth_and_back, ours
from rows_step import images, piece
from splits import photographs, shards

from stec.actions import Compose
from stec.cores import cores
from stec.loading import Stream
from stec.shards.order import epoch_order
from stec.shards.reader import open_shards
from stec.training.options import Hardware
from stec_vision.actions import AffineCrop
from stec_vision.decode import ImageCrop
from stec_vision.encoders import ResNet


class Curve(NamedTuple):
    """lines: {what: a value for each x}; log: both axes are logarithmic; told: what it says, in a sentence."""

    title: str
    x: str
    y: str
    places: Sequence[float]
    lines: Mapping[str, Sequence[float]]
    log: bool
    told: str


def index(options: Options) -> list[Curve]:
    """Opening a split and putting an epoch in order, of 10^4 to 10^7 samples, each in a process of its own."""
    sizes = [1_000, 2_000] if options.small else [10**4, 10**5, 10**6, 10**7]
    found: dict[int, dict[str, float]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            begun = time.process_time()
            shards(Path(folder), size // 1000, [{"__key__": f"{i:04d}", "txt": b"x"} for i in range(1000)])
            written = time.process_time() - begun
            found[size] = child(__file__, "index", folder) | {"write": written}
    last = {name: value / sizes[-1] for name, value in found[sizes[-1]].items()}
    billion = (
        f"Of each sample of {sizes[-1]:,}: {1e9 * last['open']:.2g} ns to open the split (its table is mapped, not"
        f" read), {1e9 * last['order']:.0f} ns and at most {2**20 * last['mib']:.0f} bytes to put an epoch in order."
        f" A billion samples, at the same rate (extrapolated): {1e9 * last['open']:.1g} s to open,"
        f" {1e9 * last['order'] / 60:.0f} minutes and {1e9 * last['mib'] / 1024:.0f} GiB in each rank at every epoch."
    )
    lines = {name: [found[size][key] for size in sizes] for name, key in _TIMES.items()}
    memory = {"order of an epoch": [found[size]["mib"] for size in sizes]}
    return [
        Curve("Samples: time", "samples", "s of CPU", sizes, lines, True, billion),
        Curve("Samples: memory", "samples", "MiB at most", sizes, memory, True, ""),
    ]


_TIMES = {"write the index": "write", "open": "open", "order of an epoch": "order"}


def _index(folder: str) -> dict[str, float]:
    """The child's part."""

    def seconds(work: Any) -> float:
        begun = time.process_time()
        work()
        return time.process_time() - begun

    opened = min(seconds(partial(open_shards, Path(folder) / "train")) for _ in range(3))
    sizes = open_shards(Path(folder) / "train").shard_sizes
    order = partial(epoch_order, sizes, seed=0, epoch=0, window=8)
    return {"open": opened, "mib": extra_mib(order), "order": min(seconds(order) for _ in range(2))}


def batch(options: Options) -> Curve:
    """A training step of a small ResNet, and NT-Xent alone, for one pair of the batch."""
    sizes = [4, 8] if options.small else [32, 64, 128, 256, 512, 1024]
    encoder = partial(ResNet, depth=18, stem="stl", width=4)
    with one_thread():
        hardware = Hardware(device="cpu", precision="fp32")
        steps: Any = {size: piece(images(encoder(), size, 32, hidden=64), hardware) for size in sizes}
        losses: Any = {size: partial(forth_and_back, ours, *embeddings(size)) for size in sizes}
        rounds = 1 if options.small else 3
        least = 0.0 if options.small else 0.1
        each = {name: interleaved(ways, rounds, least=least) for name, ways in (("step", steps), ("loss", losses))}
    lines = {name: [1e6 * min(each[key][size]) / size for size in sizes] for name, key in _STEPS.items()}
    step, loss = lines.values()
    told = (
        f"A pair of a batch of {sizes[-1]} costs {step[-1] / step[0]:.2f} times one of a batch of {sizes[0]};"
        f" of NT-Xent alone, which compares each with all, {loss[-1] / loss[0]:.1f} times."
    )
    return Curve("Batch size", "pairs in a batch", "us of CPU for a pair", sizes, lines, True, told)


_STEPS = {"training step, small ResNet": "step", "NT-Xent alone, 128 wide": "loss"}


def workers(options: Options) -> Curve:
    """Batches of crops from JPEG shards, once they flow."""
    numbers = [0, 1] if options.small else [0, 1, 2, 4]
    size, timed = (2, 2) if options.small else (32, 16)
    space = Compose({"affine_crop": AffineCrop(size=32 if options.small else 224)})
    rates: list[float] = []
    with one_thread(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more processes than cores: that is asked
        shards(Path(folder), 1, photographs(size * (timed + 4 * max(numbers))))
        source = open_shards(Path(folder) / "train")
        for number in numbers:
            stream = Stream(source, ImageCrop(space), space, batch_size=size, num_workers=number)
            rates.append(size / seconds(stream.batches(0), max(1, number), timed))
    told = f"{cores()} cores here: {max(rates) / rates[0]:.1f} times the rate of no loading process at best."
    return Curve("Loading processes", "processes", "samples/s", numbers, {"crops of 224, 2 views": rates}, False, told)


def ranks(options: Options) -> Curve:
    """Samples per second of a training step, the same global batch shared by 1 and by 2 ranks (gloo)."""
    size = 4 if options.small else 128
    rates = []
    for number in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
        command += [__file__, "rank", str(size)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        if done.returncode:
            raise RuntimeError(f"{number} ranks: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
        rates.append(json.loads(done.stdout.strip().splitlines()[-1]))
    told = f"2 ranks, which share {cores()} cores, are {rates[1] / rates[0]:.2f} times as fast as 1."
    return Curve("Ranks (gloo)", "ranks", "samples/s", (1, 2), {f"batch of {size} in all": rates}, False, told)


def _rank(size: int) -> float | None:
    """The child's part: samples/s, from the first rank."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    task = images(ResNet(depth=18, stem="stl", width=8), size // dist.get_world_size(), 32)
    step = piece(task, Hardware(device="cpu", precision="fp32"))
    rates = []
    for _ in range(4):
        dist.barrier()
        begun = time.perf_counter()
        for _ in range(3):
            step()
        rates.append(3 * size / (time.perf_counter() - begun))
    first = dist.get_rank() == 0
    dist.destroy_process_group()
    return max(rates[1:]) if first else None


def main(options: Options, folder: Path) -> list[str]:
    """Measure, plot into folder/growth.png, and say what the curves say in lines of Markdown."""
    curves = [*index(options), batch(options), workers(options), ranks(options)]
    plot(curves, folder / "growth.png")
    return ["![How the cost grows](growth.png)", "", *(f"* {c.title}. {c.told}" for c in curves if c.told)]


def plot(curves: Sequence[Curve], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    axes = figure.subplots(2, 3)
    for axis, curve in zip(axes.flat, curves, strict=False):
        for (name, values), mark in zip(curve.lines.items(), "os^", strict=False):
            axis.plot(curve.places, values, mark + "-", markersize=4, linewidth=1.2, label=name)
        axis.set(title=curve.title, xlabel=curve.x, ylabel=curve.y)
        if curve.log:
            axis.set(xscale="log", yscale="log")
        else:
            axis.set_ylim(bottom=0)
        if curve.places[-1] < 10_000:  # larger numbers are read better as powers
            axis.set_xticks(curve.places, [str(place) for place in curve.places])
            axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7, frameon=False)
    for axis in axes.flat[len(curves) :]:
        axis.remove()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _command() -> None:
    parser = argparse.ArgumentParser("tools/bench/growth.py", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[2] / "docs")
    parser.add_argument("--small", action="store_true", help="little data: does it work?")
    given = parser.parse_args()
    print("\n".join(main(Options(small=given.small), given.folder)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["index"]:
        print(json.dumps(_index(sys.argv[2])))
    elif sys.argv[1:2] == ["rank"]:
        if (rate := _rank(int(sys.argv[2]))) is not None:
            print(json.dumps(rate))
    else:
        _command()
