"""The table at the end of a run, on terminals of the usual width."""

import math

import pytest

from stec.summary import columns, print_table

COMPONENTS = ("linear_xx", "translation_x", "linear_yy", "translation_y")
READ = {"eval/knn/top1": 0.375, "eval/linear/top1": 0.428}
DONE = {f"eval/action_bits/{name}": -0.125 for name in COMPONENTS}
CHANCE = {f"eval/action_chance/{name}": math.log(6) for name in COMPONENTS}
ROWS = {"raw input": READ | DONE | CHANCE, "timm/resnet18": READ, "trained": READ | DONE | CHANCE}


def test_columns_are_those_of_any_row_with_what_a_guesser_and_a_perfect_reader_get():
    found = columns({"a": {"eval/linear/top1": 0.5, "health/std": 1.0}, "b": DONE | CHANCE})
    assert [column.label for column in found] == ["linear", *COMPONENTS]
    assert (found[1].chance, found[1].unit) == (0.0, "bits")
    assert found[1].most == pytest.approx(math.log2(6))


def test_probes_have_a_column_each_under_their_key_with_their_majority_as_chance():
    rows = {
        "raw input": READ,
        "mfcc": {"eval/mark/acc": 0.5, "eval/mark/majority": 0.2},
        "trained": {"eval/mark_last/acc": 0.7, "eval/mark_last/majority": 0.1, **READ, **DONE, **CHANCE},
    }
    found = columns(rows)
    assert [column.label for column in found] == ["k-NN", "linear", "mark", "mark_last", *COMPONENTS]
    assert [(column.chance, column.unit, column.most) for column in found[2:4]] == [(0.2, "%", 1.0), (0.1, "%", 1.0)]
    assert len({column.group for column in found[:4]}) == 1


def test_all_of_the_table_is_read_on_80_characters(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    print_table({**ROWS, "trained": ROWS["trained"] | {"eval/online/top1": 0.31}}, {"eval/knn": "k=20"}, held_out=True)
    said = capsys.readouterr().out
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= 80
    for words in (
        "held-out samples",
        "timm/resnet18",
        "37.5%",
        "42.8%",
        "31.0%",
        "-0.12",
        "translation",
        "eval/knn: k",
    ):
        assert words in said


def test_a_table_with_probes_is_read_on_80_characters(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    probes = {f"eval/{name}/{key}": 0.123 for name in ("phase", "owner", "owner_last") for key in ("acc", "majority")}
    done = {f"eval/action_{kind}/translation_t": 1.0 for kind in ("bits", "chance")}
    print_table(dict.fromkeys(("before training", "trained"), READ | probes | done), {}, held_out=True)
    said = capsys.readouterr().out
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= 80
    assert said.count("12.3%") == 6
    assert "action: bits" in said
    print_table({"trained": probes}, {}, held_out=True)
    assert "action" not in capsys.readouterr().out


def test_heads_are_whole_where_there_is_room_and_broken_after_their_underscores_where_not(capsys, monkeypatch):
    row = {f"eval/{name}/{key}": 0.5 for name in ("phase", "owner", "owner_last") for key in ("acc", "majority")}
    row |= {f"eval/action_{kind}/translation_t": 0.1 for kind in ("bits", "chance")}
    monkeypatch.setenv("COLUMNS", "80")
    print_table({"before training": row}, {}, held_out=True)
    said = capsys.readouterr().out.splitlines()
    (head,) = [line for line in said if "phase" in line]
    assert head.split() == ["phase", "owner", "owner_last", "translation_t"]
    monkeypatch.setenv("COLUMNS", "54")
    print_table({"before training": row}, {}, held_out=True)
    said = capsys.readouterr().out.splitlines()
    (above,) = [line for line in said if "translation_" in line]
    assert above.split() == ["owner_", "translation_"]
    assert said[said.index(above) + 1].split() == ["phase", "owner", "last", "t"]


def test_without_a_held_out_split_or_anything_measured_the_table_says_so(capsys):
    print_table(ROWS, {}, held_out=False)
    assert "no held-out samples" in capsys.readouterr().out
    print_table({"raw input": {}, "trained": {"health/std": 0.1}}, {}, held_out=True)
    assert capsys.readouterr().out == "Nothing could be measured: there are too few samples.\n"
