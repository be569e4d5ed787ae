"""A table on terminals of several widths, and as Markdown."""

import copy

import pytest
from comparison.toy_table import NODE, line
from rich.console import Console

from stec.comparison import tables
from stec.comparison.layout import markdown, printed
from stec.comparison.standing import HEADS, standing

METRIC = NODE["metric"]


def told(scale: str = "paper", **changes):
    node = copy.deepcopy(NODE)
    for row, group in zip(node["rows"], ("First, a long name of a group", "", "Second", "Third"), strict=True):
        row["group"] = group
    node["rows"][1].update(changes)
    table = tables.parsed(node, "t", "t.yaml")
    lines = [
        line(row, seed, row, metrics={METRIC: 0.5 + 0.01 * seed + 0.003 * seed * (row == "more")})
        for row in ("base", "more")
        for seed in range(3)
    ]
    return standing(table, scale, lines, {name: name for name in table.rows}, METRIC)


def text(ones, width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as caught:
        for part in printed(ones, width):
            console.print(part)
    return caught.get().splitlines()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_line_is_too_long_and_no_number_or_word_is_broken(width):
    lines = text(told(label="A label that is long enough to be folded, and at spaces"), width)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert {"60", "51.00", "51.30", "folded,", "spaces", "paper's", "seeds", "verdict"} <= set(words)
    assert "First, a long name of a group" in [line.strip() for line in lines]


def test_a_wide_terminal_has_all_columns_and_a_narrow_one_the_short_verdict():
    wide, narrow = (" ".join(" ".join(text(told(), width)).split()) for width in (140, 80))
    for head in ("compared", "could be"):
        assert head in wide
        assert head not in narrow
    assert "cannot be seen with 0 seeds: would need" in wide
    assert "0 seeds, needs" in " ".join(narrow.split())


def test_columns_stand_below_their_heads():
    lines = text(told(), 140)
    (head,) = [each for each in lines if each.startswith("row")]
    (row,) = [each for each in lines if each.startswith("More")]
    for title, cell in (("paper", "61.5 ± 0.4"), ("seeds", "3")):
        end = head.index(title) + len(title)
        assert row[:end].endswith(cell)


def test_a_group_that_is_not_at_this_scale_says_so_once():
    lines = text(told(), 80)
    (third,) = [each for each in lines if each.startswith("Third")]
    assert third.split("  ") == ["Third", "not at this scale: there is small"]
    assert sum("not at this scale" in each for each in lines) == 1


def test_what_looks_like_markup_is_text():
    assert any("[/x] [bold]" in each for each in text(told(label="[/x] [bold]"), 80))


def test_markdown_has_a_line_for_each_group_and_cells_that_stay_cells():
    page = markdown("a|b", told(label="x|y"), ["stec-train a=1"], ["note"]).splitlines()
    rows = [each for each in page if each.startswith("|")]
    assert {each.count("|") for each in rows} == {len(HEADS) + 1}
    assert "| x/y |" in "\n".join(page)
    assert any(each.startswith("| **Second** |") for each in rows)
    assert page[-5:] == ["```sh", "stec-train a=1", "```", "", "note"]
