"""How every command ends: with a sentence and an exit code, never with a traceback for the user's own slip."""

import functools
import logging
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stec.errors import StecError

Main = Callable[[list[str] | None], int]


def guarded(main: Main) -> Callable[..., int]:
    """Wrap `main(argv) -> exit code`: a StecError becomes one sentence on stderr and its exit code; Ctrl-C becomes 130.

    A reader that has heard enough (`stec-shards ls | head`) ends the command quietly, with exit code 0.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            code = main(argv)
            sys.stdout.flush()  # here, not when the interpreter is gone and nobody can catch what happens
            return code
        except StecError as error:
            if not error.shared or os.environ.get("RANK", "0") == "0":
                print(f"stec: error: {' '.join(str(error).split())}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            if not _reader_gone():
                raise
            return 0
        except SystemExit as ended:
            # A console of rich ends the program so, with exit code 1, when its reader is gone.
            if isinstance(ended.__context__, BrokenPipeError):
                return 0
            raise

    return wrapped


@contextmanager
def logged() -> Iterator[None]:
    """What the library logs (that data is being packed, what is left out and why) goes to stderr."""
    logger, handler = logging.getLogger("stec"), logging.StreamHandler()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _reader_gone() -> bool:
    """Is it stdout that broke (and not, say, the pipe to a worker)? If so, what is left for it goes nowhere."""
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)  # errors are reported unasked
    gone = bool(watch.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone
