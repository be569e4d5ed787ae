import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from toy_space import Windows

from stec.encoder import Encoder, Features
from stec.errors import UsageError
from stec.export import CARD, MANIPULATION, SPEC_NAME, WEIGHTS, describe, export, loading_lines, plain, read
from stec.manipulation.binned import Binned

SPEC = {
    "format": 1,
    "actions": {"windows": {"size": 32, "scale": [0.08, 1.0]}},
    "encoder": {"name": "net", "width": 3},
    "manipulation": {"binned": {"hidden": 8}},
    "extents": ((32, 32),),
    "classes": [],
}


class Net(Encoder):
    prefix = "inner."
    takes = "rows of four"

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        self.inner[0].weight.data = torch.randn(4, 3).T  # strides that safetensors would refuse
        self.dims = {"pooled": 3}

    def forward(self, x):
        return Features(self.inner(x))


@pytest.fixture
def written(tmp_path):
    torch.manual_seed(0)
    net, binned = Net(), Binned({"pooled": 3}, Windows(), torch.tensor([[375, 500]]), hidden=8)
    folder = tmp_path / "runs" / "a folder"
    export(
        folder,
        SPEC,
        net,
        nn.ModuleDict({"binned": binned}),
        metrics={"eval/knn/top1": 0.25, "eval/linear/top1": math.nan},
        protocol={"eval/knn": "k=20"},
        facts={"data": "toy, fingerprint 123"},
    )
    return folder, net, binned


def test_round_trip(written):
    folder, net, binned = written
    spec, encoder, manipulation = read(folder)
    assert spec == json.loads(json.dumps(SPEC))
    other = Net()
    other.load_state_dict({other.prefix + name: value for name, value in encoder.items()})
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))
    fresh = Binned({"pooled": 3}, Windows(), torch.tensor([[32, 32]]), hidden=8)
    assert not torch.equal(fresh.bins.edges, binned.bins.edges)
    nn.ModuleDict({"binned": fresh}).load_state_dict(manipulation)
    assert torch.equal(fresh.bins.edges, binned.bins.edges)
    a, b = (Features(torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))) for seed in (1, 2))
    with torch.no_grad():
        expected = binned.eval().posterior(a, b).log_probs
        assert torch.equal(fresh.eval().posterior(a, b).log_probs, expected)


def test_names_are_those_that_others_know(written):
    assert sorted(load_file(written[0] / WEIGHTS)) == [
        "0.bias",
        "0.weight",
        "1.bias",
        "1.num_batches_tracked",
        "1.running_mean",
        "1.running_var",
        "1.weight",
    ]


def test_the_card_and_the_json_say_what_it_is(written):
    folder, net, _ = written
    about = describe(folder)
    assert about["metrics"] == {"eval/knn/top1": 0.25}
    card = (folder / CARD).read_text()
    for words in (
        "toy, fingerprint 123",
        "`eval/knn/top1` | 0.25",
        "k=20",
        "`translation_x` in half-windows",
        "hidden 8",
    ):
        assert words in card
    assert about["sha256"][WEIGHTS] in card
    assert "build.load('a folder')" in card
    assert str(folder.parent) not in card
    assert f"build.load({str(folder)!r})" in "\n".join(loading_lines(folder, net))
    assert "# x: rows of four -> encoder(x).pooled" in card


def test_an_encoder_alone(tmp_path):
    lines = export(tmp_path / "alone", SPEC, Net())
    assert lines == loading_lines(tmp_path / "alone", Net())
    assert read(tmp_path / "alone").manipulation is None
    assert not (tmp_path / "alone" / MANIPULATION).exists()
    assert "What was done" not in (tmp_path / "alone" / CARD).read_text()
    within = nn.ModuleDict({"offset": nn.Linear(1, 1)})  # it answers for no pair of views
    export(tmp_path / "within", SPEC, Net(), within)
    assert "What was done" not in (tmp_path / "within" / CARD).read_text()


def test_an_older_export_is_replaced_and_nothing_else_is(written, tmp_path):
    folder, net, _ = written
    export(folder, SPEC, net)
    assert read(folder).manipulation is None
    assert [p.name for p in folder.parent.iterdir()] == ["a folder"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="another place"):
        export(tmp_path / "mine", SPEC, net)
    with pytest.raises(UsageError, match="another place"):
        export(tmp_path / "mine" / "thesis.tex", SPEC, net)
    (tmp_path / "empty").mkdir()
    export(tmp_path / "empty", SPEC, net)
    assert read(tmp_path / "empty").spec["encoder"] == SPEC["encoder"]


def test_a_failed_export_leaves_the_old_one(written, monkeypatch):
    folder, net, _ = written
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stec.export.card", full)
    with pytest.raises(UsageError, match="space"):
        export(folder, SPEC, net)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["a folder"]


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def lie(path, change):
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: flip(f / WEIGHTS), "model.safetensors is damaged"),
        (lambda f: flip(f / MANIPULATION), "manipulation.safetensors is damaged"),
        (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]), "model.safetensors is damaged"),
        (lambda f: (f / WEIGHTS).unlink(), "model.safetensors cannot be read"),
        (lambda f: (f / MANIPULATION).unlink(), "manipulation.safetensors cannot be read"),
        (lambda f: (f / SPEC_NAME).unlink(), "no exported folder"),
        (lambda f: (f / SPEC_NAME).write_text('{"format": 1'), "not JSON"),
        (lambda f: (f / SPEC_NAME).write_bytes(b"\xff\xfe"), "not JSON"),
        (lambda f: (f / SPEC_NAME).write_text("[]"), "format"),
        (lambda f: lie(f / SPEC_NAME, lambda a: a.update(format=1)), "format is 1"),
        (lambda f: lie(f / SPEC_NAME, lambda a: a.update(spec=[])), "no description"),
        (lambda f: lie(f / SPEC_NAME, lambda a: a.pop("sha256")), "what model.safetensors must contain"),
        (lambda f: lie(f / SPEC_NAME, lambda a: a["spec"].update(_target_="os.system")), "_target_"),
        (lambda f: lie(f / SPEC_NAME, lambda a: a["spec"]["encoder"].update(width=math.inf)), "spec.encoder.width"),
    ],
)
def test_what_is_damaged_missing_or_lying_is_told_in_a_sentence(written, damage, sentence):
    damage(written[0])
    with pytest.raises(UsageError, match=sentence) as caught:
        read(written[0])
    assert "\n" not in str(caught.value)


def test_something_else_under_a_right_digest(written):
    folder, _, _ = written
    (folder / WEIGHTS).write_bytes(b"not tensors")
    import hashlib

    digest = hashlib.sha256(b"not tensors").hexdigest()
    lie(folder / SPEC_NAME, lambda a: a["sha256"].update({WEIGHTS: digest}))
    with pytest.raises(UsageError, match="not a safetensors file"):
        read(folder)
    save_file({"a": torch.zeros(1)}, folder / WEIGHTS)
    with pytest.raises(UsageError, match="damaged"):
        read(folder)


def test_only_plain_things_are_written(tmp_path):
    for value in (torch.zeros(1), object(), b"x", math.nan, {1: 2}, {"_partial_": True}):
        with pytest.raises(UsageError, match=r"spec\.a\[0\]"):
            plain({"a": [value]})
    net = Net()
    net.stray = nn.Linear(1, 1)
    with pytest.raises(UsageError, match="prefix"):
        export(tmp_path / "x", SPEC, net)
    assert not list(tmp_path.iterdir())
