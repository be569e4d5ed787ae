"""R2: from shards on disk to batches of two views at 224, through loading processes: what a training loop waits for."""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import ours
import webdataset
from peers import Twice, transform_v1
from pictures import jpegs
from process import one_thread
from row import Options, Outcome, Row, Way, ratios
from splits import samples, shards
from torch.utils.data import DataLoader

from stec.cores import cores
from stec.loading import Stream
from stec.shards.reader import Shards, open_shards

_WORKERS = (0, 2, 4, 8)
_TARS = 8
_ROUNDS = 3
"""At most: each takes a minute or two."""

Batches = Callable[[Shards, int, int], Iterable[Any]]
"""Batches without end, or enough of them, of a split, a batch size and a number of loading processes."""


def stec(split: Shards, size: int, workers: int) -> Iterator[Any]:
    space = ours.simclr_space("fast")
    stream = Stream(split, ours.painting_decoder(space), space, batch_size=size, num_workers=workers)
    for batch in stream.batches(0):
        yield batch, space.relative(*batch.actions)


def torchvision(split: Shards, size: int, workers: int) -> Iterable[Any]:
    """As webdataset's documentation does it: shards and samples shuffled, batched in the loading processes."""
    urls = [str(split.folder / name) for name in split.shard_names]
    samples = webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False).repeat().shuffle(100).decode("pil")
    batches = samples.to_tuple("jpg", "cls").map_tuple(Twice(transform_v1()), int).batched(size)
    return DataLoader(batches, batch_size=None, num_workers=workers)


def seconds(batches: Iterable[Any], skipped: int, timed: int) -> float:
    """Seconds for each of `timed` batches, after so many: by then every loading process has delivered one."""
    iterator = iter(batches)
    for _ in islice(iterator, skipped):
        pass
    begun, delivered = time.perf_counter(), sum(1 for _ in islice(iterator, timed))
    spent = time.perf_counter() - begun
    if delivered < timed:
        raise RuntimeError(f"{delivered} batches instead of {timed}")
    return spent / timed


def loading(options: Options) -> Outcome:
    """The figure is that of the number of loading processes at which the peer comes closest."""
    size, timed = (2, 2) if options.small else (64, 16)
    counts = _WORKERS[:2] if options.small else _WORKERS
    makers: dict[str, Batches] = {"webdataset + torchvision v1": torchvision, "stec, augment=fast": stec}
    spent: dict[tuple[int, str], list[float]] = {(count, name): [] for count in counts for name in makers}
    # At the end of a measurement the processes are ahead by up to two batches each, as they are at its beginning.
    enough = timed + 4 * max(2, *counts)
    raws = jpegs(6 if options.small else 512, options.photographs)
    with one_thread(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more processes than cores: that is asked
        shards(Path(folder), _TARS, samples(raws, -(-enough * size // _TARS)))
        split = open_shards(Path(folder) / "train")
        for _ in range(min(options.rounds, _ROUNDS)):
            for count, name in spent:
                each = seconds(makers[name](split, size, count), max(2, count), timed)
                spent[count, name].append(each / size)
    base, own = makers
    names = {(count, name): f"{count} processes: {name}" for count, name in spent}
    ways = [
        Way(names[key], "images/s (wall)", [1 / each for each in values], base=names[key[0], base])
        for key, values in spent.items()
    ]
    each = (ratios(spent[count, base], spent[count, own]) for count in counts)
    limit = f"R1, and {cores()} cores: loading processes beyond their number add nothing"
    return Outcome(min(each, key=statistics.median), ways, limit)


ROWS = [
    Row(
        "R2",
        "shards -> batches (augment=fast) in the main process, worst of 0, 2, 4, 8 workers, over webdataset + v1",
        4,
        5,
        loading,
    )
]
