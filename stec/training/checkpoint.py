"""Checkpoints: one file each, whole or not there, holding tensors and plain values only, and checked before use."""

import errno
import logging
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stec.errors import UsageError
from stec.whole import write_whole

FORMAT = 1
# Before it, a file could do harm through torch.load even with weights_only (CVE-2025-32434, CVE-2026-24747).
SAFE_TORCH = "2.10"
_NAME = re.compile(r"step-(\d{8,})\.ckpt")
_log = logging.getLogger("stec")

State = dict[str, Any]
"""{"format", "spec", "step", "model", "optimizer", "scaler", "ema", "data", "log"}: see learner.snapshot."""


class Damaged(UsageError):
    """A checkpoint that is not what was once written: the one before it may do instead."""


def name(step: int) -> str:
    return f"step-{step:08d}.ckpt"


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all. UsageError if there is no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_whole(path, lambda file: torch.save({"format": FORMAT, **state}, file))
    except (OSError, RuntimeError) as error:  # a full disk comes out of torch.save as either
        needed, free = _megabytes(_num_bytes(state)), _megabytes(shutil.disk_usage(path.parent).free)
        why = error.strerror if isinstance(error, OSError) and error.strerror else "the write failed"
        raise UsageError(f"{path} cannot be written ({why}): it needs {needed} MB, and {free} MB are free.") from error


def load(path: str | Path) -> State:
    """Read a checkpoint onto the CPU. UsageError if it is missing, damaged, of another format, or not plain data."""
    path = Path(path)
    if torch.__version__ < SAFE_TORCH:
        raise UsageError(f"{path} is not opened by torch {torch.__version__}, which files can harm: 2.10 is needed.")
    if not path.is_file():
        raise UsageError(f"{path} is not a checkpoint: there is no such file.")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load itself does not look at the checksums
            # A whole one is stored as it is: what would unfold to more than the file is no work of torch.save.
            folded = sum(part.file_size for part in archive.infolist()) > path.stat().st_size
            broken = None if folded else archive.testzip()
    except OSError as error:  # EINVAL: zipfile seeks to before the beginning of a short file
        if error.errno != errno.EINVAL:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
        raise Damaged(f"{path} is damaged: its end is missing.") from error
    except MemoryError:
        raise
    except (zipfile.BadZipFile, EOFError) as error:
        raise Damaged(f"{path} is damaged: its end is missing, or it is no checkpoint at all.") from error
    except Exception as error:  # a flipped bit in a header can end in almost any error of zipfile
        raise Damaged(f"{path} is damaged: {type(error).__name__} while its checksums were compared.") from error
    if folded:
        raise Damaged(f"{path} is damaged: its parts claim more bytes than the file has.")
    if broken is not None:
        raise Damaged(f"{path} is damaged: the checksum of {broken} does not fit its bytes.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(f"{path} is refused: it holds more than tensors and plain values.") from error
    except MemoryError:
        raise
    except Exception as error:  # as above: the names of the parts bear no checksum
        raise Damaged(f"{path} is damaged, or not a file of torch.save: {_first_line(error)}.") from error
    if not isinstance(state, dict) or not {"format", "step", "model"} <= state.keys():
        raise UsageError(f"{path} is not a checkpoint of stec: it has no format, step and model.")
    if not (isinstance(state["format"], int) and state["format"] == FORMAT):
        raise UsageError(f"{path} has format {state['format']}, but this version of stec reads format {FORMAT}.")
    step, tensors = state["step"], state["model"]
    if not (isinstance(step, int) and isinstance(tensors, dict) and all(map(torch.is_tensor, tensors.values()))):
        raise UsageError(f"{path} is not a checkpoint of stec: its step or its model is of another type.")
    return state


def stored(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first (by step), damaged or not."""
    return sorted((path for path in folder.glob("step-*.ckpt") if _NAME.fullmatch(path.name)), key=step_of)


def step_of(path: Path) -> int:
    """The step that the name of a stored checkpoint tells."""
    return int(path.stem.removeprefix("step-"))


def latest(folder: Path) -> Path | None:
    """The newest checkpoint that can be read, None if there is none at all.

    Damaged ones are passed over with a warning; UsageError if all are: to begin again quietly would be no favour. Nor
    is one passed over that is whole, but of another format or none of ours: load() says why.
    """
    paths = stored(folder)
    for path in reversed(paths):
        try:
            load(path)
        except Damaged as error:
            _log.warning("passed over: %s", error)
        else:
            return path
    if paths:
        raise UsageError(f"none of the {len(paths)} checkpoints in {folder} can be read: choose another run_dir.")
    return None


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep`, and point `last` at the newest."""
    paths = stored(folder)
    for path in paths[:-keep]:
        path.unlink(missing_ok=True)
    if paths:
        link = folder / f".last.{os.getpid()}.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(paths[-1].name)
        os.replace(link, folder / "last")


def fill(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """load_state_dict that refuses in one sentence: the first names that are missing, too many or of another shape."""
    mine = module.state_dict()
    missing = [f"{key} is missing" for key in mine if key not in tensors]
    surplus = [f"{key} is not known here" for key in tensors if key not in mine]
    shapes = [
        f"{key} is {list(t.shape)} there and {list(mine[key].shape)} here"
        for key, t in tensors.items()
        if key in mine and t.shape != mine[key].shape
    ]
    if wrong := missing + surplus + shapes:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UsageError(f"{what} does not fit this model: {', '.join(wrong[:3])}{more}.")
    try:
        module.load_state_dict(tensors)
    except (RuntimeError, NotImplementedError) as error:  # a tensor of a kind that cannot be copied
        raise UsageError(f"{what} does not fit this model: {' '.join(str(error).split())[:200]}.") from error


def _num_bytes(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(_num_bytes(value) for value in state.values())
    return sum(_num_bytes(value) for value in state) if isinstance(state, list | tuple) else 0


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
