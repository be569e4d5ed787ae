"""How every command ends: with a sentence and an exit code, never with a traceback for the user's own slip."""

import errno
import functools
import logging
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from stec.errors import StecError, UsageError

# Met while writing, when python does not say to which file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)

Main = Callable[[list[str] | None], int]


def guarded(main: Main) -> Callable[..., int]:
    """Wrap `main(argv) -> exit code`: a StecError becomes one sentence on stderr and its exit code; Ctrl-C becomes 130.

    So does what the system refuses to do with a file, wherever nobody saw it coming. A reader that has heard enough
    (`stec-shards ls | head`) ends the command quietly, with exit code 0.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            code = main(argv)
            sys.stdout.flush()  # here, not when the interpreter is gone and nobody can catch what happens
            return code
        except StecError as error:
            if not error.shared or os.environ.get("RANK", "0") == "0":
                _say(str(error), "error: " if error.exit_code else "")
            return error.exit_code
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            if not _reader_gone():
                raise
            return 0
        except OSError as error:
            if error.filename is None and error.errno not in _FULL:
                raise
            _say(f"{_named(error)}{error.strerror or error}.")
            return UsageError.exit_code
        except SystemExit as ended:
            # A console of rich ends the program so, with exit code 1, when its reader is gone.
            if isinstance(ended.__context__, BrokenPipeError):
                return 0
            raise

    return wrapped


def _say(sentence: str, kind: str = "error: ") -> None:
    """On stderr, if that can be written to: it may lead to the same full disk."""
    with suppress(OSError):
        print(f"stec: {kind}{' '.join(sentence.split())}", file=sys.stderr)
    _let_go()


def _let_go() -> None:
    """What stdout still holds and cannot get rid of goes nowhere: python would complain of it once more at the end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _named(error: OSError) -> str:
    """The file that an error is about, as the beginning of a sentence."""
    if error.filename is None:
        return "a file could not be written: "
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    return f"{name if len(name) < 200 else name[:100] + '...' + name[-80:]}: "


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
