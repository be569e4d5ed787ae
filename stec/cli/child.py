"""stec-train in a process of its own, which is asked to stop when we are."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def train(words: list[str], gpus: int = 1) -> int:
    """Its exit code. Asked to stop, it is asked in turn, once, and waited for. gpus: so many processes at once."""
    several = ["torch.distributed.run", "--nproc-per-node", str(gpus), "-m"] if gpus > 1 else []
    command = [sys.executable, "-m", *several, "stec.cli.train", *words]
    heard: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) == 1:
            print("stopping: the run finishes its step and saves", file=sys.stderr, flush=True)
            for child in children:
                child.send_signal(signal.SIGINT)

    with _hearing(pass_on):
        # Not of our process group: a terminal would tell it too, and told twice it leaves without a checkpoint.
        children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0))
        if heard:
            children[0].send_signal(signal.SIGINT)
        code = children[0].wait()
    if heard:
        raise KeyboardInterrupt
    return code


@contextmanager
def _hearing(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
