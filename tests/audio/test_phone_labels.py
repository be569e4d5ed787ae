"""The label file: its length rule on numbers that were counted on real recordings, and every fault in words."""

import pytest

from stec.errors import DataError, UsageError
from stec_audio import labels


@pytest.mark.parametrize(
    ("num", "expected"), [(81_520, 508), (179_360, 1119), (399, 0), (400, 1), (559, 1), (560, 2), (0, 0)]
)
def test_one_label_for_each_frame_that_fits(num, expected):
    assert labels.num_labels(num) == expected
    assert labels.num_labels(num) == sum(1 for start in range(0, num, 160) if start + 400 <= num)


def test_another_number_of_labels_is_refused_with_both_numbers():
    labels.check_length("84-1-0000", 508, 81_520)
    for count in (507, 509):
        with pytest.raises(DataError, match=f"84-1-0000: {count} phone labels were found, 508 were expected"):
            labels.check_length("84-1-0000", count, 81_520)


def written(tmp_path, text):
    path = tmp_path / "labels.txt"
    path.write_bytes(text)
    return path


def test_lines_are_read(tmp_path):
    found = labels.read(written(tmp_path, b"84-1-0000 0 0 17 17 40\n\n84-1-0001 3 \r\n"))
    assert found == {"84-1-0000": [0, 0, 17, 17, 40], "84-1-0001": [3]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"a 0 1\nb 0 x 1\n", r"line 2 \(b\): 'x' is no label: whole numbers"),
        (b"a 0 1.5\n", r"line 1 \(a\): '1.5' is no label"),
        (b"a 0 -1\n", r"line 1 \(a\): labels from 0 on"),
        (b"a\n", r"line 1 \(a\): labels from 0 on"),
        (b"a 0\nb 0\na 1\n", "line 3: a second line for a"),
        (b"\n\n", "no line of labels"),
        (b"\xff\xfe\x00", "not a text file"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, text, says):
    with pytest.raises(DataError, match=says):
        labels.read(written(tmp_path, text))


def test_names_come_in_the_order_of_their_numbers(tmp_path):
    assert labels.read_names(written(tmp_path, b"AA 1\nSIL 0\n\nAE 2\n")) == ["SIL", "AA", "AE"]
    for text, says in (
        (b"SIL 0\nAA 2\n", "without a gap"),
        (b"", "without a gap"),
        (b"SIL 0\nAA 0\n", "line 2: a name and a number of its own"),
        (b"SIL\n", "line 1: a name and a number"),
        (b"SIL zero\n", "line 1: a name and a number"),
    ):
        with pytest.raises(DataError, match=says):
            labels.read_names(written(tmp_path, text))


def test_lists_of_utterances(tmp_path):
    assert labels.read_list(written(tmp_path, b"b-1\na-1\n\n")) == ["b-1", "a-1"]
    with pytest.raises(DataError, match="a-1 stands there twice"):
        labels.read_list(written(tmp_path, b"a-1\nb-1\na-1\n"))
    with pytest.raises(UsageError, match=r"nowhere.txt: this file cannot be read: No such file"):
        labels.read_list(tmp_path / "nowhere.txt")
