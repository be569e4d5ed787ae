"""Every number of the paper's recipes, against the commands and defaults of the authors' release."""

from typing import Any, NamedTuple

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stec.cli.recipes import own
from stec.training.optim import SCALES


class Row(NamedTuple):
    batch_size: int
    epochs: int
    peak: float
    temperature: float
    weight: float
    """lambda_manip"""
    hidden: int
    out: int
    colour: float
    """Strength of the jitter: .8 of it for brightness, contrast and saturation, .2 of it for hue."""
    side: int
    blur: float
    solarize: float
    stem: str
    depth: int


CIFAR = Row(1024, 1000, 4.0, 0.5, 1.0, 512, 64, 0.5, 32, 0.0, 0.0, "cifar", 18)
PAPER = {
    ("cifar10_simclr_stec",): CIFAR,
    ("cifar100_simclr_stec",): CIFAR,
    ("cifar100_simclr_stec_published",): CIFAR,
    ("cifar100_simclr_stec", "encoder=resnet50_cifar", "identity.simclr.hidden=1024"): CIFAR._replace(
        hidden=1024, depth=50
    ),
    ("stl10_simclr_stec",): Row(1024, 1000, 1.2, 0.2, 0.3, 512, 128, 1.0, 96, 0.5, 0.2, "stl", 18),
    ("imagenet_simclr_stec",): Row(1680, 100, 1.96875, 0.1, 0.6, 2048, 128, 1.0, 224, 0.5, 0.2, "imagenet", 50),
}
# The baseline is the same program without the manipulation model.
BASELINES = {
    (name.removesuffix("_stec"), *words): row
    for (name, *words), row in PAPER.items()
    if name.endswith("_stec") and not words
}
ALL = PAPER | BASELINES


def composed(recipe: str, *words: str) -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(own())):
        node = OmegaConf.to_container(compose("train", overrides=[f"recipe={recipe}", *words]), resolve=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


@pytest.mark.parametrize(("words", "paper"), ALL.items(), ids=map(" ".join, ALL))
def test_the_numbers_are_the_papers(words, paper):
    config = composed(*words)
    identity, manipulation, actions = config["identity"]["simclr"], config["manipulation"], config["actions"]
    optimizer, encoder, training = config["optimizer"], config["encoder"], config["training"]
    strengths = {name: actions["color_jitter"][name] for name in ("brightness", "contrast", "saturation", "hue")}
    assert paper == Row(
        batch_size=config["batch_size"],
        epochs=training["epochs"],
        peak=pytest.approx(optimizer["lr"] * SCALES[optimizer["scale"]](config["batch_size"] / 256)),
        temperature=identity["temperature"],
        weight=manipulation["binned"]["weight"] if manipulation else paper.weight,
        hidden=identity["hidden"],
        out=identity["out"],
        colour=pytest.approx(strengths["brightness"] / 0.8),
        side=actions["affine_crop"]["size"],
        blur=actions.get("gaussian_blur", {"p": 0.0})["p"],
        solarize=actions.get("solarize", {"p": 0.0})["p"],
        stem=encoder["stem"],
        depth=encoder["depth"],
    )
    whole = 0.8 * paper.colour
    assert strengths == {"brightness": whole, "contrast": whole, "saturation": whole, "hue": 0.2 * paper.colour}
    assert identity["weight"] == 2.0
    assert training["warmup_epochs"] == 10
    settings = {"name": "lars", "scale": "linear", "weight_decay": 1e-6, "momentum": 0.9, "trust": 1e-3}
    assert {name: optimizer[name] for name in settings} == settings
    assert (actions["color_jitter"]["p"], actions["grayscale"]["p"]) == (0.8, 0.2)
    crop = {name: actions["affine_crop"][name] for name in ("scale", "ratio", "flip", "rotation", "shear")}
    assert crop == {"scale": [0.08, 1.0], "ratio": [3 / 4, 4 / 3], "flip": 0.5, "rotation": 0.0, "shear": 0.0}
    assert list(actions) == [
        *("affine_crop", "color_jitter", "grayscale"),
        *(["gaussian_blur", "solarize"] if paper.blur else []),
    ]
    if paper.blur:
        assert actions["gaussian_blur"] == {"p": 0.5, "kernel": 0.1, "sigma": [0.1, 2.0], "views": None}
    assert (encoder["width"], encoder["zero_init_residual"]) == (64, paper.depth == 50)
    if manipulation:
        (binned,) = manipulation.values()
        assert (binned["num_bins"], binned["hidden"]) == (6, 512)
        assert (binned["direction"], binned["tap"]) == ("forward", "pooled")


def test_stl_10_is_learnt_on_its_unlabelled_pictures():
    assert composed("stl10_simclr_stec")["dataset"]["train_split"] == "unlabelled"


class Cpc(NamedTuple):
    """What van den Oord et al. (2018) say of CPC on LibriSpeech, and S-TEC's paper takes over."""

    window: int
    channels: int
    width: int
    steps: int
    windows: int
    """of 8 GPUs x 8, in an update"""
    rate: float


CPC = Cpc(window=20_480, channels=512, width=256, steps=12, windows=64, rate=2e-4)
NUM_UTTERANCES, NUM_UPDATES = 22_830, 300_000  # CPC's training split; about when it converges
SOUND = ["librispeech_cpc", "librispeech_cpc_stec", "librispeech_cpc_stec_offset"]


@pytest.mark.parametrize("name", SOUND)
def test_the_numbers_of_sound_are_cpcs(name):
    config = composed(name)
    window, encoder, identity = config["actions"]["temporal_window"], config["encoder"], config["identity"]["cpc"]
    optimizer, training, packer = config["optimizer"], config["training"], config["dataset"]["packer"]
    assert (
        Cpc(
            window=window["size"],
            channels=encoder["channels"],
            width=encoder["width"],
            steps=identity["steps"],
            windows=config["batch_size"] * config["num_views"],
            rate=optimizer["lr"],
        )
        == CPC
    )
    # Convolutions and ReLU without norms, a GRU over the past, z' W c as it is, negatives from all of the batch.
    assert (encoder["norm"], encoder["context"], encoder["layers"]) == ("none", "gru", 1)
    assert (identity["score"], identity["negatives"], identity["weight"]) == ("dot", "uniform", 1.0)
    # Adam: what AdamW is without decay.
    assert (optimizer["name"], optimizer["scale"], optimizer["weight_decay"]) == ("adamw", "none", 0.0)
    assert (optimizer["beta1"], optimizer["beta2"]) == (0.9, 0.999)
    updates = training["epochs"] * (NUM_UTTERANCES // config["batch_size"])
    assert updates == pytest.approx(NUM_UPDATES, rel=0.005)
    assert packer["subset"] == "train-clean-100"
    assert window["speeds"] == [1.0]


def test_the_probes_of_sound_read_what_cpc_reads():
    """Phones from each frame of the context, speakers from its mean over a window and, apart, from its last frame."""
    probes = composed("librispeech_cpc")["evaluation"]["probes"]
    read = {"phone": ("phones", "context"), "speaker": ("speaker", "mean"), "speaker_last": ("speaker", "last")}
    assert {key: (node["name"], node.get("layer", node.get("pool"))) for key, node in probes.items()} == read
