"""How often ranks compare notes about signals, and what they say of one that is missing."""

import time

import pytest
import torch
import torch.distributed as dist

from stec import distributed
from stec.training import ranks, signals
from stec.training.options import Hardware
from stec.training.signals import Ears

CPU = torch.device("cpu")


class Clock:
    now = 1000.0


@pytest.fixture
def agreed(monkeypatch):
    """agreed(first step, seconds of each) -> the steps at which two ranks would compare notes, of thirty."""

    def compare(first, seconds):
        asked, clock, at = [], Clock(), 0
        monkeypatch.setattr(time, "monotonic", lambda: clock.now)
        monkeypatch.setattr(signals, "world_size", lambda: 2)
        monkeypatch.setattr(dist, "all_reduce", lambda told, _: asked.append(at))
        ears = Ears()
        for at in range(first + 1, first + 31):
            clock.now += seconds(at)
            ears.agree(at, CPU)
        ears.close()
        return asked

    return compare


def test_quick_steps_compare_notes_once_in_ten(agreed):
    assert agreed(0, lambda _: 0.01) == [1, 2, 12, 22]
    assert agreed(700, lambda _: 0.0) == [701, 702, 712, 722]


def test_slow_steps_compare_notes_within_two_seconds(agreed):
    assert agreed(0, lambda _: 0.5)[:5] == [1, 2, 6, 10, 14]
    assert agreed(0, lambda _: 3.0) == list(range(1, 31))
    assert agreed(70_000, lambda _: 3.0) == list(range(70_001, 70_031)), "a run that goes on as well"


def test_slow_first_steps_are_soon_forgotten(agreed):
    """While kernels are chosen and compiled, say."""
    assert agreed(0, lambda step: 60 if step < 3 else 0.01) == [1, 2, 3, 13, 23]


def test_those_that_miss_nobody_are_missed(monkeypatch):
    store = dist.HashStore()
    for number in (0, 2):
        store.set(f"misses/{number}", "")
    monkeypatch.setattr(ranks, "_ROLL_CALL", 0.0)
    monkeypatch.setattr(distributed, "rank", lambda: 3)
    monkeypatch.setattr(distributed, "world_size", lambda: 5)
    crew = ranks.Crew(store, 20)
    crew.at = lambda: "step 7"
    assert str(crew.missed()).startswith("rank 3 misses rank 1, 4 at step 7: ")


def test_without_the_list_another_rank_is_missed(monkeypatch):
    monkeypatch.setattr(ranks, "_ROLL_CALL", 0.0)
    assert str(ranks.Crew(None, 20).missed()).startswith("rank 0 misses another rank at the start: ")


@pytest.mark.parametrize(
    ("name", "value"), [("WORLD_SIZE", "two"), ("WORLD_SIZE", "-1"), ("RANK", "1.5"), ("RANK", "2")]
)
def test_an_environment_that_is_no_launchers_is_refused(monkeypatch, name, value):
    for key, given in {"WORLD_SIZE": "2", "RANK": "0", name: value}.items():
        monkeypatch.setenv(key, given)
    with pytest.raises(ranks.UsageError, match=f"^{name}={value} in the environment"), ranks.ranks(CPU, 1):
        pass


def test_a_rank_of_this_machine_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "first")
    with pytest.raises(ranks.UsageError, match=r"^LOCAL_RANK=first in the environment"):
        Hardware(device="cpu")
