"""hardware.deterministic: the same numbers on every run of one machine, or a sentence on what stands in the way."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stec.errors import UsageError

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
# How torch names an operation that it would have to refuse.
_REFUSAL = " does not have a deterministic implementation"


@contextmanager
def deterministic(asked: bool) -> Iterator[None]:
    """As long as the block lasts, torch takes operations that repeat themselves only (if asked); afterwards all is as
    it was. UsageError for an operation that has no such form."""
    if not asked:
        yield
        return
    cudnn, workspace = torch.backends.cudnn, os.environ.get(_WORKSPACE)
    before = torch.get_deterministic_debug_mode(), cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    if workspace not in (":4096:8", ":16:8"):  # cuBLAS repeats itself with these alone, and reads them when it begins
        os.environ[_WORKSPACE] = ":4096:8"
    try:
        yield
    except RuntimeError as error:
        operation, refused, _ = str(error).partition(_REFUSAL)
        if not refused:
            raise
        raise UsageError(
            f"hardware.deterministic=true cannot be kept: {operation} has no form that repeats itself on this device;"
            " choose hardware.deterministic=false, or a recipe without it."
        ) from error
    finally:
        torch.set_deterministic_debug_mode(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)
        else:
            os.environ[_WORKSPACE] = workspace
