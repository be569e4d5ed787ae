"""Every identity and manipulation model of the core that compares whole views, small, on a toy signal."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_space import Windows

from stec.actions import Component, Compose, Relative, sample_views
from stec.build import Part
from stec.catalogue import CORE, find
from stec.encoder import Encoder, Features
from stec.objective import STEC, Term
from stec.rng import make_keys, uniform
from stec.views import Batch, Views, make_views

EXTENTS = torch.tensor([[32, 32]])
OF_SEQUENCES = ("cpc", "time_insensitive", "frame_offset")
MULTI_CROP = ("swav", "relicv2", "lejepa")

SMALL: dict[str, dict[str, Any]] = {
    "simclr": {"hidden": 8, "out": 4},
    "relic": {"hidden": 8, "out": 4, "predictor_hidden": 8},
    "relicv2": {"hidden": 8, "out": 4, "predictor_hidden": 8, "num_negatives": 3},
    "byol": {"hidden": 8, "out": 4},
    "simsiam": {"hidden": 8, "out": 4},
    "vicreg": {"hidden": 8, "out": 4},
    "barlow": {"hidden": 8, "out": 4},
    "moco": {"hidden": 8, "out": 4, "queue": 24},
    "swav": {"hidden": 8, "out": 4, "num_prototypes": 6, "freeze_steps": 1},
    "lejepa": {"hidden": 8, "out": 4, "num_slices": 5},
    "binned": {"hidden": 8},
    "regression": {"hidden": 8},
    "augself": {"hidden": 8},
    "rotation": {"hidden": 8},
    "forward_model": {"hidden": 8, "out": 4},
}
IDENTITY = tuple(name for name in CORE["identity"] if name not in OF_SEQUENCES)
MANIPULATION = tuple(name for name in CORE["manipulation"] if name not in OF_SEQUENCES)


class Turns:
    """Quarter turns of the views from the third on: all but their numbers is left out."""

    num_params = 1
    components = (Component("quarter_turn", "quarter turns", 0, 3, levels=(0.0, 1.0, 2.0, 3.0)),)

    def sample(self, keys: Tensor, extent: Tensor, view: int) -> Tensor:
        return torch.floor(4 * uniform(keys, view, "turns", 1)).float() * (view >= 2)

    def act(self, x: Tensor, action: Tensor, view: int) -> Tensor:
        return x + 0.3 * action.to(x.dtype)

    def relative(self, a: Tensor, b: Tensor) -> Relative:
        return Relative((b - a) % 4, torch.ones(len(a), 1, dtype=torch.bool))

    def trusted(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.ones(len(a), dtype=torch.bool)


def toy_space(frame: str = "ego") -> Compose:
    return Compose({"window": Windows(frame), "turns": Turns()})


class TwoLayers(Encoder):
    """x [B, 4], or narrower, if a view is a small one."""

    def __init__(self) -> None:
        super().__init__()
        self.dims = {"pooled": 8, "inner": 6}
        self.first, self.norm, self.second = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Features:
        inner = self.norm(self.first(F.pad(x, (0, 4 - x.shape[1])))).tanh()
        return Features(self.second(inner), layers={"inner": inner})


def term(kind: str, name: str, encoder: Encoder, space: Compose, **options: Any) -> Term:
    found: Term = Part(name, find(kind, name), SMALL[name] | options).of(
        encoder=encoder, dims=encoder.dims, space=space, extents=EXTENTS
    )
    return found


def objective(identity: str | None, manipulation: str | None = None, seed: int = 0, **options: Any) -> STEC:
    """In float64; options are those of the identity model."""
    torch.manual_seed(seed)
    encoder, space = TwoLayers(), toy_space("augself" if manipulation == "augself" else "ego")
    return STEC(
        encoder,
        {} if identity is None else {identity: (1.0, term("identity", identity, encoder, space, **options))},
        {} if manipulation is None else {manipulation: (0.5, term("manipulation", manipulation, encoder, space))},
        {},
    ).double()


def toy_views(step: int, num: int = 12, frame: str = "ego", small: int = 0) -> Views:
    """Three views of `num` samples at a step (the third one turned), and `small` narrow ones."""
    space, keys = toy_space(frame), make_keys(0, step, torch.arange(num))
    actions = sample_views(space, keys, EXTENTS.expand(num, 2), 3 + small)
    source = torch.randn(num, 4, generator=torch.Generator().manual_seed(step)).double()
    noise = torch.Generator().manual_seed(1000 + step)
    x = [source + 0.3 * torch.randn(num, 4, generator=noise).double() for _ in range(3 + small)]
    x = [each if v < 3 else each[:, :3] for v, each in enumerate(x)]
    return make_views(Batch(tuple(x), actions, keys), space, ((0, 1), (1, 0), (0, 2)))
