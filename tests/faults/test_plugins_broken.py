"""Modalities of other people that are broken: they are on the path as pip would put them there."""

import sys
from functools import partial

import pytest
import torch

from stec.encoder import Encoder, Features, encode
from stec.errors import UsageError

ENCODER = """
import torch
from torch import nn
from stec.encoder import Encoder, Features

class Strange(Encoder):
    def __init__(self, *, width: int, depth: int, stem: str, zero_init_residual: bool, taps: list[str]):
        super().__init__()
        self.dims = {"pooled": width}
        self.linear = nn.Linear(3 * 16 * 16, width)

    def forward(self, x):
        return Features(self.linear(x.flatten(1)).repeat(1, 2)[:, :5])
"""
STEP = ["run_dir=run", "training.stop_after=1"]


def on_path(site):
    sys.path.insert(0, site)


@pytest.fixture
def install(place):
    """install(package, declaration, ...): a distribution of this name, version 0.1; to be handed over as before=."""
    site = place / "site"

    def put(package: str, source: str, value: str = "", recipe: str = "", **modules: str) -> partial[None]:
        folder, info = site / package, site / f"{package}-0.1.dist-info"
        (folder / "recipes" / "recipe").mkdir(parents=True)
        info.mkdir()
        for name, text in {"__init__": source, **modules}.items():
            (folder / f"{name}.py").write_text(text)
        if recipe:
            (folder / "recipes" / "recipe" / f"{recipe}.yaml").write_text("# @package _global_\n# One line: theirs\n")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[stec.modalities]\n{package} = {value or package + ':MODALITY'}\n")
        return partial(on_path, str(site))

    return put


def declared(parts: dict[str, dict[str, str]], version: int = 0) -> str:
    number = version or "API_VERSION"
    return f"from stec.modality import API_VERSION, Modality\nMODALITY = Modality('theirs', {number}, {parts!r})\n"


# {package: (source, where its entry point leads if not to MODALITY)}
BROKEN = {
    "missing": ("import not_there_at_all\n", ""),
    "leaving": ("raise SystemExit(7)\n", ""),
    "ancient": (declared({"encoder": {"theirs": "ancient:Net"}}, version=-1), ""),
    "nowhere": ("", "nowhere.at_all:MODALITY"),
    "nameless": ("", "9 lives!"),
}


@pytest.mark.fault(50, "plugins that cannot be imported, or are too old", "others work; only who uses one is told")
def test_others_still_work(command, train, seen, install):
    for package, (source, value) in BROKEN.items():
        before = install(package, source, value)
    assert command("stec-train", before=before).code == 0
    ended = train(*STEP, before=before)
    assert ended.code == 0, ended.err
    ended = train(*STEP, "encoder.name=theirs", before=before)
    assert ended.code == 2
    doctor = command("stec-doctor", before=before)
    assert doctor.code == 1
    for package in BROKEN:
        assert f"of {package} 0.1" in ended.refusal
        assert f"of {package} 0.1" in doctor.out
    seen("survived: training without them; with one: exit code 2, and each is named with its version and what is wrong")


@pytest.mark.fault(51, "two plugins that declare one name", "refused, naming both, if it is asked for")
def test_one_name_of_two(train, seen, install):
    install("one", declared({"encoder": {"theirs": "one:Net"}}))
    before = install("two", declared({"encoder": {"theirs": "two:Net"}}))
    ended = train(*STEP, "encoder.name=theirs", before=before)
    assert ended.code == 2
    seen(ended)


@pytest.mark.fault(51, "two recipes of one name", "refused, naming both")
def test_one_recipe_of_two(train, seen, install):
    ended = train(*STEP, before=install("one", declared({}), recipe="my_images"))
    assert ended.code == 2
    seen(ended)


@pytest.mark.fault(52, "a plugin's encoder of another width than it says", "refused in the first batch")
def test_a_wrong_width(train, seen, install):
    source = declared({"encoder": {"strange": "strange.net:Strange"}})
    ended = train(*STEP, "encoder.name=strange", before=install("strange", source, net=ENCODER))
    assert ended.code == 2
    seen(ended)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda x: Features(x.double()), "float64"),
        (lambda x: Features(x.round().long()), "int64"),
        (lambda x: Features(x[::2]), r"shape \[3, 4\]"),
        (lambda x: x, "a Tensor"),
        (lambda x: Features(x.to("meta")), "meta"),
    ],
)
def test_what_else_an_encoder_may_not_give(wrong, told):
    class Strange(Encoder):
        dims = {"pooled": 4}  # noqa: RUF012

        def forward(self, x):
            return wrong(x)

    with pytest.raises(UsageError, match=f"encoder Strange gives .*{told}.* was promised"):
        encode(Strange(), (torch.ones(3, 4), torch.ones(3, 4)))
