"""How a command ends, in processes as a shell starts them."""

import subprocess
import sys

import pytest

from stec.cli.door import guarded
from stec.errors import DataError, NonFinite, StecError, UsageError

OPENING = "import sys\nfrom stec.cli.door import guarded\nfrom stec.errors import *\n@guarded\ndef main(argv):\n"


def command(body: str) -> list[str]:
    return [sys.executable, "-c", f"{OPENING}    {body}\nsys.exit(main())"]


@pytest.mark.parametrize(("error", "code"), [(StecError, 1), (UsageError, 2), (NonFinite, 3), (DataError, 4)])
def test_an_error_is_one_sentence_and_its_code(error, code, capsys):
    @guarded
    def main(argv: list[str] | None) -> int:
        raise error("training.epochs=0 must\n  be at least 1.")

    assert main([]) == code
    assert capsys.readouterr() == ("", "stec: error: training.epochs=0 must be at least 1.\n")


def test_what_all_ranks_say_is_printed_by_the_first(monkeypatch, capsys):
    @guarded
    def main(argv: list[str] | None) -> int:
        error = UsageError("in use.")
        error.shared = argv is not None
        raise error

    monkeypatch.setenv("RANK", "1")
    assert main([]) == 2
    assert capsys.readouterr().err == ""
    assert main() == 2
    assert capsys.readouterr().err == "stec: error: in use.\n"
    monkeypatch.setenv("RANK", "0")
    main([])
    assert capsys.readouterr().err == "stec: error: in use.\n"


def test_arguments_and_code_pass_through():
    @guarded
    def main(argv: list[str] | None) -> int:
        """What it does."""
        return len(argv or ())

    assert (main(), main(["a", "b"])) == (0, 2)
    assert main.__doc__ == "What it does."


def test_an_interrupt_is_130():
    @guarded
    def main(argv: list[str] | None) -> int:
        raise KeyboardInterrupt

    assert main([]) == 130


def test_a_bug_keeps_its_traceback():
    ended = subprocess.run(command("return 1 // 0"), capture_output=True, text=True)
    assert ended.returncode == 1
    assert "ZeroDivisionError" in ended.stderr


def test_a_real_process_ends_with_the_code():
    ended = subprocess.run(command("raise UsageError('no such recipe.')"), capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "stec: error: no such recipe.\n")


# A console of its own, which ends the program when its reader is gone.
RICH = "from rich.console import Console\n    [Console().print('x' * 99) for _ in range(9999)]\n    return 0"


@pytest.mark.parametrize(
    "body", ["print('x')\n    return 0", "[print('x' * 99) for _ in range(9999)]\n    return 0", RICH]
)
def test_a_reader_that_left_ends_the_command_quietly(body):
    with subprocess.Popen(command(body), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_any_other_broken_pipe_is_a_failure():
    ended = subprocess.run(command("raise BrokenPipeError('a worker is gone')"), capture_output=True, text=True)
    assert ended.returncode == 1
    assert "a worker is gone" in ended.stderr
