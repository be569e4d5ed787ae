"""Several ranks, and what happens to one of them at a given step; for `before=` of a command."""

import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.distributed.elastic.multiprocessing.errors import record
from torch.distributed.launcher.api import elastic_launch
from torch.distributed.run import config_from_args, parse_args

from stec.cli.train import main
from stec.training.ranks import leave
from stec.training.run import Run

Hook = Callable[[], object]


def both(*hooks: Hook) -> None:
    for hook in hooks:
        hook()


def after(step: int, what: Callable[..., object], *given: Any, rank: int = 0) -> None:
    """what(*given) when this rank has made this optimiser step: once, for a run that goes on was there already."""
    advance = Run.advance

    def advanced(run: Run, now: int) -> None:
        advance(run, now)
        mark = run.directory / "happened"
        if now == step and int(os.environ.get("RANK", "0")) == rank and not mark.exists():
            mark.touch()
            what(*given)

    Run.advance = advanced  # type: ignore[method-assign]


def slowly(seconds: float) -> None:
    """Each optimiser step takes so much longer."""
    advance = Run.advance

    def advanced(run: Run, now: int) -> None:
        advance(run, now)
        time.sleep(seconds)

    Run.advance = advanced  # type: ignore[method-assign]


def send(number: int) -> None:
    """A signal to this process."""
    os.kill(os.getpid(), number)


def send_twice(number: int) -> None:
    """As someone in a hurry does: the second one is not the first one heard twice."""
    send(number)
    time.sleep(1.1)
    send(number)
    time.sleep(30)


def fail() -> None:
    raise RuntimeError("a fault of one rank")


def a_rank() -> None:
    """What `python -m stec.cli.train` does in the place of the command."""
    leave(record(main)() or 0)


def torchrun(words: list[str], hook: Hook | None = None) -> None:
    """What torchrun does with these options in the place of the command, but for ranks that are forked: they import
    nothing, and begin with the hook."""
    given = parse_args([*words, "nothing"])
    if given.standalone:  # as torchrun understands it
        given.rdzv_backend, given.rdzv_endpoint, given.rdzv_id = "c10d", "localhost:0", uuid.uuid4().hex
    config, _, _ = config_from_args(given)
    config.start_method = "fork"
    record(_launched)(config, hook)
    sys.exit(0)


def _launched(config: Any, hook: Hook | None) -> None:
    elastic_launch(config, _begin)(sys.argv, hook)


def _begin(argv: list[str], hook: Hook | None) -> None:
    sys.argv = argv
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if hook is not None:
        hook()
    if code := record(main)():
        leave(code)  # else it is by returning that a function tells the agent of success


def two(hook: Hook | None = None, *words: str) -> Hook:
    return partial(torchrun, ["--standalone", "--nproc-per-node", "2", *words], hook)
