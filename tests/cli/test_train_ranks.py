"""stec-train as two ranks."""

import json

from faults.commands import Commands
from faults.several import two
from tiny_run import TINY, metrics


def test_two_ranks_share_a_run_and_write_one_table(place, tmp_path):
    fresh = {"STEC_CACHE": str(tmp_path)}  # to be packed by one of them
    ended = Commands(place)("stec-train", *TINY, "data=pictures", "run_dir=ranks", env=fresh, before=two())
    assert ended.code == 0, ended.err
    for once in ("packing ", "2 ranks", "step 12: evaluating", "report: "):
        assert ended.out.count(once) == 1, ended.out
    lines = [json.loads(line) for line in metrics(place / "ranks").splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 4, 6, 8, 10, 12, 12]
    assert list(json.loads((place / "ranks" / "table.json").read_text())["rows"]) == [
        "raw input",
        "untrained",
        "trained",
    ]
