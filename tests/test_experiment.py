"""A configuration against what it configures: whatever stands in it, it fits or is refused in a sentence."""

import copy
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stec import build, catalogue
from stec.cli.recipes import own
from stec.data import Splits
from stec.decoder import Opened
from stec.errors import UsageError
from stec.experiment import SECTIONS, Experiment, Settings, enough_views, fitting
from stec.training.run import flat

JUNK = [None, "junk", -1, 1e400, [], {}, [1, "a"], {"a": 1}, True, 0.5, "???"]
SETTINGS: dict[str, Any] = {
    "name": "toy",
    "seed": 0,
    "batch_size": 8,
    "num_views": 2,
    "data": None,
    "weights": None,
    "forward_views": "joint",
    "resume": "auto",
    "run_dir": "toy",
}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(own())):
        node = OmegaConf.to_container(compose("train", overrides=["recipe=my_images", "hardware=cpu"]), resolve=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """What is installed is looked up once, not for every name."""
    found = catalogue._installed()
    monkeypatch.setattr(catalogue, "_installed", lambda: found)


def groups(node: Any, prefix: str = "") -> list[str]:
    """The dotted names of all groups of keys."""
    if not isinstance(node, dict):
        return []
    inner = [name for key, value in node.items() for name in groups(value, f"{prefix}.{key}".lstrip("."))]
    return [prefix, *inner] if prefix else inner


def put(node: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with another value under a dotted key."""
    node = copy.deepcopy(node)
    *way, last = key.split(".")
    inner = node
    for step in way:
        inner = inner[step]
    inner[last] = value
    return node


def test_whatever_stands_under_a_key_it_fits_or_is_refused_by_name(config):
    """Every key and every group once, each with another kind of junk."""
    refused = 0
    for number, key in enumerate([*flat(config), *groups(config)]):
        junk = JUNK[number % len(JUNK)]
        try:
            Experiment(put(config, key, junk))
        except UsageError as error:
            told = str(error)
            refused += 1
        else:
            told = key
        assert "\n" not in told
        assert any(step in told for step in key.split(".")), (key, junk)
    assert refused > 60


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_that_is_not_there(section, config):
    rest = {key: node for key, node in config.items() if key != section}
    with pytest.raises(UsageError, match=rf"^{section} is missing: choose one with {section}=NAME\.$"):
        Experiment(rest)


@pytest.mark.parametrize("node", [1, {"key": 1}])
def test_a_section_that_does_not_exist(node, config):
    with pytest.raises(UsageError, match=r"^augmentation is unknown: did you mean 'augment'\?"):
        Experiment({**config, "augmentation": node})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": -1}, "seed=-1 must be at least 0 and below 2"),
        ({"seed": 2**31}, "seed=2147483648 must be"),
        ({"batch_size": 1}, "batch_size=1 must be at least 2"),
    ],
)
def test_ranges_of_the_settings(change, sentence):
    Settings(**SETTINGS)
    with pytest.raises(UsageError, match=sentence):
        Settings(**SETTINGS | change)


@pytest.mark.parametrize(
    ("key", "value"), [("online_probe", 1), ("online_probe", None), ("raw_input", "no"), ("baselines", 3)]
)
def test_what_evaluation_asks_beside_the_protocols(key, value, config):
    with pytest.raises(UsageError, match=rf"^evaluation\.{key}={value!r} has the wrong type: "):
        Experiment(put(config, f"evaluation.{key}", value))


class Split:
    """What describe asks of shards: one sample of 20 x 30, and the names of the classes."""

    num_samples, folder = 1, "toys"

    def __init__(self, *classes: str):
        self.meta = {"classes": list(classes)}

    def read(self, sample):
        return {"png": b""}

    def where(self, sample):
        return "toys: 0"


def test_the_spec_is_completed_by_the_data(config, monkeypatch):
    monkeypatch.setattr("stec_vision.decode.ImageCrop.open", lambda self, raw: Opened((20, 30), None))
    labelled, plain = Split("a", "b"), Split()
    experiment = Experiment(config)
    spec = experiment.describe(Splits(labelled, labelled, None))
    assert (spec["extents"], spec["classes"], spec["num_classes"]) == ([[20, 30]], ["a", "b"], 2)
    assert {key: spec[key] for key in experiment.spec} == experiment.spec
    # A probe trains along only where the samples that are learnt from have labels, and if it is wanted.
    apart = experiment.describe(Splits(plain, labelled, None))
    assert (apart["classes"], apart["num_classes"]) == (["a", "b"], 0)
    unwanted = Experiment(put(config, "evaluation.online_probe", False))
    assert unwanted.describe(Splits(labelled, labelled, None))["num_classes"] == 0


def test_without_a_number_of_epochs_there_are_enough_steps_whatever_the_size_of_the_data(config):
    as_needed = Experiment(put(config, "training.epochs", None))
    for per_epoch in (1, 7, 49, 50, 51, 781):
        epochs = as_needed.lasting(per_epoch).epochs
        assert epochs * per_epoch >= 1000
        assert epochs == 20 or (epochs - 1) * per_epoch < 1000
        assert epochs >= 20
    assert Experiment(put(config, "training.epochs", 3)).lasting(7).epochs == 3


class Compares:
    """What enough_views asks of an objective."""

    num_views = 2


@pytest.mark.parametrize(
    ("changes", "few", "part"),
    [
        ({}, 1, None),
        ({"affine_crop.num_global": 2, "affine_crop.small_size": 32}, 2, "affine_crop"),
        ({"solarize.views": [1, 5]}, 5, "solarize"),
        ({"quarter_turn": {"first_view": 2}}, 2, "quarter_turn"),
    ],
)
def test_views_that_are_told_of_must_be_made(changes, few, part, config):
    for key, value in changes.items():
        config = put(config, f"actions.{key}", value)
    space = build.space(build.plan(Experiment(config).spec))
    enough_views(few + 1, Compares(), space)
    what = f"^num_views={few} is too few for actions.{part}: .* view {few} .* at least {few + 1}"
    with pytest.raises(UsageError, match=what if part else "num_views=1 is too few: this objective compares 2 views"):
        enough_views(few, Compares(), space)


def test_a_batch_is_no_larger_than_the_data(monkeypatch):
    assert fitting(128, 1000) == fitting(128, 128) == 128
    assert fitting(128, 55) == 55
    with pytest.raises(UsageError, match=r"too few samples to learn from, 1: at least 2 are needed\."):
        fitting(128, 1)
    monkeypatch.setattr("stec.distributed.world_size", lambda: 4)
    assert fitting(128, 55) == 52
    with pytest.raises(UsageError, match="at least 2 for each of 4 ranks are needed"):
        fitting(128, 7)
