"""What is promised of a decoder. Each check takes a `Decoding` and raises a Fault that says what is wrong.

Legend: V views, P parameters of an action, d dimensions of an extent.
"""

import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stec.actions import Compose, sample_views
from stec.decoder import begin
from stec.errors import DataError
from stec.rng import make_keys
from stec.testing.fault import Fault, Skip, require, same
from stec.testing.spaces import scramble

_VIEWS = 3
_FLIPS = 24


class Decoding(NamedTuple):
    """decoder: what is checked; space: the actions it was made for; raws: the bytes of some intact samples."""

    decoder: Any
    space: Compose
    raws: list[bytes]

    def whole(self, raw: bytes) -> Any:
        """The evaluation view of a sample."""
        return self.decoder.whole(self.decoder.open(raw))

    def views(self, raw: bytes, actions: Tensor) -> Any:
        """Its views, or the one source of all."""
        return begin(self.decoder, self.decoder.open(raw), actions)

    def actions(self, number: int, seed: int = 0) -> Tensor:
        """Actions [V, P] for sample `number`."""
        extent = torch.tensor([self.decoder.open(self.raws[number]).extent])
        return sample_views(self.space, make_keys(seed, 0, torch.tensor([number])), extent, _VIEWS)[:, 0]


def declaration(one: Decoding) -> None:
    """extensions are texts, and performs is a number of leading parts of the action space."""
    extensions, performs, num = one.decoder.extensions, one.decoder.performs, len(one.space.parts)
    texts = isinstance(extensions, tuple) and extensions and all(isinstance(e, str) and e for e in extensions)
    require(bool(texts), f"extensions={extensions!r}; a tuple of texts such as ('npy',) was expected.")
    dotted = [e for e in extensions if e.startswith(".") or e != e.lower()]
    require(not dotted, f"the extension {dotted[:1]} has a dot or upper case: members are named without.")
    fits = isinstance(performs, int) and 0 <= performs <= num
    require(fits, f"performs={performs!r}; how many of the {num} parts of the action space it performs was expected.")


def extents(one: Decoding) -> None:
    """open finds an extent, a tuple of d whole numbers above 0: the size of what the actions are drawn for."""
    sizes = set()
    for number, raw in enumerate(one.raws):
        extent = one.decoder.open(raw).extent
        whole = isinstance(extent, tuple) and extent and all(type(n) is int and n > 0 for n in extent)
        require(bool(whole), f"`open` gives the extent {extent!r}; a tuple of whole numbers above 0 was expected.")
        require(one.decoder.open(raw).extent == extent, "`open` gives another extent for the same bytes.")
        sizes.add(len(extent))
        everything = one.decoder.all(one.decoder.open(raw)) if hasattr(one.decoder, "all") else None
        everything = one.whole(raw) if everything is None and not one.decoder.performs else everything
        if everything is not None:
            found = tuple(everything.shape[-len(extent) :])
            require(found == extent, f"`open` says {extent} of sample {number}, but decoded it measures {found}.")
    require(len(sizes) == 1, f"`open` gives extents of {sorted(sizes)} numbers, depending on the sample.")


def whole_samples(one: Decoding) -> None:
    """whole gives a tensor, the same each time."""
    for raw in one.raws:
        scramble(1)
        first = one.whole(raw)
        require(isinstance(first, Tensor), f"`whole` gives a {type(first).__name__}; a tensor was expected.")
        scramble(2)
        require(same(first, one.whole(raw)), "`whole` gives another tensor for the same bytes.")


def performs_what_it_says(one: Decoding) -> None:
    """Each action gives its own view."""
    if not one.decoder.performs:
        raise Skip("it performs nothing")
    told = False
    for number, raw in enumerate(one.raws):
        actions = one.actions(number)
        views = one.views(raw, actions)
        require(
            len(views) == _VIEWS, f"it gives {len(views)} views for {_VIEWS} actions; a view for each was expected."
        )
        again = one.views(raw, actions)
        require(all(map(same, views, again)), "it gives other views for the same bytes and actions: it must not draw.")
        for v in range(_VIEWS):
            (lone,) = one.views(raw, actions[v : v + 1])
            require(same(lone, views[v]), f"view {v} is another one if its action is the only one.")
        others = one.views(raw, one.actions(number, seed=1))
        told |= not all(map(same, views, others))
        odd = [list(v.shape) for v in views if v.shape != views[0].shape]
        require(not odd, f"its views have different sizes, {odd[:1]} beside {list(views[0].shape)}.")
    require(told, f"performs={one.decoder.performs}, but other actions change no view of any sample.")


def finished(one: Decoding) -> None:
    """One type of numbers until finish, which makes floats of them, of a sample as of a batch, and keeps its input."""
    whole = one.whole(one.raws[0])
    made = [one.whole(raw) for raw in one.raws]
    made += [view for number, raw in enumerate(one.raws) for view in one.views(raw, one.actions(number))]
    kinds = sorted({str(x.dtype) for x in made})
    require(len(kinds) == 1, f"its tensors are of several types before `finish`: {', '.join(kinds)}.")
    before = whole.clone()
    alone, batch = one.decoder.finish(whole), one.decoder.finish(torch.stack([whole, whole]))
    require(alone.is_floating_point(), f"`finish` gives {alone.dtype}; floats were expected.")
    require(bool(alone.isfinite().all()), "`finish` gives numbers that are not finite.")
    require(same(whole, before), "`finish` changes its input in place.")
    require(same(alone, batch[0], 1e-6), "`finish` gives a sample of a batch other numbers than the sample alone.")


def damaged_bytes(one: Decoding) -> None:
    """Whatever the bytes, there is a tensor or a DataError, and nothing else; empty or random bytes are refused."""
    for number, raw in enumerate(one.raws[:2]):
        actions = one.actions(number)
        for words, damaged, hopeless in _damage(raw):
            steps: dict[str, Callable[[], Any]] = {
                "open": partial(one.decoder.open, damaged),
                "whole": partial(one.whole, damaged),
                "__call__": partial(one.views, damaged, actions),
            }
            for name, step in steps.items():
                try:
                    made = step()
                except DataError as error:
                    require(bool(str(error).strip()), f"`{name}` refuses {words} without a word why.")
                except Exception as error:
                    raise Fault(
                        f"`{name}` answers {words} with {type(error).__name__} ({error}); a stec.errors.DataError was"
                        " expected, so that the sample is replaced and the run goes on."
                    ) from error
                else:
                    accepted = hopeless and name != "open"
                    require(
                        not accepted, f"`{name}` takes {words} for a sample; a DataError was expected: {made!r:.60}"
                    )


def can_be_pickled(one: Decoding) -> None:
    """It can be sent to a loading process."""
    try:
        sent = pickle.loads(pickle.dumps(one.decoder))
    except Exception as error:
        raise Fault(f"it cannot be pickled, so not be sent to a loading process: {error}.") from error
    require(
        same(one._replace(decoder=sent).whole(one.raws[0]), one.whole(one.raws[0])),
        "a pickled copy of it decodes otherwise.",
    )


def on_a_gpu(one: Decoding) -> None:
    """finish computes where its input is."""
    if not torch.cuda.is_available():
        raise Skip("there is no GPU here")
    require(one.decoder.finish(one.whole(one.raws[0]).cuda()).is_cuda, "`finish` leaves the GPU.")


CHECKS: tuple[Callable[[Decoding], None], ...] = (
    declaration,
    extents,
    whole_samples,
    performs_what_it_says,
    finished,
    damaged_bytes,
    can_be_pickled,
    on_a_gpu,
)


def _damage(raw: bytes) -> Iterator[tuple[str, bytes, bool]]:
    """(what, bytes, hopeless: nobody could read them), the same ones each time."""
    numbers = np.random.default_rng(0)
    yield "0 bytes", b"", True
    yield f"{len(raw)} random bytes", numbers.bytes(len(raw)), True
    for num in sorted({1, 10, len(raw) // 4, len(raw) // 2, len(raw) - 1}):
        yield f"a sample cut off after {num} of {len(raw)} bytes", raw[:num], False
    for turn in range(_FLIPS):  # half of them where a header would be
        place = int(numbers.integers(min(64, len(raw)) if turn % 2 else len(raw)))
        flipped = bytearray(raw)
        flipped[place] ^= 1 << int(numbers.integers(8))
        yield f"a sample with byte {place} flipped", bytes(flipped), False
