"""A folder that appears under its name whole, or not at all."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stec.errors import UsageError
from stec.whole import sync


@contextmanager
def fresh_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder beside `out` to write in: renamed to `out` in one step if the block ends well, removed if it does not.

    What killed processes left behind for the same name is removed first. replace: what is at `out` makes way at the
    end. UsageError if `out` exists otherwise, or if the disk refuses.
    """
    out = Path(os.path.realpath(out)) if replace else out.absolute()  # where a link leads, it goes on to lead
    if os.path.lexists(out) and not replace:
        raise UsageError(f"{out} exists: choose another name, or delete it first.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
        old = folder.with_name(f"{folder.name}.old.part")
        try:
            folder.chmod(0o755)
            with _locked(folder):
                yield folder
                sync(folder)
                _into_place(folder, out, old)
                sync(out.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"{out} could not be made: {error}.") from error


def _into_place(folder: Path, out: Path, old: Path) -> None:
    """What is at `out` becomes `old`, and `folder` becomes `out`; or all stays as it is."""
    if os.path.lexists(out):
        out.rename(old)
    try:
        folder.rename(out)
    except OSError:
        if os.path.lexists(old):
            old.rename(out)
        raise


def _remove_leftovers(out: Path) -> None:
    """A writer holds the lock of its folder, and the lock dies with it: what can be locked belongs to nobody."""
    for path in list(out.parent.iterdir()):
        if path.name.startswith(f".{out.name}.") and path.suffix == ".part" and path.is_dir():
            with _locked(path) as alone:
                if alone:
                    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder if it can be had; some network file systems have none for folders."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)
