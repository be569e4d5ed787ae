"""How much of the machine is ours. A leaf."""

import os


def cores() -> int:
    """CPU cores this process may use, shared out among the processes that torchrun started on this machine."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, mine // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
