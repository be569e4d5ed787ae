"""How every command ends: with a sentence and an exit code, never with a traceback for the user's own slip."""

import functools
import sys
from collections.abc import Callable

from stec.errors import StecError

Main = Callable[[list[str] | None], int]


def guarded(main: Main) -> Callable[..., int]:
    """Wrap `main(argv) -> exit code`: a StecError becomes one sentence on stderr and its exit code; Ctrl-C becomes 130."""

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            return main(argv)
        except StecError as error:
            print(f"stec: error: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # `stec-shards ls | head`
            sys.stderr.close()
            return 0

    return wrapped
