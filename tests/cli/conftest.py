"""The place where the commands of these tests find themselves, and one run that is whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_run import TINY, draw

from stec.cli.train import main


@contextmanager
def within(root: Path) -> Iterator[Path]:
    """In this folder; what is packed goes to cache/ in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEC_CACHE", str(root / "cache"))
        patch.chdir(root)
        yield root


@pytest.fixture(scope="session")
def ground(tmp_path_factory):
    root = tmp_path_factory.mktemp("train")
    draw(root / "pictures")
    return root


@pytest.fixture(scope="session")
def finished(ground):
    with within(ground):
        assert main([*TINY, "data=pictures", "run_dir=whole"]) == 0
    return ground / "whole"


@pytest.fixture
def place(ground):
    """A folder with pictures/, as the current one."""
    with within(ground):
        yield ground


@pytest.fixture
def whole(place, finished):
    """A run from its beginning to its end, not to be changed."""
    return finished
