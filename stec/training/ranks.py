"""The processes that torchrun (or Slurm, with the same variables) started: brought together, and taken apart again."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist

# A rank that hears nothing for so long gives up: longer than an evaluation on the first rank alone may take.
_PATIENCE = timedelta(hours=2)


def leave(code: int) -> NoReturn:
    """End this process with an exit code. One of several ranks leaves without Python's own taking apart: everything is
    written by now, and gloo's threads, if they are still there, would now and then turn the end into an abort."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


@contextmanager
def ranks(device: torch.device) -> Iterator[None]:
    """A process group for as long as the block lasts, if WORLD_SIZE says that there are several processes: NCCL between
    GPUs, gloo between CPUs. Alone, nothing happens."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", timeout=_PATIENCE, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield
        dist.barrier()  # nobody goes while another may still be talking to it
    finally:
        dist.destroy_process_group()
