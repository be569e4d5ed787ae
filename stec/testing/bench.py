"""The parts of one modality on the bench: built with the options of its example, and put to work on its samples."""

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stec import catalogue
from stec.actions import Compose
from stec.catalogue import Installed
from stec.decoder import Decoder
from stec.encoder import Encoder
from stec.errors import StecError
from stec.nodes import checked
from stec.samples import make_batch
from stec.testing.fault import Fault, Skip
from stec.views import Batch, Views, make_views

NUM = 8
"""Samples that are worked with, at most."""
_NUM_VIEWS = 2


class Memory(NamedTuple):
    """Samples in memory, with the face of shards."""

    samples: list[dict[str, bytes]]
    meta: dict[str, Any]

    @property
    def num_samples(self) -> int:
        return len(self.samples)

    @property
    def shard_sizes(self) -> tuple[int, ...]:
        return (len(self.samples),)

    def read(self, sample: int) -> dict[str, bytes]:
        return self.samples[sample]

    def where(self, sample: int) -> str:
        return f"sample {sample} of the example"


class Flow(NamedTuple):
    """A batch of the example's samples, through one decoder, and its views."""

    batch: Batch
    views: Views


class Bench:
    """Everything is made when it is asked for, once. A Fault says why a part cannot be; a Skip that what it takes to
    check a part is not there (the fault is then found where that is checked)."""

    def __init__(self, found: Installed):
        self.distribution, self.modality = found
        self._made: dict[tuple[str, str], Any] = {}
        self.failed: list[str] = []
        """Checks that have failed so far."""

    def names(self, kind: str) -> list[str]:
        return list(self.modality.parts.get(kind, {}))

    def options(self, kind: str, name: str) -> dict[str, Any]:
        """The keywords that the example gives for a part."""
        if kind == "example" or not self.names("example"):
            return {}
        return dict(self.example.options.get(kind, {}).get(name, {}))

    def make(self, kind: str, name: str) -> Callable[..., Any]:
        """Make the part of what is injected into its kind, with the keywords of the example; a Fault if these do not
        fit. What it needs to be told and is not told is a reason to skip it."""
        try:
            target = self.modality.parts[kind][name]
            made = catalogue.load(kind, name, catalogue.Entry(target, self.distribution))
            needed = [
                p.name
                for p in inspect.signature(made).parameters.values()
                if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in self.options(kind, name)
            ]
            if needed:
                raise Skip(
                    f"the example says nothing of its {', '.join(needed)}: its options have no [{kind!r}][{name!r}]"
                )
            options = checked(made, self.options(kind, name), f"{kind}.{name}")
        except StecError as error:
            raise Fault(str(error)) from error
        return lambda *injected: made(*injected, **options)

    def part(self, kind: str, name: str) -> Any:
        """The part itself; a packer is made of the source "", which need not please it."""
        if (kind, name) not in self._made:
            injected = {"decoder": lambda: self.space, "picture": lambda: self.space, "packer": lambda: ""}
            injected["probe"] = lambda: self.working("decoder", self.first("decoder"))
            given = [injected[kind]()] if kind in injected else []
            make = self.make(kind, name)
            try:
                self._made[kind, name] = make(*given)
            except (StecError, TypeError) as error:
                what = {"decoder": "the action space", "picture": "the action space", "probe": "a decoder"}.get(kind)
                how = f"of {what} and its options" if what else "of its options alone"
                raise Fault(f"it cannot be made {how}: {type(error).__name__}: {error}") from error
        return self._made[kind, name]

    def working(self, kind: str, name: str) -> Any:
        """The part, as something that another one needs."""
        try:
            return self.part(kind, name)
        except Fault as fault:
            raise Skip(f"{kind} {name} cannot be made") from fault

    def first(self, kind: str) -> str:
        if not (names := self.names(kind)):
            raise Skip(f"the modality has no {kind}")
        return names[0]

    @property
    def example(self) -> Any:
        if not self.names("example"):
            raise Skip("the modality has no example: there are no samples to try it on")
        return self.working("example", self.first("example"))

    @cached_property
    def source(self) -> Memory:
        """The first samples of the example's first split."""
        split = self.example.splits[0]
        rows = [row for row, _ in zip(self.example.samples(split), range(NUM), strict=False)]
        members = [{field: data for field, data in row.items() if field != "__key__"} for row in rows]
        return Memory(members, self.example.meta(split))

    @cached_property
    def space(self) -> Compose:
        """All action spaces, in the order of their declaration."""
        self.first("action_space")
        return Compose({name: self.working("action_space", name) for name in self.names("action_space")})

    def raws(self, decoder: Decoder) -> list[bytes]:
        """The bytes of the samples that this decoder reads."""
        known = [e.lstrip(".").lower() for e in decoder.extensions]  # as they should be; that is checked elsewhere
        found = [next(m[e] for e in known if e in m) for m in self.source.samples if m.keys() & set(known)]
        if not found:
            raise Skip(f"the example has no sample with a member {' or '.join(decoder.extensions)}")
        return found

    def batch(self, name: str) -> Batch:
        """Two views of the samples, begun by the decoder `name`. Raises what any part raises."""
        decoder = self.working("decoder", name)
        numbers = [i for i, m in enumerate(self.source.samples) if any(e in m for e in decoder.extensions)]
        if not numbers:
            raise Skip(f"the example has no sample with a member {' or '.join(decoder.extensions)}")
        batch, damaged = make_batch(self.source, decoder, self.space, _NUM_VIEWS, 0, 0, numbers)
        if damaged:
            raise Fault(f"a sample of the example cannot be read: {damaged[0].reason}.")
        return batch

    def flow(self, name: str) -> Flow:
        """Two views of the samples, as training makes them with the decoder `name`. Raises what any part raises."""
        decoder, batch = self.working("decoder", name), self.batch(name)
        return Flow(batch, make_views(batch, self.space, performed=decoder.performs, finish=decoder.finish))

    def flowing(self, name: str) -> Flow:
        """The views, as something that is needed to check a part."""
        if ("flow", name) not in self._made:
            try:
                self._made["flow", name] = self.flow(name)
            except Skip:
                raise
            except Exception as error:  # told where the parts are checked together
                raise Skip(f"no views can be made of the example with decoder {name}") from error
        made: Flow = self._made["flow", name]
        return made

    @property
    def seen(self) -> Tensor:
        """Views float [B, ...], as an encoder is to see them."""
        return self.flowing(self.first("decoder")).views.x[0].float()

    def before(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Sizes int64 [N, d] of samples, and samples float [N, ...] as the action space `name` finds them: decoded, the
        actions before it performed; None if every decoder performs it."""
        place = self.names("action_space").index(name)
        extents = None
        for each in self.names("decoder"):
            decoder = self.working("decoder", each)
            sizes = [decoder.open(raw).extent for raw in self.raws(decoder)]
            extents = extents or sizes
            try:
                if decoder.performs > place:
                    if place == 0 and hasattr(decoder, "all"):  # all of a sample, as if nothing was performed
                        everything = decoder.finish(decoder.all(decoder.open(self.raws(decoder)[0]))[None])
                        return torch.tensor(sizes[:1]), everything
                    continue
                batch = self.batch(each)
                x = decoder.finish(batch.x[0])
                for i in range(decoder.performs, place):
                    part, columns = list(self.space.parts.values())[i], list(self.space.slices.values())[i]
                    x = part.act(x, batch.actions[0][:, columns], 0)
                return torch.tensor(sizes), x
            except Exception:  # told where the parts are checked together
                continue
        if extents is None:
            raise Skip("the modality has no decoder that tells the sizes of samples")
        return torch.tensor(extents), None

    def encoder(self, name: str) -> Callable[[], Encoder]:
        return self.make("encoder", name)
