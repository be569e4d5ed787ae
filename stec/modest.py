"""A model that is built of a description found in a file, and may not be many times larger than that file."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from stec.errors import StecError, UsageError

SPARE = 1 << 29
"""Weights that a model may have beyond one for each byte of its file: an exported folder holds none of the heads that
the model was trained with."""
LEAST = 1 << 10
"""A tensor counts as so many weights at least: a million small layers fill the memory as well."""


@contextmanager
def within(num_bytes: int, source: str) -> Iterator[None]:
    """What a source says of its model is built here, and only what comes with it is believed: UsageError if nothing can
    be built of it, or as soon as it asks for many more weights than a source of num_bytes holds."""
    left = num_bytes + SPARE

    def allow(module: nn.Module, name: str, value: Tensor | None) -> None:  # noqa: ARG001
        nonlocal left
        left -= max(LEAST, 0 if value is None else value.numel())
        if left < 0:
            raise UsageError(f"{source}: the model that it describes is many times larger than its weights.")

    handles = [register_module_parameter_registration_hook(allow), register_module_buffer_registration_hook(allow)]
    try:
        yield
    except StecError:
        raise
    except Exception as error:  # the parts check what a person may write, not everything that a file may hold
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"{source}: no model can be built of its description: {why}.") from error
    finally:
        for handle in handles:
            handle.remove()
