"""What was learnt when: the end of a curve, half of it, and which lines stand in which panel of the figure."""

import math

import numpy as np
import pytest

from stec.errors import UsageError
from stec.report.dynamics import Half, Learnt, at_the_end, draw, halves
from stec.report.facts import Curve
from stec.report.figure import COLOURS, INK, SOFT, save


def curve(values, every=10):
    return Curve(np.arange(len(values)) * every, np.array(values, dtype=float))


def test_the_end_is_the_mean_of_the_last_tenth_of_what_is_finite():
    assert at_the_end(curve([*range(18), 30, 50])) == 40
    assert at_the_end(curve([1, 2, 3])) == 3
    assert at_the_end(curve([1, 7, math.nan])) == 7
    assert math.isnan(at_the_end(curve([math.nan])))


def test_a_component_is_half_learnt_at_the_first_step_with_half_of_its_final_bits():
    curves = {
        "train/action_bits/early": curve([0, math.nan, 0.6, 0.4, 1.0]),
        "train/action_bits/late": curve([-0.1, 0, 0.1, 0.9, 2.0]),
        "train/action_bits/never": curve([-0.1, 0, 0, 0.004, 0.005]),
        "train/action_acc/early": curve([1, 1, 1, 1, 1]),
    }
    assert halves(curves) == {"early": Half(1.0, 20), "late": Half(2.0, 40), "never": Half(0.005, None)}


def learnt(name, components, chance=1.79):
    curves = {"train/loss_id": curve([3, 2, 1]), "train/loss_manip": curve([1.8, 1.5, 1.2])}
    curves |= {f"train/action_bits/{c}": curve([0, 0.5, 1]) for c in components}
    levels = {"train/loss_manip": chance} | {f"train/action_bits/{c}": 0.0 for c in components}
    return Learnt(name, curves, levels)


def panels(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}


def test_rows_are_what_there_is_and_runs_stand_side_by_side():
    figure = draw([learnt("one", ["a", "b"]), learnt("two", ["b"])])
    assert len(figure.axes) == 6  # no row for what neither has been measured on
    assert list(panels(figure)) == ["identity loss", "manipulation loss", "what is read of the action"]
    assert [axes.texts[0].get_text() for axes in figure.axes[:2]] == ["one", "two"]


def test_a_component_has_one_colour_in_all_runs():
    figure = draw([learnt("one", ["a", "b"]), learnt("two", ["b"])])
    left, right = figure.axes[4:]
    assert [line.get_color() for line in left.lines] == [COLOURS[0], COLOURS[1], INK]
    assert [line.get_color() for line in right.lines] == [COLOURS[1], INK]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["a", "b", "chance"]


def test_the_chance_level_of_each_run_is_a_line():
    figure = draw([learnt("one", ["a"]), learnt("two", ["a"], chance=1.0)])
    for axes, level in zip(figure.axes[2:4], (1.79, 1.0), strict=True):
        assert list(axes.lines[-1].get_ydata()) == [level, level]
    assert len(figure.axes[0].lines) == 1  # none is known of the identity loss


def test_several_terms_are_told_apart_with_their_sum_first():
    curves = {f"train/loss_id{name}": curve([2, 1]) for name in ("/cpc", "/other", "")}
    (axes,) = draw([Learnt("run", curves)]).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["all", "cpc", "other"]


def test_a_figure_is_written_or_the_option_is_named(tmp_path):
    figure = draw([learnt("one", ["a"])])
    save(figure, tmp_path / "a.out", "--out")
    assert (tmp_path / "a.out").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match=f"--out {tmp_path} cannot be written"):
        save(figure, tmp_path, "--out")


def test_the_colours_are_those_of_the_page():
    assert len(set(COLOURS)) == 10
    assert (COLOURS[0], INK, SOFT) == ("#3f7fc8", "#23272d", "#68707a")
