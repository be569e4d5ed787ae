"""What is read of a sample's bytes, and in which order: the header, then what the actions leave to be decoded.

Legend: V views, P parameters of an action.
"""

from typing import Any, NamedTuple, Protocol, cast

from torch import Tensor


class Opened(NamedTuple):
    """A sample of which the header has been read. extent: the size that actions are drawn for; content: whatever its
    decoder goes on from, let go of as soon as it has been decoded (once)."""

    extent: tuple[int, ...]
    content: Any


class Decoder(Protocol):
    """Bytes -> tensors, integers as they are stored until `finish`. performs: how many leading parts of the actions it
    performs itself; one that performs any is a `Cutter`."""

    @property
    def extensions(self) -> tuple[str, ...]: ...

    @property
    def performs(self) -> int: ...

    def open(self, raw: bytes) -> Opened:
        """Read the header, and no more; DataError if it is damaged or over a limit."""

    def whole(self, opened: Opened) -> Tensor:
        """The evaluation view, which needs no action."""

    def finish(self, x: Tensor) -> Tensor:
        """Float tensor of x, of a sample or a batch, on whatever device x is."""


class Cutter(Decoder, Protocol):
    """A decoder that makes the views itself."""

    def __call__(self, opened: Opened, actions: Tensor) -> tuple[Tensor, ...]:
        """V views begun with actions [V, P]."""


def begin(decoder: Decoder, opened: Opened, actions: Tensor) -> tuple[Tensor, ...]:
    """The views of a sample, begun with actions [V, P]; one source for all of them if the decoder performs nothing."""
    return cast(Cutter, decoder)(opened, actions) if decoder.performs else (decoder.whole(opened),)
