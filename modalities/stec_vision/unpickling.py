"""Pickles from elsewhere, as far as they hold plain data: nothing in them is ever executed."""

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from stec.errors import DataError

_REBUILD: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]

# What a pickle may call while it is unpickled: numpy's own array rebuilding, and nothing else. The type is built
# by a function of ours because the flags in files of 2009 are integers, which numpy no longer takes for booleans.
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): lambda spec, align=False, copy=False: np.dtype(spec, align=bool(align), copy=bool(copy)),
    ("_codecs", "encode"): lambda text, encoding: str(text).encode(encoding),
    ("numpy.core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): _REBUILD,
}


class _Plain(pickle.Unpickler):
    """Rebuilds dictionaries, lists, text, numbers and arrays; refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(f"it asks for {module}.{name}, which is more than plain arrays")
        return _ALLOWED[module, name]


def unpickle_plain(data: bytes, where: str) -> dict[str, Any]:
    """The dictionary that a pickle holds; DataError if it is damaged or would run anything. `where` names the file."""
    try:
        for code, argument, _ in pickletools.genops(data):
            # Memory is taken for all numbers below the one that an object is given.
            if code.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
                raise DataError("it numbers an object that it cannot hold")
        found = _Plain(io.BytesIO(data), encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{where} is not read: {error}.") from None
    except Exception as error:  # a damaged pickle raises whatever its broken instructions lead to
        raise DataError(f"{where}: damaged, or not a pickle: {type(error).__name__}: {error}.") from error
    if not isinstance(found, dict):
        raise DataError(f"{where}: not a dictionary but a {type(found).__name__}.")
    return found
