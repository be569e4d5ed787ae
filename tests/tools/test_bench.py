"""The frame of tools/bench and its rows on pictures: what is timed, what the tables say of it, and that all rows work.
How fast anything is, is not tested."""

import io
import runpy
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

BENCH = Path(__file__).parents[2] / "tools/bench"
sys.path.insert(0, str(BENCH))

import clock  # noqa: E402
import contest  # noqa: E402
import measuring  # noqa: E402
import ours  # noqa: E402
import pictures  # noqa: E402
import rows_cifar  # noqa: E402
import rows_labels  # noqa: E402
import rows_loading  # noqa: E402
import rows_views  # noqa: E402
import table  # noqa: E402
from row import Options, Outcome, Row, Way, interval  # noqa: E402

SMALL = Options(rounds=1, small=True)
FAKE_ROWS = """
import os
from row import Outcome, Row
ROWS = [
    Row("R2", "fine", 4, 5, lambda options: Outcome([4.5], limit="light")),
    Row("R3", "raises", 4, 5, lambda options: 1 / 0),
    Row("G1", "without GPU", 4, 5, lambda options: Outcome(missing="no GPU")),
    Row("R10", "dies", 4, 5, lambda options: os._exit(1)),
    Row("R11", "fine, behind one that died", 4, 5, lambda options: Outcome([5.5])),
    Row("R12", "cannot be sent", 4, 5, lambda options: Outcome([lambda: 1])),
]
"""


def row(name="R1", floor=4.0, goal=5.0, most=False):
    return Row(name, "what", floor, goal, lambda options: Outcome(), most)


def test_ways_are_taken_in_turn_and_told_in_seconds_per_item():
    calls, ticks = [], count()

    def way(name, items):
        return lambda: calls.append(name) or items

    # The clock moves by 1 each time it is read: a way that is asked once takes 2, of which the second is the division.
    seconds = clock.interleaved({"a": way("a", 4), "b": way("b", 1)}, 3, least=0, clock=lambda: next(ticks))
    assert calls == ["a", "b", "b", "a"] * 2  # one round warms up
    assert seconds["b"] == [4 * each for each in seconds["a"]]
    assert len(seconds["a"]) == 3


def test_a_way_works_for_as_long_as_it_must():
    calls, ticks = [], count()
    seconds = clock.interleaved({"a": lambda: calls.append(1) or 2}, 1, least=5, clock=lambda: next(ticks))
    assert len(calls) == 2 * 5
    assert seconds["a"] == [6 / (2 * 5)]


@pytest.mark.parametrize(
    ("value", "most", "verdict"),
    [
        (5.0, False, "goal"),
        (4.0, False, "floor"),
        (3.99, False, "NOT REACHED"),
        (0.9, True, "goal"),
        (1.5, True, "floor"),
        (2.1, True, "NOT REACHED"),
    ],
)
def test_what_is_reached(value, most, verdict):
    one = row(floor=2.0, goal=1.0, most=True) if most else row()
    assert one.verdict(Outcome([value])) == verdict
    assert f"| {verdict} |" in table.rows([(one, Outcome([value]))])[-1]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([3.9, 4.5, 4.6], "undecided"),  # of so few all must reach it
        ([3.0, *[4.5] * 8], "floor"),  # of nine one may stay away
        ([3.0, 3.0, *[4.5] * 7], "undecided"),
        ([3.9, 3.8, 3.7], "NOT REACHED"),
        ([4.9, 5.1, 5.2], "floor"),
    ],
)
def test_what_is_reached_is_what_the_median_certainly_reaches(values, verdict):
    assert row().verdict(Outcome(values)) == verdict
    assert row(floor=-4.0, goal=-5.0, most=True).verdict(Outcome([-value for value in values])) == verdict
    assert row()._replace(floor=None, goal=None).verdict(Outcome(values)) == "ran"


@pytest.mark.parametrize(("rounds", "left_out"), [(1, 0), (5, 0), (8, 0), (9, 1), (11, 1), (12, 2), (15, 3), (20, 5)])
def test_the_interval_of_a_median_is_the_one_of_the_tables(rounds, left_out):
    values = np.random.default_rng(0).permutation(rounds)
    assert interval(values) == (left_out, rounds - 1 - left_out)


def test_what_rounds_to_a_floor_that_it_does_not_reach_has_one_digit_more():
    assert "| 3.997 [3.997..3.997] | NOT REACHED |" in table.rows([(row(), Outcome([3.997]))])[-1]
    assert "| 4.00 [4.00..4.00] | floor |" in table.rows([(row(), Outcome([4.001]))])[-1]
    small = row()._replace(floor=None, goal=None)
    assert "|  |  | 3.00 [3.00..3.00] | ran |" in table.rows([(small, Outcome([3.0]))])[-1]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("no decoder for <_io.BytesIO object at 0x7f01>: x."), "no decoder for <_io.BytesIO object>: x"),
        (OSError("Could not load libtorchcodec. Likely causes:\n1. FFmpeg"), "torchcodec finds no FFmpeg here"),
    ],
)
def test_an_excuse_is_the_same_in_every_run(error, said):
    assert clock.excuse(error).removeprefix("RuntimeError: ") == said


def test_without_values_the_table_says_why():
    lines = table.rows([(row("G1"), Outcome(missing="no GPU")), (row("R1"), Outcome())])
    assert "|  | no GPU |" in lines[2]
    assert "|  | nothing was measured |" in lines[3]


def test_ways_are_told_in_multiples_of_the_first_and_the_missing_in_words():
    ways = [Way("base", "images/s", [100, 110, 90]), Way("ours", "images/s", [400, 500, 450])]
    ways += [Way("memory", "MiB", [3.0]), Way("peer", "images/s", (), "kornia is not installed")]
    ways += [Way("more", "images/s", [900], base="ours")]
    base, own, memory, peer, more = table.plain([(row(), Outcome([4.5], ways))])
    assert more.endswith("900 [900..900] images/s  2.00")
    assert "100 [90..110] images/s" in base
    assert own.endswith("450 [400..500] images/s  4.50")
    assert memory.endswith("MiB")
    assert peer.endswith("kornia is not installed")
    assert "base<br>ours<br>memory<br>peer<br>more" in table.ways([(row(), Outcome([4.5], ways))])[-1]


def test_the_page_stays_short():
    ways = [Way(f"way {number}", "images/s", [1.0]) for number in range(12)]
    done = [(row(f"R{number}"), Outcome([1.0], ways)) for number in range(26)]
    page = table.page("one\ntwo", done, ["rows_x: ImportError: y"], ["![growth](growth.png)", *["* a curve"] * 8])
    assert len(page.splitlines()) <= 100
    assert page.count("NOT REACHED") == 26
    assert "rows_x: ImportError: y" in page


def test_a_row_that_fails_is_a_sentence_and_the_rest_goes_on(tmp_path, monkeypatch):
    (tmp_path / "rows_fake.py").write_text(FAKE_ROWS)
    monkeypatch.syspath_prepend(tmp_path)
    rows, problems = measuring.found(["rows_fake", "rows_being_written"])
    assert problems == ["rows_being_written: rows_being_written is not installed"]
    said = []
    done = {each.name: outcome for each, outcome in measuring.measured(rows, SMALL, said.append)}
    assert list(done) == ["R2", "R3", "R10", "R11", "R12", "G1"]
    assert list(done["R2"].values) == [4.5]
    assert done["R3"].missing == "ZeroDivisionError: division by zero"
    assert done["R10"].missing == "its process died"
    assert list(done["R11"].values) == [5.5]
    assert "pickle" in done["R12"].missing
    assert done["G1"].missing == "no GPU"
    assert len(said) == 2 * 6


def test_every_row_has_a_name_of_its_own():
    rows, problems = measuring.found(measuring.modules())
    names = [each.name for own in rows.values() for each in own]
    assert not problems
    assert len(set(names)) == len(names)
    assert {"R1", "R1b", "R1c", "R2", "R3", "R7"} <= set(names)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["R99"], "there is no row R99: R1, R1b, R1c, R2, R3"),
        (["--write", "R1"], "--write goes with neither"),
        (["--rounds", "0"], "at least 1"),
    ],
)
def test_a_wrong_command_is_one_sentence(words, said, capsys):
    # A fresh module: `__main__` is pytest's own name.
    main = runpy.run_path(str(BENCH / "__main__.py"), run_name="bench")["main"]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_peer_that_is_missing_or_fails_leaves_the_others():
    def missing():
        import no_such_peer  # noqa: F401

    made = contest.contest({"base": lambda: lambda: 1, "peer": missing, "broken": lambda: lambda: 1 / 0}, SMALL, "x/s")
    assert list(made) == ["base", "peer", "broken"]
    assert len(made["base"].values) == 1
    assert (made["peer"].missing, made["broken"].missing) == (
        "no_such_peer is not installed",
        "ZeroDivisionError: division by zero",
    )
    assert contest.over(made["peer"], made["base"], made, "").missing == "no_such_peer is not installed"


def test_pictures_are_like_imagenets_and_always_the_same():
    raws = pictures.jpegs(8)
    opened = [Image.open(io.BytesIO(raw)) for raw in raws]
    assert [image.size for image in opened] == [(500, 375), (500, 375), (500, 375), (375, 500)] * 2
    assert 60 < np.mean([len(raw) for raw in raws]) / 1000 < 140
    assert len(set(raws)) == 8
    pictures.synthesised.cache_clear()
    assert pictures.jpegs(8) == raws


def test_ours_makes_both_views_and_the_action_between_them():
    space = ours.simclr_space("fast")
    maker = ours.Maker(pictures.jpegs(2), space, ours.painting_decoder(space))
    batch, copy = maker.batch([1, 0])
    assert [(x.shape, x.dtype) for x in batch.x] == [((2, 3, 224, 224), torch.uint8)] * 2
    assert copy.values.shape == (2, 6)
    again, _ = maker.batch([1, 0])
    assert not torch.equal(batch.actions, again.actions)
    x = rows_cifar.pictures(3)
    batches, complete = ours.resident(rows_cifar.pngs(x), rows_cifar.space("exact"), batch_size=3)
    (source,) = next(batches).x
    assert {one.numpy().tobytes() for one in source} == {one.numpy().tobytes() for one in x}
    views = complete(next(batches))
    assert [x.shape for x in views.x] == [(3, 3, 32, 32)] * 2
    assert views.copies[0, 1].values.shape == (3, 6)


@pytest.mark.parametrize("module", [rows_views, rows_cifar])
def test_rows_work_on_little_data(module):
    for each in module.ROWS:
        outcome = each.measure(SMALL)
        assert not outcome.missing
        assert len(outcome.values) == 1
        assert outcome.values[0] > 0
        assert all(way.missing or len(way.values) == 1 for way in outcome.ways)
        assert all(not way.missing for way in outcome.ways if "torchvision" in way.name or "stec" in way.name)


def test_loading_works_on_little_data():
    """In a process of its own: webdataset leaves its files open."""
    ((_, outcome),) = measuring.measured({"rows_loading": rows_loading.ROWS}, SMALL, lambda line: None)
    assert not outcome.missing
    assert len(outcome.values) == 1
    assert [way.name.partition(" ")[0] for way in outcome.ways] == ["0"] * 2 + ["2"] * 2
    known = {way.name: way for way in outcome.ways}
    each = [way.values[0] / known[way.base].values[0] for way in outcome.ways if "stec" in way.name]
    assert outcome.values[0] == pytest.approx(min(each))


def test_the_labels_are_those_of_the_pixels_and_a_wrong_one_would_be_found(monkeypatch):
    (outcome,) = [each.measure(SMALL) for each in rows_labels.ROWS]
    assert outcome.values[0] < 1e-5
    assert max(way.median for way in outcome.ways if way.unit == "levels of 255") < 1
    matrix = rows_labels.AffineCrop.matrix
    beside = torch.tensor([0, 0, 0, 0.1, 0, 0, 0, 0, 0])  # a window wider by a tenth of a pixel
    monkeypatch.setattr(rows_labels.AffineCrop, "matrix", lambda self, action: matrix(self, action + beside))
    assert min(rows_labels.error(0, 8)) > 1e-4
    half = torch.tensor([0, 0.5, 0, 0, 0, 0, 0, 0, 0])  # one that lies half a pixel beside
    monkeypatch.setattr(rows_labels.AffineCrop, "matrix", lambda self, action: matrix(self, action + half))
    assert rows_labels.levels(0, 8, 1) > 1.4
