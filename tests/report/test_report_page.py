"""The page is whole by itself, obeys no name that stands in it, and leaves out what is not known."""

import io
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from stec.report.facts import Column, Command, Curve, Facts, Map, Pair, Predicted
from stec.report.page import page, write_page
from stec.report.text import number, shown

VOID = {"meta", "img", "line", "rect", "circle", "polyline", "wbr"}


class Reader(HTMLParser):
    """Elements in order, with a check that all are closed; and the text between them."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, tuple(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, tuple(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def shape(self):
        return [(tag, tuple(name for name, _ in attrs)) for tag, attrs in self.elements]

    def words(self):
        return " ".join(" ".join(self.text).split())


def png(seed=0, side=8):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def full(word="calm"):
    """Every part filled, every string from `word`."""
    steps = np.arange(5)
    return Facts(
        name=word,
        trained=word,
        details={word: word},
        objective=word,
        warnings=(word,),
        columns=(Column("knn", word, chance=0.1), Column("x", word, "bits", 0.0, 2.58)),
        rows={"raw": {"knn": 0.4, "x": 0.0}, word: {"knn": 0.7, "x": -0.25}},
        protocol={word: word},
        pairs=(Pair(png(), word, word),),
        pairs_from=word,
        predicted=(Predicted(word, word, np.array([0.0, np.inf]), np.array([0, 1]), np.array([0, 0]), 0.5, word),),
        predicted_from=word,
        curves={
            "train/loss_id": Curve(steps, steps * 1.0),
            f"train/loss_id/{word}": Curve(steps, steps * 1.0),
            f"train/action_bits/{word}": Curve(steps, steps * 0.1),
        },
        chance={"train/loss_id": 5.0},
        maps=(Map(np.eye(3, 2), np.array([-1, 0, 1]), (word, "b"), word),),
        commands=(Command(word, word),),
    )


def headings(facts):
    return re.findall("<h2>(.*?)</h2>", page(facts))


def test_full_page_is_well_formed_and_needs_nothing_from_elsewhere():
    text = page(full())
    elements = Reader(text).elements
    assert not {"script", "link", "iframe", "object", "a", "base", "form"} & {tag for tag, _ in elements}
    attributes = [pair for _, attrs in elements for pair in attrs]
    assert all(value.startswith("data:image/png;base64,") for name, value in attributes if name in ("src", "href"))
    assert not [name for name, _ in attributes if name.startswith("on")]
    assert "://" not in text
    assert not re.search(r"url\(|@import", text)


@pytest.mark.parametrize(
    "word",
    [
        "<script>alert(1)</script>",
        "\"><img src=x onerror='alert(1)'>",
        "</style></title><b>",
        "&lt;b&gt; & ]]>",
        "{0} %s",
    ],
)
def test_no_string_of_the_data_becomes_markup(word):
    hostile, benign = Reader(page(full(word))), Reader(page(full()))
    assert hostile.shape() == benign.shape()
    # What is not markup is there to be read, as it was given.
    assert hostile.words().count(" ".join(word.split())) == benign.words().count("calm")


def test_control_characters_and_names_that_are_no_text_are_written_harmlessly(tmp_path):
    write_page(tmp_path / "report.html", full("a\x00b\x1b[31mc" + os.fsdecode(b"\xff")))
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "\x00" not in text
    assert "\x1b" not in text
    assert "a�b�[31mc?" in text


def test_what_is_not_known_is_left_out():
    facts = full()
    assert len(headings(facts)) == 6
    assert headings(Facts("run", "A thing.")) == []
    for field, empty in {
        "rows": {},
        "columns": (),
        "pairs": (),
        "predicted": (),
        "curves": {
            "train/loss_id": Curve(np.arange(2), np.array([np.nan, np.inf])),
            "unheard/of": facts.curves["train/loss_id"],
        },
        "maps": (),
        "commands": (),
    }.items():
        left = headings(facts._replace(**{field: empty}))
        assert len(left) == 5, field
        assert set(left) < set(headings(facts))
    nobody = Predicted("x", "", np.array([0.0]), np.zeros(0, int), np.zeros(0, int))
    assert len(headings(facts._replace(predicted=(nobody,), maps=(Map(np.zeros((0, 2)), np.zeros(0, int)),)))) == 4


def test_table_tells_best_ties_gaps_and_chance():
    columns = (Column("a", "A", chance=0.25), Column("b", "B", "bits", 0.0, 2.0))
    rows = {"raw": {"a": 0.5, "b": float("nan")}, "random": {"a": 0.7004}, "trained": {"a": 0.7001, "b": 1.0}}
    text = page(Facts("r", "", columns=columns, rows=rows))
    cells = re.findall(r"<td( class=\"best\")?>([^<]*)", text)
    assert [(bool(best), value) for best, value in cells] == [
        (False, "50.0 %"),
        (False, "–"),
        (True, "70.0 %"),  # equal as shown, so both are best
        (False, "–"),
        (True, "70.0 %"),
        (True, "1.00 bits"),
        (False, "25.0 %"),
        (False, "0.00 bits"),
    ]
    assert 'width:50.0%"></i><b style="left:0.0%"' in text
    assert text.count('<tr class="last"') == 1


def test_nothing_at_or_below_chance_is_called_best():
    columns = (Column("a", "A", chance=0.25), Column("b", "B", "bits", 0.0))
    text = page(Facts("r", "", columns=columns, rows={"raw": {"a": 0.25, "b": -0.5}, "trained": {"a": 0.2, "b": -0.1}}))
    assert 'class="best"' not in text


def test_neighbours_of_a_group_share_a_head_and_protocols_are_told_by_name():
    columns = tuple(
        Column(name, name, group=group) for name, group in zip("abcd", ["one", "one", "", "two"], strict=True)
    )
    facts = Facts("r", "", columns=columns, rows={"trained": {"a": 1.0}}, protocol={"a": "by hand", "b": "by eye"})
    text = page(facts)
    spans = re.findall(r'<th scope="colgroup" colspan="(\d)">(\w*)</th>', text)
    assert spans == [("2", "one"), ("1", ""), ("1", "two")]
    assert re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text) == [("a", "by hand"), ("b", "by eye")]
    alone = page(facts._replace(columns=tuple(c._replace(group="") for c in columns), protocol={}))
    assert "colgroup" not in alone
    assert "<dd>" not in alone


def test_accuracy_stands_beside_what_guessing_gives():
    true, predicted = np.array([0, 0, 0, 1, 2, 2, 1, 0]), np.array([0, 0, 1, 1, 2, 0, 1, 0])
    words = Reader(
        page(Facts("r", "", predicted=(Predicted("x", "s", np.array([0.0, 1.0]), true, predicted),)))
    ).words()
    assert "75.0 % right (guessing 33.3 %, always the fullest bin 50.0 %)." in words


def test_lines_of_a_panel_share_a_chance_line_or_have_none():
    curves = {f"train/action_bits/{n}": Curve(np.arange(3), np.arange(3.0)) for n in "xy"}
    text = page(Facts("r", "", curves=curves, chance={f"train/action_bits/{n}": 0.0 for n in "xy"}))
    assert text.count('<line class="chance"') == 1
    assert "x 2.00 bits" in text
    mixed = {"train/action_bits/x": 0.0, "train/action_bits/y": 0.1}
    assert '<line class="chance"' not in page(Facts("r", "", curves=curves, chance=mixed))


def test_each_of_several_terms_has_a_panel_with_its_own_chance():
    names = ("train/loss_id", "train/loss_id/near", "train/loss_id/far", "train/loss_manip")
    curves = {name: Curve(np.arange(3), np.arange(3.0)) for name in names}
    text = page(Facts("r", "", curves=curves, chance={"train/loss_id/near": 3.5, "train/loss_id/far": 4.5}))
    titles = ["Identity loss", "Identity loss: near", "Identity loss: far", "Manipulation loss"]
    assert re.findall("<h3>(.*?),", text) == titles
    panels = dict(zip(titles, text.split("<h3>")[1:], strict=True))
    assert {title: re.findall(r"chance ([\d.]+) nats", panel) for title, panel in panels.items()} == {
        "Identity loss": [],
        "Identity loss: near": ["3.5"],
        "Identity loss: far": ["4.5"],
        "Manipulation loss": [],
    }
    assert [title for title, panel in panels.items() if "weighted sum" in panel] == ["Identity loss"]


def test_a_dashed_line_is_explained_where_there_is_one():
    facts = Facts("r", "", curves={"train/loss_id": Curve(np.arange(3), np.arange(3.0))})
    assert "Dashed" not in page(facts)
    assert "Dashed: what a guesser gets" in page(facts._replace(chance={"train/loss_id": 5.0}))
    assert "Dashed" not in page(facts._replace(chance={"train/loss_id/other": 5.0}))


def test_shares_are_drawn_in_per_cent_with_their_chance():
    curves = {"probe/online/top1": Curve(np.arange(3), np.array([0.1, 0.5, 0.75]))}
    words = Reader(page(Facts("r", "", curves=curves, chance={"probe/online/top1": 0.1}))).words()
    assert "75.0 % at the end" in words
    assert "chance 10.0 %" in words
    assert " 80 " in words


def test_many_classes_have_no_legend_and_unlabelled_data_says_so():
    def drawn(labels):
        flat = Map(np.random.default_rng(0).normal(size=(len(labels), 2)), labels, (), "PCA")
        return page(Facts("r", "", maps=(flat,)))

    assert 'class="legend"' in drawn(np.arange(20))
    assert 'class="legend"' not in drawn(np.arange(21))
    assert "21 classes share" in drawn(np.arange(21))
    assert "no labels" in drawn(np.full(5, -1))


def test_several_maps_stand_in_one_section_under_their_titles():
    flat = Map(np.eye(3, 2), np.array([0, 1, 2]), ("<a>", "b", "c"), "PCA")
    some = flat._replace(title="<rows>", coloured=(2, 0))
    text = page(Facts("r", "", maps=(flat._replace(title="samples"), some)))
    assert headings(Facts("r", "", maps=(flat, some))) == ["Maps of the embeddings"]
    assert re.findall("<h3>(.*?)</h3>", text) == ["samples", "&lt;rows&gt;"]
    assert "Coloured: the 2 most frequent of 3 classes; all others are grey." in text
    assert re.findall(r'swatch (\w+)"></span>(.*?)</li>', text)[3:] == [
        ("c0", "c"),
        ("c1", "&lt;a&gt;"),
        ("none", "others"),
    ]


def test_page_stays_small_and_says_what_it_left_out(tmp_path):
    pairs = tuple(Pair(png(seed, 300), "x") for seed in range(12))  # noise: 270 kB each
    write_page(tmp_path / "report.html", full()._replace(pairs=pairs))
    text = (tmp_path / "report.html").read_text()
    assert 1_000_000 < len(text) < 3_000_000
    kept = text.count("<img")
    assert 0 < kept < 12
    assert f"{12 - kept} more are left out" in text


def test_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_page(path, full("first"))
    os.umask(mask := os.umask(0))
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask  # whoever may read other files may read it
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_page(path, full("second"))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["report.html"]


def test_numbers_are_short_and_zero_has_no_sign():
    assert [number(v) for v in (0.0, 0.12345, 12.345, 1234.0, 12_345.0, 999_499.0, 1_234_567.0)] == [
        "0",
        "0.123",
        "12.3",
        "1234",
        "12.3k",
        "999k",
        "1.23M",
    ]
    assert shown(0.12345, "%") == "12.3 %"
    assert shown(-0.001, "bits") == "0.00 bits"
    assert shown(-0.5, "bits") == "−0.50 bits"
    assert shown(float("nan"), "%") == "–"
