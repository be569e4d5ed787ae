"""How a table stands, and what is to be run next."""

import copy

import pytest
from comparison.toy_table import NODE, line

from stec.comparison import tables
from stec.comparison.plan import estimated, order
from stec.comparison.standing import HEADS, cells, spread, standing
from stec.errors import UsageError

METRIC = "eval/linear/top1"
TABLE = tables.parsed(copy.deepcopy(NODE), "t", "t.yaml")
HASHES = {name: f"{name}-now" for name in TABLE.rows}
HOURS = dict.fromkeys(TABLE.rows, 0.1)


def ran(row: str, *values: float, hash: str = "now", scale: str = "paper"):
    return [line(row, seed, f"{row}-{hash}", scale=scale, metrics={METRIC: value}) for seed, value in enumerate(values)]


def told(lines, metric: str = METRIC):
    return {one.row.id: one for one in standing(TABLE, "paper", lines, HASHES, metric)}


def test_a_table_that_nobody_ran():
    found = told([])
    assert list(found) == ["base", "more", "only", "last"]
    assert found["more"].ours is None
    assert found["more"].published == pytest.approx(1.5)
    assert found["more"].verdict.full == "cannot be seen with 0 seeds: would need 4"
    assert cells(found["more"])[:4] == ("More", "61.5 ± 0.4", "not run", "0")
    assert found["base"].verdict is None
    assert len(cells(found["base"])) == len(HEADS)


def test_differences_are_of_the_same_seeds_and_in_points():
    found = told([*ran("base", 0.50, 0.52, 0.54), *ran("more", 0.512, 0.531)])["more"]
    assert found.ours.mean == pytest.approx(52.15)
    assert (found.difference.n, found.difference.mean) == (2, pytest.approx(1.15))
    assert (found.seeds, found.detectable > 0) == ((0, 1), True)
    assert cells(found)[6].startswith("+1.15 ± ")


def test_an_older_recipe_is_told_and_not_counted():
    found = told([*ran("more", 0.9, 0.9, hash="old"), *ran("base", 0.5)])["more"]
    assert (found.ours, found.stale, found.difference) == (None, 2, None)
    assert cells(found)[2:4] == ("not run", "0 (2 stale)")


def test_a_metric_that_is_no_share_stays_as_it_is_and_one_that_is_missing_is_no_run():
    lines = [line("base", 0, "base-now", scale="paper", metrics={"health/rankme": 12.5})]
    assert told(lines, "health/rankme")["base"].ours.mean == 12.5
    assert told(lines)["base"].ours is None


def test_a_row_that_is_not_at_this_scale_says_where_it_is():
    last = told([])["last"]
    assert (last.exists, last.runs, last.against) == (("small",), 0, None)
    assert cells(last)[8] == "not at this scale: there is small"
    assert cells(last, brief=True)[8] == "only at small"
    at_none = standing(TABLE, "gpu30", [], {}, METRIC)
    assert [one.exists for one in at_none] == [("paper", "small"), ("paper", "small"), ("paper",), ("small",)]


def test_another_metric_than_the_papers_stands_beside_none_of_its_numbers():
    runs = [
        line(row, seed, f"{row}-now", scale="paper", metrics={METRIC: 0.5, "health/rankme": 9.0 + seed})
        for row in ("base", "more")
        for seed in range(3)
    ]
    found = told(runs, "health/rankme")["more"]
    assert (found.paper, found.published) == ("", None)
    assert (found.ours.mean, found.verdict.full) == (10.0, "undecided")
    assert told([], "health/rankme")["more"].verdict.full == "cannot be seen with 0 seeds"
    online = told([], "eval/online/top1")["more"]  # linear accuracy as well
    assert (online.paper, online.published) == ("61.5 ± 0.4", pytest.approx(1.5))


def test_a_metric_that_no_run_has_is_refused_and_one_that_some_lack_is_told():
    lines = [*ran("base", 0.5), line("more", 0, "more-now", scale="paper", metrics={"eval/knn/top1": 0.4})]
    with pytest.raises(UsageError, match=r"metric=eval/kn/top1: no run of t at scale=paper .* mean 'eval/knn/top1'"):
        told(lines, "eval/kn/top1")
    found = told(lines, "eval/knn/top1")
    assert [cells(found[name])[2:4] for name in ("base", "more", "only")] == [
        ("no such metric", "0"),
        ("40.00", "1"),
        ("not run", "0"),
    ]


def test_what_the_paper_found_the_other_way_round_is_looked_for_there():
    node = copy.deepcopy(NODE)
    node["rows"][1]["paper"]["mean"] = 58.5
    table = tables.parsed(node, "t", "t.yaml")
    lines = [*ran("base", 0.50, 0.50, 0.50), *ran("more", 0.495, 0.50, 0.505)]
    (more,) = [one for one in standing(table, "paper", lines, HASHES, METRIC) if one.row.id == "more"]
    assert more.verdict.full == "not seen: -1.5 is ruled out"


def test_pairs_tell_the_spread_of_a_contrast_that_has_one_pair():
    lines = [*ran("base", 0.50, 0.50, 0.50), *ran("more", 0.51, 0.52, 0.53), *ran("only", 0.51)]
    found = told(lines)
    measured = {"base": {0: 50.0, 1: 50.0, 2: 50.0}, "more": {0: 51.0, 1: 52.0, 2: 53.0}}
    assert spread(TABLE, "paper", measured) == pytest.approx(1.0)
    assert found["only"].verdict.full.endswith("would need 34")  # half a point at a spread of one


def planned(done=frozenset(), barred=frozenset(), seeds=2, hours=HOURS, scale="paper", sd=None):
    return [(each.row, each.seed) for each in order(TABLE, scale, set(done), set(barred), seeds, hours, sd)]


def test_contrasts_without_a_pair_come_first_the_clearest_before_the_others():
    assert planned() == [
        *(("base", 0), ("more", 0)),  # 1.5 points are looked for
        ("only", 0),  # half a point; its partner is there
        *(("base", 1), ("only", 1)),  # 0.4 of spread to 0.5: more is left to learn than of 0.5 to 1.5
        ("more", 1),
    ]


def test_every_run_is_planned_once():
    plan = planned(seeds=5)
    assert len(plan) == len(set(plan)) == 15


def test_what_is_done_is_not_planned_again_and_completes_pairs():
    assert planned({("more", 1)}, seeds=2)[:2] == [("base", 1), ("only", 1)]


def test_a_barred_arm_bars_the_contrast_and_leaves_the_other_arm_for_the_end():
    plan = planned(barred={("more", 0), ("more", 1)})
    assert plan[:2] == [("base", 0), ("only", 0)]
    assert not {("more", 0), ("more", 1)} & set(plan)
    alone = planned(barred={(row, seed) for row in ("more", "only") for seed in range(2)})
    assert alone == [("base", 0), ("base", 1)]


def test_a_pair_that_takes_long_waits():
    assert planned(hours={**HOURS, "more": 40.0})[:2] == [("base", 0), ("only", 0)]


def test_rows_that_no_contrast_asks_for_come_last():
    assert planned(scale="small", seeds=1) == [("base", 0), ("more", 0), ("last", 0)]


def test_hours_are_those_of_the_row_else_of_the_table_else_a_guess():
    assert estimated(TABLE, "small", {}) == {"base": 0.1, "more": 0.1, "last": 0.1}
    found = estimated(TABLE, "paper", {"base": [3600.0, 7200.0], "more": [10_800.0], "only": []})
    assert found == pytest.approx({"base": 1.5, "more": 3.0, "only": 10 * 4.5 / 20})


def test_a_row_that_takes_longer_is_thought_to_do_so_by_as_much_here():
    node = copy.deepcopy(NODE)
    node["rows"][2]["hours"] = {"paper": 40}
    table = tables.parsed(node, "t", "t.yaml")
    assert estimated(table, "paper", {}) == {"base": 10.0, "more": 10.0, "only": 40.0}
    assert estimated(table, "paper", {"base": [5 * 3600.0]}) == {"base": 5.0, "more": 5.0, "only": 20.0}


def test_what_a_stopped_run_has_behind_it_is_not_to_be_paid_again():
    plan = order(TABLE, "small", set(), set(), 1, HOURS, None, {("base", 0): 0.06, ("more", 0): 9.0})
    assert [(each.row, round(each.hours, 3)) for each in plan] == [("base", 0.04), ("more", 0.01), ("last", 0.1)]
