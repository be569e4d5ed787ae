"""Work in processes of its own, begun by a server that has imported everything already."""

import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable

import torch.distributed as dist
import torch.multiprocessing as mp
from faults.commands import IMPORTED

WORLD = 2


def apart(work: Callable[..., object], *given: object) -> int:
    """The exit code of a process that does work(*given); negative: the signal that killed it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=work, args=given)
    process.start()
    process.join(600)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def on_two_ranks(work: Callable[..., None], *given: object) -> None:
    """work(rank, *given) in two processes; what one of them raises is raised here."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(IMPORTED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mp.start_processes(_one, (work, *given), nprocs=WORLD, start_method="forkserver")


def _one(rank: int, work: Callable[..., None], *given: object) -> None:
    """Without taking the group apart: once in a while gloo hangs over it if a model that it served goes later."""
    work(rank, *given)
    if dist.is_initialized():
        dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
