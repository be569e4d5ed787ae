"""Where the faults happen, and the page that tells of them.

Each test with the mark `fault` is a line of docs/faults.md: it hands what it saw to the fixture `seen`, which compares
it with the page; `make faults` writes the page anew from what was seen.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import ROOT, Commands, Ended, plain
from tiny_run import TINY, draw

PAGE = ROOT / "docs" / "faults.md"
WRITTEN = pytest.StashKey[dict[tuple[int, str], str]]()
_HEAD = (ROOT / "tests" / "faults" / "page.md").read_text(encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-faults", action="store_true", help="write docs/faults.md from what is seen")


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pictures/, and shards/ packed of them, of which nothing is ever changed: copy them first."""
    root = tmp_path_factory.mktemp("faults")
    draw(root / "pictures")
    ended = Commands(root)("stec-shards", "pack", "pictures", "--packer", "image_folder", "--out", "shards")
    assert ended.code == 0, ended.err
    return root


@pytest.fixture
def place(tmp_path: Path, ground: Path) -> Path:
    """A fresh folder in which data=shards and data=pictures lead to what must not be changed."""
    (tmp_path / "shards").symlink_to(ground / "shards")
    (tmp_path / "pictures").symlink_to(ground / "pictures")
    return tmp_path


@pytest.fixture
def command(place: Path) -> Iterator[Commands]:
    """command("stec-train", ...) -> Ended, in `place`; command.start(...) does not wait. Nothing outlives the test."""
    commands = Commands(place)
    yield commands
    commands.kill()


@pytest.fixture
def train(command: Commands) -> Callable[..., Ended]:
    """train("run_dir=x", ...) -> Ended: the tiny run on data=shards, unless told otherwise."""

    def run(*words: str, **options: object) -> Ended:
        data = [] if any(word.startswith("data=") for word in words) else ["data=shards"]
        return command("stec-train", *TINY, *data, *words, **options)

    return run


@pytest.fixture
def seen(request: pytest.FixtureRequest, place: Path) -> Iterator[Callable[[Ended | str], None]]:
    """seen(ended): a refusal, with its exit code and sentence; seen("..."): what was survived, in words."""
    (mark,) = request.node.iter_markers("fault")
    number, fault, promise = mark.args
    found: list[str] = []

    def note(what: Ended | str) -> None:
        text = what if isinstance(what, str) else f"exit code {what.code}: {what.refusal}"
        found.append(plain(text, place).replace("|", "\\|"))

    yield note
    (what,) = found  # a test with this fixture sees one thing
    line = f"| {number} | {fault} | {promise} | {what} |"
    if request.config.getoption("--write-faults", default=False):
        request.config.stash.setdefault(WRITTEN, {})[number, fault] = line
    else:
        assert line in PAGE.read_text(encoding="utf-8"), f"`make faults` would write another line: {line}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The lines that were seen take the place of those of the same fault."""
    if seen := session.config.stash.get(WRITTEN, {}):
        old = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
        lines = {key: line for line in old if (key := _key(line))} | seen
        PAGE.write_text(_HEAD + "\n".join(lines[key] for key in sorted(lines)) + "\n", encoding="utf-8")


def _key(line: str) -> tuple[int, str] | None:
    """Number and fault of a line of the page, None of another line."""
    cells = line.split(" | ")
    number = cells[0].removeprefix("| ")
    return (int(number), cells[1]) if number.isdecimal() else None
