"""How much of the machine is ours, and what torchrun says of it in the environment. A leaf."""

import os

from stec.errors import UsageError


def cores() -> int:
    """CPU cores this process may use, shared out among the processes that torchrun started on this machine."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, mine // max(1, told("LOCAL_WORLD_SIZE", 1)))


def told(name: str, otherwise: int | None) -> int:
    """A whole number in the environment, `otherwise` if there is none; UsageError if there is something else."""
    text = os.environ.get(name)
    if text is None and otherwise is not None:
        return otherwise
    if text is None or not text.isdecimal():
        raise UsageError(f"{name}={text or ''} in the environment must be a whole number, as torchrun sets it.")
    return int(text)
