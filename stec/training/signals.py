"""SIGTERM and SIGINT: finish the step, then end in good order. Asked twice: end at once."""

import os
import signal
import threading
from types import FrameType

import torch
import torch.distributed as dist

from stec.distributed import world_size

HEARD = (signal.SIGTERM, signal.SIGINT)
# Ranks compare notes once in this many steps, since the comparison waits for the device. (torchrun kills after 30 s.)
_AGREE_EVERY = 10


class Ears:
    """Hears the signals of this process, and those of the other ranks; close() restores what was there before.

    Only the main thread can hear: elsewhere nothing is installed.
    """

    def __init__(self) -> None:
        self.heard, self._owner = 0, os.getpid()
        main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.signal(number, self._hear) for number in HEARD} if main else {}

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a forked loading process: it ends when its parent does
            return
        if self.heard:
            signal.signal(number, signal.SIG_DFL)
            os.kill(self._owner, number)
        self.heard = number

    def agree(self, step: int, device: torch.device) -> int:
        """The number of the signal that any rank has heard, else 0: the same answer on all ranks."""
        if world_size() == 1:
            return self.heard
        if step % _AGREE_EVERY:
            return 0
        number = torch.tensor(self.heard, device=device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return int(number)

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
