"""SIGTERM, SIGINT, SIGUSR1: finish the step, then end in good order. Ctrl-C once more, a second later: end at once."""

import os
import signal
import threading
import time
from types import FrameType

import torch
import torch.distributed as dist

from stec.distributed import world_size

HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Ranks compare notes once in so many steps, since the comparison waits for the device, but not later than after so many
# seconds, if a step takes less: torchrun kills after 30.
_AGREE_EVERY, _AGREE_WITHIN = 10, 2.0
# One request may arrive several times: Slurm and a terminal tell torchrun and the ranks, and torchrun tells the ranks.
_ONE_REQUEST = 1.0


class Ears:
    """Hears the signals of this process, and those of the other ranks; close() restores what was there before.

    Only SIGINT can ask for more haste: a repeated SIGTERM is the same request. Only the main thread can hear:
    elsewhere nothing is installed.
    """

    def __init__(self) -> None:
        self.heard, self._owner = 0, os.getpid()
        self._pressed: float | None = None
        self._agreed: tuple[int, float] | None = None
        self._next = 0
        main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.signal(number, self._hear) for number in HEARD} if main else {}

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a forked loading process: it ends when its parent does
            return
        self.heard = self.heard or number
        if number != signal.SIGINT:
            return
        now = time.monotonic()
        if self._pressed is None:
            self._pressed = now
        elif now - self._pressed >= _ONE_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            os.kill(self._owner, number)

    def agree(self, step: int, device: torch.device) -> int:
        """The number of the signal that any rank has heard, else 0: the same answer on all ranks."""
        if world_size() == 1:
            return self.heard
        if step < self._next:
            return 0
        now = time.monotonic()
        before, since = self._agreed or (step - 1, now - _AGREE_WITHIN)  # of one step the pace is not known yet
        self._agreed = step, now
        told = torch.tensor([float(self.heard), (now - since) / (step - before)], device=device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        number, pace = told.tolist()
        self._next = step + max(1, min(_AGREE_EVERY, int(_AGREE_WITHIN / max(pace, 1e-9))))
        return int(number)

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
