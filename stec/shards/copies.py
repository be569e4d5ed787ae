"""Copies of files that lie elsewhere, named by their content: each is whole and checked, or it is not there.

    SHA256-BYTES          a copy; whoever reads it holds a shared lock on it
    SHA256-BYTES.part     what there is of one so far; whoever fetches it holds its lock, and the others wait
    .room                 locked by who makes room

When a new copy would not fit, those that nobody holds are deleted, the longest unused first. A lock ends with the
process that holds it, so that a killed one leaves nothing behind but a part, with which the next one goes on.
"""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from stec.errors import DataError, UsageError
from stec.shards.reader import File
from stec.whole import sync

PATIENCE = 30.0
"""Seconds for which others' copies are waited for, when nothing can be deleted."""
_GLANCE = 0.05


class Content(NamedTuple):
    """What a file must hold: so many bytes, of this digest (64 hexadecimal digits)."""

    num_bytes: int
    sha256: str


class Held(File):
    """A copy, open, that nobody deletes as long as somebody holds this."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.path = path
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        self.num_bytes = os.fstat(self._descriptor).st_size
        os.utime(self._descriptor)


class Part:
    """The beginning of a copy, to which its fetcher appends."""

    def __init__(self, descriptor: int, place: Path):
        self._descriptor, self._place = descriptor, place
        self.size = os.lseek(descriptor, 0, os.SEEK_END)

    def append(self, data: bytes) -> None:
        """UsageError if the disk takes no more: what there is of the copy is given up then, to leave room to others."""
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            self.restart()
            raise UsageError(f"{self._place}: a copy cannot be written here ({error.strerror}): {_HINT}.") from None
        self.size += len(data)

    def restart(self) -> None:
        """Forget what there is."""
        os.ftruncate(self._descriptor, 0)
        self.size = os.lseek(self._descriptor, 0, os.SEEK_SET)

    def is_whole(self, content: Content) -> bool:
        """Whether this is the file that is wanted, to the last bit."""
        if self.size != content.num_bytes:
            return False
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest() == content.sha256


class Copies(NamedTuple):
    """A folder of copies that take `limit` bytes at most. Any number of processes of one user may share it."""

    place: Path
    limit: int

    def hold(self, content: Content, fetch: Callable[[Part], None]) -> Held:
        """The copy with this content; fetch(part) makes it of its beginning if there is none, once for all that wait.

        fetch must leave a part that is_whole, or raise. UsageError if the copy cannot be written, or does not fit;
        DataError if there can be no such content.
        """
        if content.num_bytes < 0 or not re.fullmatch(r"[0-9a-f]{64}", content.sha256):
            raise DataError(f"a file of {content.num_bytes} bytes with the sha256 {content.sha256!r} cannot exist.")
        if content.num_bytes > self.limit:
            raise UsageError(f"a file of {_size(content.num_bytes)} is longer than all copies may be: {self._told()}.")
        path = self.place / f"{content.sha256}-{content.num_bytes}"
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    held = Held(path)
                    if held.num_bytes == content.num_bytes:
                        return held
                    path.unlink(missing_ok=True)  # somebody has cut it
                except FileNotFoundError:
                    pass
                self._bring(path, content, fetch)
        except OSError as error:
            raise UsageError(f"{self.place} cannot be used ({error.strerror}): {_HINT}.") from error

    def _bring(self, path: Path, content: Content, fetch: Callable[[Part], None]) -> None:
        """Make the copy, or wait until another process has done it, or given up."""
        name = path.with_name(path.name + ".part")
        with _locked(name) as descriptor:
            if not _is_at(descriptor, name):
                return
            if path.exists():
                name.unlink()
                return
            os.utime(descriptor, (0, 0))  # waits for room: takes none yet
            with _locked(self.place / ".room"):
                self._make_room(content.num_bytes, name)
                os.utime(descriptor)
            part = Part(descriptor, self.place)
            fetch(part)
            os.fsync(descriptor)
            name.rename(path)
            sync(self.place)

    def _make_room(self, num_bytes: int, mine: Path) -> None:
        """Delete what nobody holds until so many bytes fit."""
        until = time.monotonic() + PATIENCE
        while (over := num_bytes + sum(size for path, _, size in self._files() if path != mine) - self.limit) > 0:
            for path, _, size in sorted(self._files(), key=lambda file: file[1]):
                if over > 0 and path != mine and _deleted(path):
                    over -= size
            if over > 0:
                if time.monotonic() > until:
                    raise UsageError(f"all copies are in use, and {_size(num_bytes)} more do not fit: {self._told()}.")
                time.sleep(_GLANCE)

    def _files(self) -> list[tuple[Path, float, int]]:
        """(path, time of its last use, bytes that it takes or will take) of all copies and parts."""
        found = []
        for path in self.place.iterdir():
            if match := re.fullmatch(r"[0-9a-f]{64}-(\d+)(\.part)?", path.name):
                try:
                    used = path.stat().st_mtime
                except FileNotFoundError:
                    continue
                found.append((path, used, int(match[1]) if used else 0))
        return found

    def _told(self) -> str:
        return f"STEC_CACHE_GB={self.limit / 1e9:g} for {self.place}"


_HINT = "set STEC_CACHE to a folder with more room, or STEC_CACHE_GB to less than this one has"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes:,} bytes"


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The descriptor of a file that nobody else has locked, made if need be; waits as long as it has this name.

    A part becomes a copy, which others hold at once, and for long: whoever has waited for it must look again.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while _is_at(descriptor, path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_GLANCE)
        yield descriptor
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a file still has this name: it may have been renamed or deleted meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _deleted(path: Path) -> bool:
    """Delete a file, unless somebody holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
