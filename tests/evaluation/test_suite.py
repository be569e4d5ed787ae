import inspect
import logging
from pathlib import Path

import pytest
import torch
import yaml
from toy_probe import Marks, Rows
from toy_space import Windows

from stec.actions import Compose, sample_views
from stec.errors import UsageError
from stec.evaluation.decodability import Reader
from stec.evaluation.features import Raw, Table, extract, extract_pairs
from stec.evaluation.health import health
from stec.evaluation.knn import Knn, knn
from stec.evaluation.linear import Logistic, lbfgs
from stec.evaluation.probes import Configured, Probed, accuracy
from stec.evaluation.softmax import Lbfgs
from stec.evaluation.suite import NARROW, Sources, Suite
from stec.rng import make_keys
from stec.views import Batch, make_views

SPACE = Compose({"window": Windows()})
LIVE = ["linear_xx", "translation_x", "linear_yy", "translation_y"]


def samples(num: int, seed: int, width: int = 8):
    centres = torch.randn(3, width, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (num,), generator=generator)
    return centres[y] + torch.randn(num, width, generator=generator), y


def pairs(num: int, seed: int, width: int = 8):
    """Two batches of views that show the parameters of their windows themselves."""
    for part in range(2):
        keys = make_keys(seed, part, torch.arange(num // 2))
        actions = sample_views(SPACE, keys, torch.tensor([[32, 32]]).expand(num // 2, 2), 2)
        views = make_views(Batch((torch.zeros(num // 2, 1),), actions, keys), SPACE)
        yield views._replace(x=tuple(torch.nn.functional.pad(a / 32, (0, width - 7)) for a in actions))


def sources(width: int = 8, labels: bool = True) -> Sources:
    def table(num: int, seed: int):
        x, y = samples(num, seed, width)
        return [(x, y if labels else torch.full_like(y, -1))]

    return Sources(
        lambda: table(300, 0),
        lambda: table(100, 1),
        lambda: pairs(2000, 0, width),
        lambda: pairs(400, 1, width),
        SPACE.components,
    )


def suite(**options) -> Suite:
    return Suite(Knn(k=9), Logistic(), Reader(hidden=128, epochs=8), train_pairs=1500, test_pairs=300, **options)


def test_a_row_is_what_the_protocols_say():
    given, ours = sources(), suite()
    row = ours.measure(Raw(8), given)
    train, test = extract(Raw(8), given.train()), extract(Raw(8), given.test())
    linear = lbfgs(train, test)
    assert row["eval/knn/top1"] == knn(train, test, k=9)
    assert (row["eval/linear/top1"], row["eval/linear/c"], row["eval/linear/converged"]) == (linear.top1, linear.c, 1.0)
    read = [extract_pairs(Raw(8), pairs(2000, 0), num=1500), extract_pairs(Raw(8), pairs(400, 1), num=300)]
    found, _ = ours.action(*read, SPACE.components)
    assert {name: row[f"eval/action_bits/{name}"] for name in LIVE} == {name: found[name].bits for name in LIVE}
    assert row["eval/action_acc/linear_yy"] == found["linear_yy"].accuracy
    assert row["eval/action_majority/linear_yy"] == found["linear_yy"].majority
    assert row["eval/action_chance/linear_yy"] == found["linear_yy"].chance
    assert "eval/action_bits/linear_xy" not in row
    assert row["eval/action_bits/linear_yy"] > 0.3
    assert row["health/rankme"] == health(read[1].a, read[1].b)["rankme"]
    assert ours.measure(Raw(8), given) == row


def test_wide_features_are_cut_down_for_the_trained_readers_only():
    given, ours = sources(2500), suite()
    row = ours.measure(Raw(2500), given)
    (x, y), (x_test, y_test) = given.train()[0], given.test()[0]
    assert row["eval/knn/top1"] == knn(Table(x, y), Table(x_test, y_test), k=9)
    assert row["eval/linear/top1"] > 0.5
    # All that the action moves lies in 7 dimensions, which the principal components keep.
    assert row["eval/action_bits/linear_yy"] > 0.3
    assert f"{NARROW} principal components" in ours.describe()["eval/linear"]


def test_without_labels_the_rest_is_still_measured(caplog):
    ours = suite()
    with caplog.at_level(logging.INFO, "stec"):
        row, again = (ours.measure(Raw(8), sources(labels=False)) for _ in range(2))
    assert not [name for name in row if name.startswith(("eval/knn", "eval/linear"))]
    assert "eval/action_bits/linear_yy" in row
    assert "health/std" in row
    assert row == again
    # Once each, however many rows there are.
    assert [(r.levelname, r.getMessage().partition(":")[0]) for r in caplog.records] == [
        ("INFO", "the data has no labels"),
        ("INFO", "eval/action"),
    ]


def test_without_held_out_labels_no_labels_are_read(caplog):
    given = sources()
    unknown = [(x, torch.full_like(y, -1)) for x, y in given.test()]
    with caplog.at_level(logging.INFO, "stec"):
        row = suite().measure(Raw(8), given._replace(test=lambda: unknown))
    assert "there are no held-out labels: k-NN and linear are left out." in caplog.messages
    assert not any(name.startswith(("eval/knn", "eval/linear")) for name in row)


def test_no_convergence_is_logged_and_in_the_row(caplog):
    ours = Suite(Knn(), Logistic(max_iter=1), Reader(hidden=8, epochs=1), train_pairs=40, test_pairs=20)
    with caplog.at_level(logging.WARNING, "stec"):
        assert ours.measure(Raw(8), sources())["eval/linear/converged"] == 0.0
    assert "max_iter=1" in caplog.text


def test_another_tap_and_refusals():
    head = torch.nn.Linear(8, 2)
    row = suite(tap="projector").measure(Raw(8), sources(), head=head)
    assert row["health/rankme"] <= 2
    assert suite(tap="projector").measure(Raw(8), sources(), tap="pooled") == suite().measure(Raw(8), sources())
    with pytest.raises(UsageError, match="projector"):
        suite(tap="projector").measure(Raw(8), sources())
    with pytest.raises(UsageError, match=r"evaluation\.train_pairs=0"):
        Suite(Knn(), Logistic(), Reader(), train_pairs=0)


def probed(*names: str) -> dict[str, Probed]:
    """Sequences of 4 rows, each marked by whether its first value is above a half."""

    def sequences(seed: int):
        x = torch.rand(30, 1, 1, 4, 6, generator=torch.Generator().manual_seed(seed))
        return [(one, (one[0, 0, :, 0] > 0.5).long()) for one in x]

    return {name: Probed(Marks(None), lambda: sequences(0), lambda: sequences(1)) for name in names}


def test_probes_are_read_beside_the_protocols_by_the_outputs_that_they_need(caplog):
    configured = {name: Configured(name, Marks, Lbfgs(), 100) for name in ("marks", "others")}
    ours = Suite(None, None, None, configured)
    given = sources()._replace(probes=probed("marks", "others"), test_pairs=lambda: pictures(1))
    with caplog.at_level(logging.INFO, "stec"):
        row = ours.measure(Rows(), given)
        again = ours.measure(Rows(), given)
    assert row == again
    assert {name for name in row if name.startswith("eval/")} == {
        f"eval/{name}/{key}" for name in ("marks", "others") for key in ("acc", "majority")
    }
    given_tables = probed("marks")["marks"]
    alone = accuracy(configured["marks"], given_tables, Rows(), tell=lambda _: None)
    assert (row["eval/marks/acc"], row["eval/marks/majority"]) == (alone["acc"], alone["majority"])
    assert row["eval/marks/acc"] > 0.8
    told = [f"eval/{name}: 100 of 120 rows are read, evenly spread." for name in ("marks", "others")]
    assert caplog.messages == told  # once, however many rows and splits there are
    assert "a mark for each row; logistic regression" in ours.describe(probes=given.probes)["eval/marks"]


def pictures(seed: int):
    """One batch of pairs of pictures for `Rows`, their windows drawn but not performed."""
    keys = make_keys(seed, 0, torch.arange(8))
    actions = sample_views(SPACE, keys, torch.tensor([[32, 32]]).expand(8, 2), 2)
    views = make_views(Batch((torch.zeros(8, 1),), actions, keys), SPACE)
    drawn = torch.rand(2, 8, 1, 4, 6, generator=torch.Generator().manual_seed(seed))
    yield views._replace(x=(drawn[0], drawn[1]))


def test_a_probe_is_left_out_where_it_cannot_be_read_and_that_is_told_once(caplog):
    ours = Suite(Knn(k=9), None, None, {"marks": Configured("marks", Marks, Lbfgs())})
    with caplog.at_level(logging.INFO, "stec"):
        rows = [ours.measure(Raw(8), sources()._replace(probes=probed("marks"))) for _ in range(2)]
    assert caplog.messages == ["eval/marks is left out for encoders without context."]
    assert not any("marks" in name for name in rows[0])
    assert "eval/knn/top1" in rows[0]
    caplog.clear()
    with caplog.at_level(logging.INFO, "stec"):
        ours.measure(Raw(8), sources())
    assert caplog.messages == ["there are no held-out samples: eval/marks is left out."]
    assert "eval/marks" not in ours.describe(held_out=False)


def test_protocols_that_are_null_are_left_out_and_nothing_is_extracted_for_them(caplog):
    def nobody():
        raise AssertionError("nobody looks at these")

    ours = Suite(None, None, None)
    with caplog.at_level(logging.INFO, "stec"):
        row = ours.measure(Raw(8), sources()._replace(train=nobody, test=nobody, train_pairs=nobody))
    assert {name.partition("/")[0] for name in row} == {"health"}
    assert not caplog.messages
    assert set(ours.describe()) == {"features", "health"}
    with caplog.at_level(logging.INFO, "stec"):
        Suite(Knn(k=9), None, None).measure(Raw(8), sources(labels=False))
    assert caplog.messages == ["the data has no labels: k-NN is left out."]


def test_the_yaml_lists_every_keyword_with_its_default():
    file = Path(__file__).parents[2] / "recipes" / "evaluation" / "standard.yaml"
    node = yaml.safe_load(file.read_text())
    parts = {"knn": Knn, "linear": Logistic, "action": Reader}
    del node["online_probe"], node["raw_input"], node["baselines"]  # not protocols
    assert node.pop("probes") == {}  # their keys are those of their classes
    for name, part in parts.items():
        made, plain = part(**node[name]), part()
        assert set(node.pop(name)) == set(inspect.signature(part).parameters)
        assert vars(made) == vars(plain)
    signature = inspect.signature(Suite)
    keywords = {n: p.default for n, p in signature.parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert node == keywords
