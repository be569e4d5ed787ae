"""Every row of every table, at every scale it has: its words compose to an experiment that fits."""

import copy
from collections.abc import Iterator
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from stec.cli import composing, recipes, rows
from stec.comparison import tables
from stec.experiment import Experiment

TABLES = {path.stem: tables.read(path) for path in sorted(rows.folder().glob("*.yaml"))}
ALL = [(table, scale, row) for table in TABLES.values() for scale in table.scales for row in table.at(scale).values()]


def names(words: tuple[str, ...]) -> tuple[str, ...]:
    """The chosen groups and the keys; not the values of keys, and not how long it lasts."""
    pairs = [(word, word.partition("=")[0]) for word in words]
    return tuple(word if key in composing.groups() else key for word, key in pairs if not key.startswith("training."))


# Rows of the same names stand for one another: it is names that go stale.
CASES = {names(row.words[scale]): (table, scale, row) for table, scale, row in reversed(ALL)}


@pytest.fixture(scope="module", autouse=True)
def door() -> Iterator[None]:
    with initialize_config_dir(version_base="1.3", config_dir=str(recipes.own())):
        yield
    chosen.cache_clear()


@cache
def chosen(*groups: str) -> DictConfig:
    """Composed once for each choice of groups: hydra takes its time."""
    return compose("train", overrides=list(groups))


@pytest.mark.parametrize(
    ("table", "scale", "row"), CASES.values(), ids=[f"{t.name}-{s}-{r.id}" for t, s, r in CASES.values()]
)
def test_a_row_composes_to_an_experiment_that_fits(table, scale, row):
    words = row.words[scale]
    groups = [word for word in words if word.partition("=")[0] in composing.groups()]
    config = copy.deepcopy(chosen(*groups))
    for override in OverridesParser.create().parse_overrides([word for word in words if word not in groups]):
        OmegaConf.update(config, override.key_or_group, override.value(), force_add=False)
    plain = composing.plain(config)
    plain["hardware"] = {**plain["hardware"], "device": "cpu", "precision": "fp32"}  # wherever this is tested
    experiment = Experiment(plain)
    assert rows.data_of(plain) == plain["dataset"]["name"]
    assert experiment.training.epochs >= 1
    if table.metric == "eval/linear/top1":
        assert experiment.suite.linear is not None
    elif table.metric == "eval/online/top1":
        assert experiment.online_probe
    else:
        assert table.metric.split("/")[1] in experiment.suite.probes


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_one_contrast_learn_from_the_same_data_for_as_long(name):
    """What differs between two rows that are compared is the model, or how it is taught; never the schedule."""
    table = TABLES[name]
    for scale in table.scales:
        for row, other in table.contrasts(scale):
            a, b = ([w for w in each.words[scale] if w.startswith(("training.", "dataset="))] for each in (row, other))
            assert a == b
