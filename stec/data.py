"""Where the samples of an experiment are: shards as they are, or anything a packer reads, packed once into a cache."""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from stec import __version__
from stec.decoder import Decoder
from stec.errors import DataError, UsageError
from stec.samples import extent
from stec.shards import remote
from stec.shards.copies import Copies
from stec.shards.fetching import address
from stec.shards.reader import Shards, find_split
from stec.shards.writer import pack

log = logging.getLogger("stec")

# Samples whose sizes are looked up: the bins of the manipulation model are fitted on actions drawn for these.
_NUM_EXTENTS = 64


class Splits(NamedTuple):
    """train: what is learnt from; labelled: what probes are fitted on (often the same); test: what tests them."""

    train: Shards
    labelled: Shards
    test: Shards | None

    @property
    def classes(self) -> list[str]:
        """Names of the labels; empty if the probes have nothing to learn."""
        return list(self.labelled.meta.get("classes", []))

    @property
    def labels(self) -> str:
        """What there is of labels, in words."""
        if self.classes:
            return f"{len(self.classes)} classes"
        return "labels without names of classes" if "cls" in self.labelled.fields else "no labels"


class Dataset:
    """The options of a data set: which split is learnt from, and how its samples are served.

    needs_data: whether `data=PATH` must be given; train_split: the split to learn from; resident: keep all samples
    decoded in memory; window: shards that are shuffled together; max_bad: the fraction of damaged samples to live with.
    """

    def __init__(
        self,
        *,
        name: str,
        needs_data: bool,
        train_split: str = "train",
        resident: bool = False,
        window: int = 8,
        max_bad: float = 0.0,
    ):
        if window < 1:
            raise UsageError(f"dataset.window={window} must be at least 1: how many shards are shuffled together.")
        if not 0 <= max_bad < 1:
            raise UsageError(f"dataset.max_bad={max_bad} must be in [0, 1): the fraction of damaged samples allowed.")
        self.name, self.needs_data, self.train_split = name, needs_data, train_split
        self.resident, self.window, self.max_bad = resident, window, max_bad


def open_data(dataset: Dataset, data: str | None, packer: Callable[[str], Any], identity: dict[str, Any]) -> Splits:
    """The splits behind `data`; packs into the cache first if it holds no shards, which an address must.

    packer: makes the packer of a source; identity: its name and options, part of the cache's name. UsageError if there
    is nothing at `data`.
    """
    data = os.path.expanduser(data) if data else None  # data=$DIR with an empty DIR is not the current folder
    if data is None and dataset.needs_data:
        raise UsageError(f"{dataset.name} needs data=PATH: a folder that its packer reads, or one with shards.")
    if data is not None and (elsewhere := address(data)):
        return _behind(elsewhere, dataset)
    if data is not None and not Path(data).exists():
        raise UsageError(f"data={data}: there is no such file or folder.")
    root = Path(data) if data is not None else None
    split = partial(find_split, max_bad=dataset.max_bad)
    train = split(root, dataset.train_split) if root is not None and root.is_dir() else None
    if root is None or train is None:
        root = _packed(dataset.name, data or "", packer, identity)
        train = split(root, dataset.train_split)
    elif unheard := [f"{key}={value}" for key, value in identity.items() if key != "name" and value is not None]:
        log.info("these are shards, taken as they are: dataset.packer is not asked (%s)", ", ".join(unheard))
    if train is None:
        raise UsageError(f"data={data}: no split {dataset.train_split!r} among its shards.")
    labelled = train if dataset.train_split == "train" else split(root, "train")
    return Splits(train, labelled or train, split(root, "test"))


def cache() -> Path:
    """Where packed data sets lie: $STEC_CACHE, else stec/ in the user's cache folder."""
    given = os.environ.get("STEC_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stec"


def extents(shards: Shards, decoder: Decoder) -> list[list[int]]:
    """Sizes [N][d] of some samples spread over the shards, read from their headers; damaged ones are passed over.

    A size stands there as often as it was found, or once if there is no other: a rare one must not count like a common.
    """
    found, refused = [], []
    for sample in range(0, shards.num_samples, max(1, shards.num_samples // _NUM_EXTENTS)):
        try:
            found.append(extent(shards, decoder, sample))
        except DataError as error:
            refused.append(error)
    if not found:
        why = f"; the first of them: {refused[0]}" if refused else "."
        raise DataError(f"{shards.folder}: none of the samples looked at can be read{why}")
    return [list(size) for size in (found if len(set(found)) > 1 else found[:1])]


def _behind(elsewhere: str, dataset: Dataset) -> Splits:
    """The splits behind an address; copies of their tars are kept in the cache."""
    copies = Copies(cache() / "remote", round(_gigabytes() * 1e9))
    train = remote.find_split(elsewhere, dataset.train_split, copies)
    if train is None:
        raise UsageError(
            f"data={elsewhere}: no split {dataset.train_split!r} there: a folder that `stec-shards pack` made was"
            " expected, with an index.json for each split."
        )
    train.check_room(dataset.window)
    labelled = train if dataset.train_split == "train" else remote.find_split(elsewhere, "train", copies)
    return Splits(train, labelled or train, remote.find_split(elsewhere, "test", copies))


def _gigabytes() -> float:
    """How much copies may take: $STEC_CACHE_GB."""
    given = os.environ.get("STEC_CACHE_GB", "100")
    try:
        if 0 < (found := float(given)) < 1e9:
            return found
    except ValueError:
        pass
    raise UsageError(f"STEC_CACHE_GB={given} must be a number above 0: how many GB copies of remote shards may take.")


def _packed(name: str, source: str, packer: Callable[[str], Any], identity: dict[str, Any]) -> Path:
    """The cached shards of a source, packed now if they are not there; processes wait for one another."""
    place = os.path.realpath(source) if source else ""
    told = {key: value for key, value in identity.items() if value is not None}  # a new option unset changes nothing
    facts = json.dumps([__version__, told, place, _listing(source)], sort_keys=True)
    root = cache() / f"{identity['name']}-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
    with _locked(root.with_name(root.name + ".lock")):
        if not root.is_dir():
            reads = packer(source)
            log.info("packing %s into %s (once)", source or name, root)
            pack(reads, root)
    return root


def _listing(source: str) -> str:
    """A digest of names, sizes and times of all files of a source, so that changed data is packed anew."""
    digest = hashlib.sha256()
    for path in _files(Path(source)) if source else ():
        facts, name = path.stat(), str(path.relative_to(source))
        digest.update(name.encode(errors="surrogateescape"))  # a file name need not be text
        digest.update(f"\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(root: Path) -> list[Path]:
    """The file itself, or all files below a folder; links are followed, as packers do, but none that leads back."""
    found, seen = [root] if root.is_file() else [], set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += [path for path in (Path(folder, name) for name in names) if path.is_file()]
    return sorted(found)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise UsageError(f"the cache {path.parent} cannot be written ({error.strerror}): set STEC_CACHE.") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
