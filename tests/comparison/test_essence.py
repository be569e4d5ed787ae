"""What makes a recipe: defaults count as nothing, what is there counts, and what was chosen away is not forgotten."""

import copy
import functools
from typing import Any

import pytest

from stec.cli import rows
from stec.comparison.essence import differing, essence, fingerprint

COMPOSED = functools.cache(lambda *words: rows.composed(words))


def composed(*words: str) -> dict[str, Any]:
    return copy.deepcopy(COMPOSED(*words))


@pytest.fixture
def config() -> dict[str, Any]:
    return composed("recipe=cifar100_small_simclr_stec")


def test_an_option_that_a_class_gains_leaves_former_runs_what_they_were(config):
    """As if it had been stored before these options were there."""
    old = copy.deepcopy(config)
    for section, key in (("actions", "small_scale"), ("actions", "num_global"), ("actions", "shear")):
        del old[section]["affine_crop"][key]
    del old["actions"]["color_jitter"]["predict"], old["manipulation"]["binned"]["yoked"]
    del old["training"]["ema"], old["evaluation"]["train_samples"], old["evaluation"]["knn"]["k"]
    del old["optimizer"]["beta1"], old["dataset"]["window"], old["hardware"]["micro_batch"]
    assert differing(old, config) == []
    assert fingerprint(old) == fingerprint(config)


@pytest.mark.parametrize(
    ("place", "value", "key"),
    [
        (("actions", "affine_crop", "shear"), 5.0, "actions.affine_crop.shear"),
        (("actions", "color_jitter", "predict"), True, "actions.color_jitter.predict"),
        (("actions", "grayscale"), None, "actions.grayscale.name"),
        (("evaluation", "knn"), None, "evaluation.knn"),
        (("training", "clip_grad"), 1.0, "training.clip_grad"),
        (("hardware", "micro_batch"), 8, "hardware.micro_batch"),
        (("optimizer", "beta1"), 0.8, "optimizer.beta1"),
    ],
)
def test_another_value_than_the_default_counts(config, place, value, key):
    other = copy.deepcopy(config)
    node = other
    for step in place[:-1]:
        node = node[step]
    node[place[-1]] = value
    assert key in differing(other, config)
    assert fingerprint(other) != fingerprint(config)


def test_how_samples_are_kept_shown_and_forgiven_is_no_part_of_a_recipe(config):
    other = copy.deepcopy(config)
    other["dataset"] |= {"resident": False, "needs_data": False, "max_bad": 0.1, "picture": {"name": "windows"}}
    other["dataset"]["decoder"]["max_pixels"] = 1
    other["hardware"] |= {"device": "cuda", "precision": "bf16", "channels_last": True, "num_workers": 3}
    assert differing(other, config) == []


def test_a_file_of_labels_is_a_matter_of_the_machine():
    config = composed("recipe=librispeech_small_cpc")
    for path in ("labels.txt", "/some/where"):
        given = copy.deepcopy(config)
        given["dataset"]["packer"]["phones"] = path
        assert differing(given, config) == []
    config["dataset"]["packer"]["subset"] = "train-clean-100"
    assert differing(given, config) == ["dataset.packer.subset"]


def test_a_term_may_carry_its_name_or_leave_it_to_its_key():
    named = {"identity": {"simclr": {"name": "simclr", "weight": 1, "temperature": 0.3}}}
    assert essence(named) == {"identity.simclr.name": "simclr", "identity.simclr.temperature": 0.3}
    assert differing(named, {"identity": {"simclr": {"temperature": 0.3}}}) == []
    other = {"identity": {"simclr": {"name": "relic", "temperature": 0.3}}}
    assert "identity.simclr.name" in differing(named, other)


def test_numbers_that_are_equal_are_the_same_and_true_is_no_number():
    assert differing({"a": [1, 2.0]}, {"a": [1.0, 2]}) == []
    assert differing({"a": True}, {"a": 1}) == ["a"]
