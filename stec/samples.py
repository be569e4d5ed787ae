"""Samples -> rows of a batch: read, measure, draw the actions, decode; and what takes the place of a damaged sample.

All of it is a function of (seed, epoch, sample), whichever process does it. Legend: B samples, V views, P parameters of
an action, d dimensions of an extent.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import default_collate

from stec.actions import ActionSpace, sample_views
from stec.decoder import Decoder, Opened, begin
from stec.errors import DataError, StecError, UsageError
from stec.rng import bits, make_keys
from stec.views import Batch

T = TypeVar("T")

TRIES = 20
"""How many samples are drawn, one after the other, to stand in for a damaged one: so many that a run over millions of
samples, a third of them lost, does not end for want of luck."""


class Source(Protocol):
    """What samples are read from: `stec.shards.Shards`, or anything with this face that can be pickled."""

    @property
    def num_samples(self) -> int: ...

    @property
    def shard_sizes(self) -> tuple[int, ...]: ...

    @property
    def meta(self) -> dict[str, Any]: ...

    def read(self, sample: int) -> dict[str, bytes]:
        """The members of a sample by extension; DataError naming it if it is damaged."""

    def where(self, sample: int) -> str:
        """Shard and key of a sample, for logs and errors."""


class Damaged(NamedTuple):
    """A sample that could not be used, and the sentence that says why, naming it."""

    sample: int
    reason: str


class Whole(NamedTuple):
    """Samples without any action: x [B, ...], extents int64 [B, d], labels and groups int64 [B], numbers; and the
    damaged ones."""

    x: Tensor
    extents: Tensor
    labels: Tensor
    groups: Tensor
    numbers: list[int]
    damaged: list[Damaged]


class Tally:
    """How many of num_samples samples are damaged, as far as is known; each is logged once, and too many are an error.

    damaged: how often one was met and replaced.
    """

    def __init__(self, max_bad: float, num_samples: int):
        if not 0 <= max_bad < 1:
            raise UsageError(f"dataset.max_bad={max_bad} must be at least 0 and below 1: it is a share of the samples.")
        self.max_bad, self.num_samples, self.damaged = max_bad, num_samples, 0
        self._known: set[int] = set()

    def count(self, damaged: Sequence[Damaged]) -> None:
        """DataError above the limit, which is max(1, max_bad * num_samples), or none at all if max_bad is 0.

        A share of all samples, not of those seen so far: early in a run these are too few to tell.
        """
        self.damaged += len(damaged)
        if damaged and not self.max_bad:
            raise DataError(f"{damaged[0].reason} (dataset.max_bad=0: no damaged sample is put up with).")
        for one in damaged:
            if one.sample not in self._known:
                logging.getLogger("stec").warning("damaged sample: %s", one.reason)
                self._known.add(one.sample)
        if len(self._known) > max(1, self.max_bad * self.num_samples):
            raise DataError(
                f"{len(self._known)} of {self.num_samples} samples were damaged, more than"
                f" dataset.max_bad={self.max_bad} allows; the last one: {damaged[-1].reason}."
            )


def make_batch(
    source: Source, decoder: Decoder, space: ActionSpace, num_views: int, seed: int, epoch: int, samples: Sequence[int]
) -> tuple[Batch, list[Damaged]]:
    """The batch of these samples, and the damaged ones among them: their rows hold, and their keys name, other samples.

    DataError if nothing intact can be found in place of a damaged one; UsageError if sizes differ within the batch.
    """
    numbers = [int(sample) for sample in samples]
    rows: list[_Row | None] = [None] * len(numbers)
    pending, damaged = list(range(len(numbers))), []
    for attempt in range(1, TRIES + 2):
        made = _make_rows(source, decoder, space, num_views, seed, epoch, [numbers[slot] for slot in pending])
        for slot, row in zip(pending, made, strict=True):
            if isinstance(row, Damaged):
                damaged.append(row)
            else:
                rows[slot] = row
        pending = [slot for slot in pending if rows[slot] is None]
        for slot in pending:
            numbers[slot] = substitute(source.num_samples, seed, epoch, int(samples[slot]), attempt)
    intact = [row for row in rows if row is not None]
    if len(intact) < len(rows):
        raise DataError(f"{damaged[0].reason}, and the {TRIES} samples drawn in its place are damaged as well.")
    x = tuple(stack(source, numbers, views) for views in zip(*(row.x for row in intact), strict=True))
    actions = torch.stack([row.actions for row in intact], dim=1)
    groups, labels = (torch.tensor([getattr(row, name) for row in intact]) for name in ("group", "label"))
    return Batch(x, actions, make_keys(seed, epoch, torch.tensor(numbers)), groups, labels), damaged


def read_whole(source: Source, decoder: Decoder, samples: Sequence[int]) -> Whole:
    """Evaluation views of these samples and what goes with them, without the damaged. UsageError if sizes differ."""
    intact, x, damaged = [], [], []
    for sample in samples:
        try:
            found = _open(source, decoder, int(sample))
            with _named(source, found.number):
                x.append(decoder.whole(found.opened))
            intact.append(found._replace(opened=found.opened._replace(content=None)))
        except DataError as error:
            damaged.append(Damaged(int(sample), str(error).removesuffix(".")))
    numbers = [one.number for one in intact]
    labels = torch.tensor([one.label for one in intact], dtype=torch.int64)
    groups = torch.tensor([one.group for one in intact], dtype=torch.int64)
    views = stack(source, numbers, x) if x else torch.empty(0)
    return Whole(views, torch.tensor([one.opened.extent for one in intact]), labels, groups, numbers, damaged)


def substitute(num_samples: int, seed: int, epoch: int, sample: int, attempt: int) -> int:
    """The sample that stands in for a damaged one, at the attempt 1, 2, ...: nothing but its key decides."""
    return int(bits(make_keys(seed, epoch, torch.tensor([sample])), attempt, "substitute", 1)) % num_samples


def stack(source: Source, numbers: Sequence[int], x: Sequence[Tensor]) -> Tensor:
    """[B, ...] of the tensors of these samples, in the memory format that they have; UsageError naming two that differ
    in size."""
    other = next((i for i, one in enumerate(x) if one.shape != x[0].shape), None)
    if other is not None:
        raise differing(source, (numbers[0], x[0].shape), (numbers[other], x[other].shape))
    order = x[0].dim_order()
    lying: Tensor = default_collate([one.permute(order) for one in x])  # in a worker, right into shared memory
    return lying.permute(0, *(1 + order.index(dim) for dim in range(len(order))))


def differing(source: Source, one: tuple[int, Sequence[int]], other: tuple[int, Sequence[int]]) -> UsageError:
    """What to say of two samples (number, size) that cannot lie in one tensor."""
    sizes = ", ".join(f"{source.where(number)} is {'x'.join(map(str, size))}" for number, size in (one, other))
    return UsageError(
        f"samples of different sizes cannot share a batch: {sizes}; set decoder.size, or choose a decoder that makes"
        " the views, all of one size, while it decodes."
    )


def example(source: Source, number: int, read: Callable[[Mapping[str, bytes], Mapping[str, Any]], T]) -> T | Damaged:
    """read(members, meta) of one sample, or why it is damaged."""
    try:
        members = source.read(number)
        with _named(source, number, "the probe"):
            return read(members, source.meta)
    except DataError as error:
        return Damaged(number, str(error).removesuffix("."))


def extent(source: Source, decoder: Decoder, number: int) -> tuple[int, ...]:
    """The size of one sample, as its actions are drawn for; DataError names it if it is damaged."""
    return _open(source, decoder, number).opened.extent


def payload(source: Source, decoder: Decoder, number: int) -> bytes:
    """The bytes of one sample that the decoder reads; DataError names it if it cannot be read or has none."""
    members = source.read(number)
    with _named(source, number):
        return readable(members, decoder.extensions)


class _Found(NamedTuple):
    """A sample before it is decoded."""

    number: int
    opened: Opened
    label: int
    group: int


class _Row(NamedTuple):
    """One sample of a batch: x, 1 source or V views; actions [V, P]; its label and its group."""

    x: tuple[Tensor, ...]
    actions: Tensor
    label: int
    group: int


def _make_rows(
    source: Source, decoder: Decoder, space: ActionSpace, num_views: int, seed: int, epoch: int, numbers: Sequence[int]
) -> list[_Row | Damaged]:
    """A row for each of the samples, or why there is none."""
    made: dict[int, _Row | Damaged] = {}
    found: list[tuple[int, _Found]] = []
    for place, number in enumerate(numbers):
        try:
            found.append((place, _open(source, decoder, number)))
        except DataError as error:
            made[place] = Damaged(number, str(error).removesuffix("."))
    if found:  # the actions of all at once: they cost the same many small operations for one sample as for a hundred
        keys = make_keys(seed, epoch, torch.tensor([one.number for _, one in found]))
        actions = sample_views(space, keys, torch.tensor([one.opened.extent for _, one in found]), num_views)
        found.reverse()
        for own in actions.unbind(1):
            place, one = found.pop()  # what has been decoded is let go of: it may hold all of a sample's values
            try:
                with _named(source, one.number):
                    x = begin(decoder, one.opened, own)
                made[place] = _Row(x, own, one.label, one.group)
            except DataError as error:
                made[place] = Damaged(one.number, str(error).removesuffix("."))
    return [made[place] for place in range(len(numbers))]


def _open(source: Source, decoder: Decoder, number: int) -> _Found:
    members = source.read(number)  # its errors name shard and key themselves
    with _named(source, number):
        raw, num_classes = readable(members, decoder.extensions), len(source.meta.get("classes") or ())
        label, group = whole_number(members, "cls", "label", num_classes), whole_number(members, "group", "group")
        return _Found(number, decoder.open(raw), label, group)


@contextmanager
def _named(source: Source, number: int, whose: str = "the decoder") -> Iterator[None]:
    """Errors within it say which sample; what is not a DataError is not the data's fault, but the decoder's (whose)."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{_origin(source, number)}: {error}") from error
    except Exception as error:
        raise StecError(f"{_origin(source, number)}: {whose} failed: {type(error).__name__}: {error}") from error


def _origin(source: Source, number: int) -> str:
    """Shard and key of a sample and, if its packer kept it (in a member json), the path that it came from."""
    with suppress(DataError, LookupError, TypeError, ValueError):
        return f"{source.where(number)} ({json.loads(source.read(number)['json'])['path']})"
    return source.where(number)


def readable(members: Mapping[str, bytes], extensions: Sequence[str]) -> bytes:
    """The member with the first of these extensions that there is; DataError without any."""
    extension = next((e for e in extensions if e in members), None)
    if extension is None:
        raise DataError(f"nothing to decode: there is {', '.join(members)}, wanted is one of {', '.join(extensions)}")
    return members[extension]


def whole_number(members: Mapping[str, bytes], extension: str, what: str, num: int = 0) -> int:
    """The whole number in a member, -1 (unknown) without one; DataError unless it is below `num`, if that is known."""
    if extension not in members:
        return -1
    text = members[extension].decode("utf-8", "replace").strip()
    try:
        number = int(text)
    except ValueError:
        raise DataError(f"the {what} {text[:40]!r} is not a whole number") from None
    if not -1 <= number < (num or 2**31):
        known = f"one of the {num} classes" if num else "from -1 to 2^31 - 1"
        raise DataError(f"the {what} {text[:40]} is not {known}")
    return number
