"""One process at a time in a directory."""

import fcntl
import os
import socket
from pathlib import Path

from stec.errors import UsageError


class Lock:
    """Held from its making until drop(), or until this process ends in whatever way: nothing stale is left behind.

    UsageError names who holds it already; OSError if the directory cannot be written.
    """

    def __init__(self, directory: Path):
        self._file: int | None = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(self._file, 200).decode(errors="replace").strip() or "another process"
            self.drop()
            raise UsageError(f"run_dir={directory} is in use by {owner}: choose another run_dir.") from error
        os.ftruncate(self._file, 0)
        os.write(self._file, f"process {os.getpid()} on {socket.gethostname()}".encode())
        # A forked loading process shares the lock, and may outlive a killed run by some seconds: it must let go.
        os.register_at_fork(after_in_child=self.drop)

    def drop(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
