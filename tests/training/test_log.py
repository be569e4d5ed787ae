"""The clock, and what is shown with and without a terminal."""

import io
import re
import time

import pytest
from rich.console import Console

from stec.training.log import Clock, Display, Timing, sentence


def test_the_clock_counts_waiting_and_what_is_left(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clock = Clock()

    def slow():
        nonlocal now
        for number in range(4):
            now += 3.0  # until the batch arrives
            yield number

    for _ in clock.waits(slow()):
        now += 1.0  # the step itself
    timing = clock.read(batch_size=8, steps_left=100)
    assert timing == pytest.approx(Timing(rate=2.0, data_wait=0.75, eta=400.0))
    assert str(timing) == "2 samples/s, data wait 75%, ETA 0:06:40"
    assert clock.read(8, 100) is None


def test_plain_lines_keep_their_distance(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    out = io.StringIO()
    display = Display(Console(file=out, soft_wrap=True))
    display.start(0, 10)
    shown = []
    for step, seconds in enumerate([0, 1, 2, 6, 7, 7.5]):
        now = float(seconds)
        shown.append(display.line(f"line {step}", last=step == 5))
    display.close()
    assert shown == [True, False, False, True, False, True]
    assert out.getvalue().split() == ["line", "0", "line", "3", "line", "5"]


def test_a_terminal_gets_a_bar_which_is_gone_at_the_end():
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=True, width=200))
    display.start(3, 10)
    display.advance(4)
    display.line("step 4/10  loss 1.234", last=False)
    display.bar.refresh()
    assert display.bar.tasks[0].completed == 4
    display.close()
    assert "loss 1.234" in out.getvalue()
    assert display.bar is None
    display.close()


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_shows_all_of_the_line(width):
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=True, width=width, color_system=None))
    display.start(0, 12_000)
    values = {"train/loss": 13.796, "train/loss_id": 5.981, "train/loss_manip": 1.834, "probe/online/top1": 0.117}
    display.line(sentence(120, 12_000, 0.14, values, Timing(1234.5, 0.04, 4831)), last=False)
    display.bar.refresh()
    display.close()
    words = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", out.getvalue()).split())
    assert "…" not in words
    for part in ("step", "0/12000", "13.796", "1.834", "0.117", "samples/s,", "1:20:31"):
        assert part in words


def test_the_sentence_names_the_losses_it_knows():
    values = {"train/loss": 4.5, "train/loss_id": 2.0, "probe/online/top1": 0.25, "train/lr": 0.1}
    assert sentence(5, 9, 1.5, values, None) == "step 5/9  epoch 1.50  loss 4.500  id 2.000  top1 0.250"
