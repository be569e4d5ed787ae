"""The commands as a shell starts them: processes of their own, with arguments, a folder, limits; but forked from one
that has imported everything already, which saves the seconds that every start would take."""

import importlib
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
IMPORTED = [
    *(target.partition(":")[0] for target in SCRIPTS.values()),
    *("stec.experiment", "stec_vision.decode", "stec_vision.encoders", "stec_vision.actions", "stec_vision.packers"),
    *("stec_vision.nuisance", "stec_vision.pictures", "sklearn.linear_model", "torch.utils.tensorboard", "timm.optim"),
    *("stec_audio.decode", "stec_audio.encoders", "stec_audio.actions", "stec_audio.folders", "stec_audio.speakers"),
]
# A command that has said nothing for so long hangs.
PATIENCE = 240.0


class Ended(NamedTuple):
    """How a command ended: exit code (negative: the signal that killed it), and what it said."""

    code: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one sentence that a refusal ends in; AssertionError if it is no refusal, or says more than that."""
        assert self.code != 0, f"it was not refused: {self.out}"
        assert "Traceback" not in self.out + self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith("stec: error: ")]
        assert len(lines) == 1, self.err
        assert self.err.splitlines()[-1] == lines[0], self.err
        return lines[0].removeprefix("stec: error: ")


class Started:
    """A command that runs: wait() for its end, signal it by `pid`, look at what it has said so far."""

    def __init__(self, words: Sequence[str], place: Path, env: Mapping[str, str], before: Callable[[], object] | None,
                 file_size: int | None, log: Path):  # fmt: skip
        self.out_path, self.err_path = log.with_suffix(".out"), log.with_suffix(".err")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        # The server's environment is that of whichever test began it: this is the one of now.
        whole = {**os.environ, "STEC_CACHE": f"{place}/cache", "COLUMNS": "200", **env}
        given = (list(words), str(place), whole, before, file_size, str(self.out_path), str(self.err_path))
        self.process = context.Process(target=_run, args=given)
        self.process.start()
        self.pid = int(self.process.pid or 0)

    @property
    def said(self) -> str:
        return "".join(path.read_text(errors="replace") for path in (self.out_path, self.err_path) if path.exists())

    def wait(self, timeout: float = PATIENCE) -> Ended:
        try:
            self.process.join(timeout)
            code = self.process.exitcode
            assert code is not None, f"it hangs: {self.said}"
        except BaseException:
            self.kill()
            raise
        return Ended(code, self.out_path.read_text(errors="replace"), self.err_path.read_text(errors="replace"))

    def kill(self) -> None:
        """End it, if it runs, and with it whatever it began."""
        self.process.kill()
        self.process.join()
        with suppress(ProcessLookupError):  # nothing of it is left
            os.killpg(self.pid, signal.SIGKILL)

    def wait_for(self, holds: Callable[[], object], timeout: float = PATIENCE) -> None:
        """Wait until holds() is true, as long as the command runs."""
        until = time.monotonic() + timeout
        while not holds():
            assert self.process.is_alive(), self.said
            assert time.monotonic() < until, self.said
            time.sleep(0.005)


class Commands:
    """Starts commands in a folder. before: a function of a test module, called in the new process ahead of the command.
    file_size: no file may become longer (bytes), as on a disk that is full."""

    def __init__(self, place: Path):
        self.place = place
        self._started: list[Started] = []

    def start(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        before: Callable[[], object] | None = None,
        file_size: int | None = None,
    ) -> Started:
        (self.place / ".said").mkdir(exist_ok=True)
        log = self.place / ".said" / f"{os.getpid()}-{time.monotonic_ns()}"
        self._started.append(Started(words, self.place, env or {}, before, file_size, log))
        return self._started[-1]

    def __call__(self, *words: str, timeout: float = PATIENCE, **options: object) -> Ended:
        return self.start(*words, **options).wait(timeout)  # type: ignore[arg-type]

    def kill(self) -> None:
        """End all that is left of what was started."""
        for started in self._started:
            started.kill()


def _run(words, place, env, before, file_size, out, err):  # type: ignore[no-untyped-def]
    os.setsid()  # a group of its own, to be killed as one
    for path, number in ((out, 1), (err, 2)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
    os.chdir(place)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = list(words)
    multiprocessing.set_start_method("fork", force=True)  # as a shell's child has it, not as we were made
    module, _, name = SCRIPTS[words[0]].partition(":")
    main = getattr(importlib.import_module(module), name)
    if before is not None:
        before()
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    sys.exit(main())


def plain(text: str, place: Path) -> str:
    """What was seen, without what differs between machines and days."""
    text = text.replace(f"{place}/", "").replace(str(place), ".")
    text = re.sub(rf"(\bprocess \d+ on ){re.escape(os.uname().nodename)}(?![\w-])", r"\1HOST", text)
    text = re.sub(r"\bpid \d+|\bprocess \d+", lambda found: f"{found[0].split()[0]} N", text)
    text = re.sub(r"[\d,.]+ MB are free", "N MB are free", text)
    return " ".join(text.split())
