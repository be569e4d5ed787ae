"""Files of tables: what they say, what is refused, and the paper's numbers in ours."""

import copy
from typing import Any

import pytest
import yaml
from comparison.toy_table import NODE

from stec.cli.rows import folder
from stec.comparison import tables
from stec.errors import UsageError


def parsed(**changes: Any) -> tables.Table:
    return tables.parsed({**copy.deepcopy(NODE), **changes}, "t", "t.yaml")


def changed(number: int, **changes: Any) -> list[dict[str, Any]]:
    rows = copy.deepcopy(NODE["rows"])
    rows[number].update(changes)
    return rows


def test_words_are_recipe_row_scale_and_what_the_row_says_of_the_scale():
    table = parsed()
    assert table.rows["base"].words == {
        "paper": ("recipe=plain",),
        "small": ("recipe=plain", "training.epochs=2"),
    }
    assert table.rows["more"].words["small"] == ("recipe=little", "a=1", "training.epochs=2")
    assert table.rows["last"].words == {"small": ("recipe=plain", "training.epochs=2", "training.epochs=3")}


def test_a_row_exists_at_the_scales_that_it_is_given_for():
    table = parsed()
    assert list(table.at("paper")) == ["base", "more", "only"]
    assert list(table.at("small")) == ["base", "more", "last"]
    assert [(row.id, other.id) for row, other in table.contrasts("paper")] == [("more", "base"), ("only", "base")]
    assert [(row.id, other.id) for row, other in table.contrasts("small")] == [("more", "base")]


def test_what_is_looked_for_is_the_papers_difference_or_the_tables():
    table = parsed()
    more, only = table.rows["more"], table.rows["only"]
    assert table.published(more) == pytest.approx(1.5)
    assert (table.sought(more), table.assumed(more)) == (pytest.approx(1.5), pytest.approx(0.5))
    assert table.published(only) is None
    assert (table.sought(only), table.assumed(only)) == (0.5, 0.4)
    none = parsed(rows=changed(1, paper={"mean": 60.0})).rows["more"]
    assert (parsed().sought(none), parsed().assumed(none)) == (0.5, 0.4)


def test_hours_are_the_rows_own_or_those_of_the_scale():
    table = parsed(rows=changed(1, hours={"paper": 33}))
    assert table.rows["more"].hours == {"paper": 33.0, "small": 0.1}
    assert table.rows["last"].hours == {"small": 0.1}


def test_so_many_epochs_more_are_guessed_to_take_so_much_longer():
    """Of the larger scales: the hours are those of the middle one times the epochs."""
    epochs = {"r50": 80, "stl10_r18": 40, "stl10_r50": 15}
    for row in tables.read(folder() / "table1.yaml").rows.values():
        few = next((n for key, n in epochs.items() if row.id.startswith(key) or f"_{key}_" in row.id), 200)
        few = 15 if row.id.startswith("stl10_r50") else few
        assert row.hours["paper"] == pytest.approx(row.hours["gpu30"] * 1000 / few, rel=0.02)
    for name, row in tables.read(folder() / "table2.yaml").rows.items():
        assert row.hours["paper"] == (12.5 if name.endswith("1000") else 2.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": changed(1, against="nobody")}, "row 'more' is compared with 'nobody'"),
        ({"rows": changed(1, against="more")}, "which is no other row"),
        ({"rows": changed(1, id="base")}, "two rows with the id 'base'"),
        ({"rows": changed(1, colour="red")}, "rows[1]: colour is unknown"),
        ({"rows": changed(1, overrides="a=1")}, "list of words of the form key=value"),
        ({"rows": changed(1, overrides=["a"])}, "list of words of the form key=value"),
        ({"rows": changed(1, scales=["huge"])}, "scale 'huge' is not one of the table's: paper, small"),
        ({"rows": changed(2, scales=["small"])}, "recipe names none for the scale 'small'"),
        ({"rows": changed(1, paper={"std": 1.0})}, "rows[1].paper: mean is missing"),
        ({"scales": {"small": {"words": []}}}, "scales.small: hours is missing"),
        ({"scales": {"small": {"hours": 0}}}, "scales.small.hours=0 must be a number above 0"),
        ({"scales": {}}, "scales must be"),
        ({"effect": 0}, "effect=0 must be a number above 0"),
        ({"titel": "x"}, "titel is unknown"),
        ({"rows": 3}, "rows must be a list of rows, one or more"),
        ({"rows": None}, "rows must be a list of rows, one or more"),
        ({"rows": changed(1, overrides=3)}, "rows[1].overrides: 3 must be a list of words"),
        ({"rows": changed(1, scales=3)}, "rows[1].scales=3 must be a list of scales"),
        ({"rows": changed(1, scales=[["small"]])}, "scale ['small'] is not one of the table's"),
        ({"rows": changed(3, scales={"small": 3})}, "rows[3].scales.small: 3 must be a list of words"),
        ({"rows": changed(1, against=["c"])}, "rows[1].against=['c'] must be the id of another row"),
        ({"rows": changed(1, paper={"mean": "x"})}, "rows[1].paper.mean='x' must be a number"),
        ({"rows": changed(1, hours={"paper": 0})}, "rows[1].hours.paper=0 must be a number above 0"),
        ({"rows": changed(2, hours={"small": 1})}, "rows[2].hours: 'small' is none of this row's scales: paper"),
        ({"rows": changed(1, hours=3)}, "rows[1].hours: 3 is none"),
        ({"scales": {"small": {"hours": 1, "gpus": 0}}}, "scales.small.gpus=0 must be a whole number"),
        ({"scales": {"small": {"hours": "1"}}}, "scales.small.hours='1' must be a number above 0"),
        ({"needs": ["phones"]}, "needs=['phones'] must be a list of keys such as dataset.packer.labels"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(changes, words):
    with pytest.raises(UsageError) as refused:
        parsed(**changes)
    assert str(refused.value).startswith("t.yaml: ")
    assert words in str(refused.value)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    path = tmp_path / "t.yaml"
    for text, words in (
        ("[", "cannot be read as a table"),
        ("- 1", "must be a group of keys"),
        ("title: x", "missing"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=words):
            tables.read(path)
    with pytest.raises(UsageError, match="cannot be read as a table"):
        tables.read(tmp_path / "none.yaml")


def test_there_is_a_table_for_each_of_the_papers_and_of_our_questions():
    assert set(tables.listing(folder())) == {
        *("table1", "table2", "table3", "fig3a", "fig3b", "audio"),
        *("controls", "collapse", "noncontrastive", "taps", "photometric", "bins", "baselines"),
    }


PRINTED = {
    "r18": {
        "simclr": "91.5 0.1 65.3 0.3 91.5 0.4",
        "relic": "91.5 0.2 65.6 0.3 91.4 0.2",
        "moco": "90.9 0.2 65.7 0.4 88.6 0.6",
        "byol": "92.0 0.2 66.4 0.4 91.1 0.2",
        "stec": "92.0 0.2 66.6 0.3 91.6 0.2",
        "stec_star": "92.6 0.1 67.6 0.4 91.4 0.2",
    },
    "r50": {
        "simclr": "93.2 0.2 70.8 0.2 94.0 0.1",
        "relic": "93.2 0.2 70.8 0.2 93.8 0.1",
        "stec": "93.9 0.2 71.9 0.4 94.3 0.2",
        "stec_star": "94.0 0.1 72.4 0.1 93.9 0.2",
    },
}


def test_table_1_has_the_papers_numbers():
    rows = tables.read(folder() / "table1.yaml").rows
    assert len(rows) == 30
    for depth, methods in PRINTED.items():
        for method, text in methods.items():
            found = [rows[f"{data}_{depth}_{method}"].paper for data in ("c10", "c100", "stl10")]
            assert [number for paper in found for number in (paper.mean, paper.std)] == list(map(float, text.split()))


def test_the_other_tables_have_the_papers_numbers():
    def means(name: str) -> dict[str, float]:
        rows = tables.read(folder() / f"{name}.yaml").rows
        return {row.id: row.paper.mean for row in rows.values() if row.paper is not None}

    assert means("table2") == {
        **{"simsiam_200": 86.32, "simsiam_augself_200": 86.03, "simclr_200": 86.1, "stec_200": 86.2},
        **{"simsiam_1000": 90.2, "simsiam_augself_1000": 90.8, "simclr_1000": 91.5, "stec_1000": 91.6},
    }
    assert means("table3") == {
        **{"simclr_100": 64.6, "relic_100": 66.2, "stec_100": 64.8, "stec_star_100": 66.3},
        **{"relic_300": 70.0, "stec_star_300": 70.2},
    }
    assert means("fig3a") == {"simclr": 65.3, "ego_class": 66.6, "allo_l2": 66.1}
    assert means("audio") == {"cpc": 65.1, "cpc_ti": 65.4}


@pytest.mark.parametrize("path", sorted(folder().glob("*.yaml")), ids=lambda path: path.stem)
def test_a_table_opens_with_what_it_is_and_every_row_is_good_for_something(path):
    assert path.read_text(encoding="utf-8").startswith("# ")
    table = tables.read(path)
    compared = {row.against for row in table.rows.values()}
    assert all(
        row.paper or row.against or row.id in compared or row.id == "manipulation" for row in table.rows.values()
    )
    assert all(row.words for row in table.rows.values())
    keys = [key for key in yaml.safe_load(path.read_text()) if key != "needs"]
    assert keys == ["title", "source", "metric", "effect", "spread", "scales", "rows"]
