"""Things made ahead by processes, in an order that is not theirs: a DataLoader whose workers may die."""

import logging
import multiprocessing
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from stec.errors import DataError, StecError, UsageError, at_least

Part = TypeVar("Part")
Item = TypeVar("Item")

PATIENCE = 600.0
"""Seconds after which workers that deliver nothing are given up."""
# Seconds between two looks at whether the workers are still alive, while nothing comes.
_GLANCE = 1


def worked(
    make: Callable[[Part], Item],
    parts: Sequence[Part],
    *,
    num_workers: int,
    name: Callable[[Part], str],
    patience: float = PATIENCE,
) -> Iterator[Item]:
    """make(part) of each part, in order, made ahead by num_workers processes; what goes wrong there is raised here.

    It must not matter which process makes a part: those that die (for want of memory, say) are replaced, and what they
    had not delivered is made again, its first part alone, for it may be the cause. StecError, with the name of the
    part, if they die over it once more, or deliver nothing for `patience` seconds.
    """
    at_least(0, "hardware", num_workers=num_workers)
    done, died_at = 0, -1
    while done < len(parts):
        some = parts[done : done + 1] if done == died_at else parts[done:]
        try:
            for item in _delivered(make, some, num_workers, patience):
                if isinstance(item, StecError):
                    raise item
                yield item
                done += 1
        except _Lost as lost:
            what = f"{lost} while {name(parts[done])} was waited for"
            if lost.hang or died_at == done:
                raise StecError(
                    f"a process that reads data for this one is lost: {what}. Was it killed for want of memory, is"
                    " /dev/shm full, or does the disk hang? Fewer hardware.num_workers need less memory, and 0 works"
                    " without such processes."
                ) from lost
            died_at = done
            logging.getLogger("stec").warning("loading processes begun again: %s", what)


class _Lost(Exception):
    """Workers died, or (hang) deliver nothing."""

    def __init__(self, sentence: str, hang: bool):
        super().__init__(sentence)
        self.hang = hang


def _delivered(
    make: Callable[[Part], Item], parts: Sequence[Part], num_workers: int, patience: float
) -> Iterator[Item | StecError]:
    """The items of a DataLoader; _Lost if its workers die, or none comes for `patience` seconds."""
    loader: DataLoader[Any] = DataLoader(
        _Made(make),
        batch_size=None,  # an item is a batch already
        sampler=parts,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        timeout=min(_GLANCE, patience) if num_workers else 0,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # torch draws a seed for workers, which have no use for it: not from the trainer's
    )
    others = set(multiprocessing.active_children())
    with _deaths_unheard():
        items = iter(loader)
    workers = set(multiprocessing.active_children()) - others
    since, lost = time.monotonic(), None
    while lost is None:
        try:
            item = next(items)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            if not num_workers:
                raise
            waits = "timed out" in str(error)
            if waits and time.monotonic() - since < patience:
                continue
            what = f"nothing came for {patience:g} s" if waits else f"one died ({_first_line(error)})"
            lost = _Lost(what, hang=waits)
            continue
        yield item
        since = time.monotonic()
    del items  # which ends its workers; raised here, not above, for an error from within the loader would hold on to it
    for worker in workers:
        if worker.is_alive():  # it hangs where it hears no SIGTERM, and the main process would wait for it at its end
            worker.kill()
            worker.join()
        # One that dies while it begins a segment of shared memory leaves it behind, for ever.
        for segment in Path("/dev/shm").glob(f"torch_{worker.pid}_*"):
            segment.unlink(missing_ok=True)
    raise lost


@contextmanager
def _deaths_unheard() -> Iterator[None]:
    """A loader made within it does not raise the death of a worker wherever the main process happens to be, say in the
    middle of a step: it is enough to hear of it when the next item is waited for."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    if threading.current_thread() is threading.main_thread() and before is not None:
        signal.signal(signal.SIGCHLD, before)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].strip().rstrip(".")


class _Made(Dataset[Any]):
    """make(part) as an item; an error is an item too, since torch would give it another type and many lines."""

    def __init__(self, make: Callable[[Any], Any]):
        self._make = make

    def __getitem__(self, part: Any) -> Any:
        try:
            item = self._make(part)
            if get_worker_info() is not None:
                _share(item)
            return item
        except (UsageError, DataError) as error:
            return error
        except Exception as error:  # a fault of a decoder or an action space: its traceback travels along as a note
            failure = error if isinstance(error, StecError) else _failure(error)
            failure.add_note(traceback.format_exc())
            return failure


def _share(item: Any) -> None:
    """Move the tensors of an item to where the main process finds them. torch would do so later, in a thread that loses
    the item if there is no room."""
    if isinstance(item, Tensor):
        item.share_memory_()
    elif isinstance(item, (tuple, list)):
        for part in item:
            _share(part)


def _failure(error: Exception) -> StecError:
    if re.match("unable to (open|resize|write|allocate|mmap) ", str(error)) is None:  # of files, and of shared memory
        return StecError(f"{type(error).__name__}: {error}")
    return StecError(
        f"no shared memory for what a loading process hands over ({_first_line(error)}): is /dev/shm full, or"
        " as small as in a container (docker run --shm-size=8g)? Fewer hardware.num_workers need less, 0 none."
    )


def _as_it_is(item: Item) -> Item:
    return item


def _begin_worker(_: int) -> None:
    """Leave it to the main process what a signal to all processes of a run means (Ctrl-C, a scheduler, torchrun): it
    finishes its step, which a dying worker would break; but obey the main process, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main = multiprocessing.parent_process()
    if main is not None and hasattr(signal, "sigtimedwait"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_follow, args=(main.pid, os.getppid()), daemon=True).start()


def _follow(main: int, parent: int) -> None:
    while os.getppid() == parent:
        came = signal.sigtimedwait({signal.SIGTERM}, 0.5)
        if came is not None and came.si_pid == main:
            break
    os._exit(0)
