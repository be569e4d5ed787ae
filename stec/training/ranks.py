"""The processes that torchrun (or Slurm, with the same variables) started: brought together, and taken apart again."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from stec import distributed
from stec.cores import told
from stec.errors import StecError, UsageError

# While one rank packs or evaluates alone, the others wait as long as it takes.
_AS_LONG_AS_IT_TAKES = timedelta(days=30)
# Some import everything from a cold disk.
_TO_COME = timedelta(minutes=10)
# Seconds in which the ranks that miss another one say so: those that do not are the ones that are missed.
_ROLL_CALL = 2.0


def leave(code: int) -> NoReturn:
    """End this process with an exit code. One of several ranks leaves without Python's own taking apart: everything is
    written by now, and gloo's threads, if they are still there, would now and then turn the end into an abort."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        sys.stdout.flush()
        sys.stderr.flush()
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


class Crew:
    """The ranks. at(): where this one is, for the sentence that says whom it misses."""

    def __init__(self, store: dist.Store | None, patience: float):
        self.at: Callable[[], str] = lambda: "the start"
        self._store, self._patience = store, patience

    def missed(self) -> StecError:
        """What this rank says when it waits in vain for another one, or cannot reach it any more."""
        mine, names = distributed.rank(), ""
        with suppress(RuntimeError):  # whoever keeps the store may be the one that is missed
            if self._store is not None:
                self._store.set(f"misses/{mine}", "")
                time.sleep(_ROLL_CALL)
                others = range(distributed.world_size())
                names = ", ".join(str(number) for number in others if not self._store.check([f"misses/{number}"]))
        whom = f"rank {names}" if names else "another rank"
        return StecError(
            f"rank {mine} misses {whom} at {self.at()}: it failed, was killed, or gave no sign of life for"
            f" hardware.patience={self._patience:g} seconds; the same command goes on from the last checkpoint."
        )


@contextmanager
def ranks(device: torch.device, patience: float) -> Iterator[Crew]:
    """A process group for as long as the block lasts, if WORLD_SIZE says that there are several processes: NCCL between
    GPUs, gloo between CPUs. Alone, nothing happens.

    patience: seconds that a rank waits for the others in a step. UsageError if they cannot be brought together;
    StecError, on those that are left, if one is lost.
    """
    if told("WORLD_SIZE", 1) == 1:
        yield Crew(None, patience)
        return
    crew = _assembled(device, patience)
    try:
        yield crew
        distributed.barrier()  # nobody goes while another may still be talking to it
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise crew.missed() from error
    finally:
        distributed.patient = None
        dist.destroy_process_group()


def _assembled(device: torch.device, patience: float) -> Crew:
    rank, world_size, allowed = told("RANK", None), told("WORLD_SIZE", 1), timedelta(seconds=patience)
    if not rank < world_size:
        raise UsageError(f"RANK={rank} in the environment must be below WORLD_SIZE={world_size}, as torchrun sets it.")
    gpu = device if device.type == "cuda" else None
    if gpu is not None:
        torch.cuda.set_device(gpu)
    try:
        store = next(dist.rendezvous("env://", timeout=max(allowed, _TO_COME)))[0]
        store.set_timeout(allowed)
        # torchrun keeps the store when it begins all ranks again: what the former ones left there leads nowhere.
        store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        group: dict[str, Any] = {
            "store": store,
            "rank": rank,
            "world_size": world_size,
            "timeout": allowed,
            "device_id": gpu,
        }
        dist.init_process_group("gloo" if gpu is None else "nccl", **group)
        distributed.patient = dist.new_group(backend="gloo", timeout=_AS_LONG_AS_IT_TAKES)
    except (ValueError, RuntimeError) as error:
        place = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise UsageError(
            f"{world_size} processes (WORLD_SIZE) cannot be brought together at {place} as torchrun does it:"
            f" {(str(error).splitlines() or ['?'])[0].rstrip('.')}."
        ) from error
    return Crew(dist.PrefixStore("stec", store), patience)
