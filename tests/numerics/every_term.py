"""Every model of the catalogue, small, with features and views that it can be scored on.

A new model fails here until toy_terms.SMALL (or OF_SEQUENCES below) says how it is made small.
"""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from toy_sequence import DIMS, sequence_views, some_features
from toy_terms import EXTENTS, SMALL, TwoLayers, toy_space, toy_views

from stec import copies
from stec.build import Part
from stec.catalogue import CORE, find
from stec.encoder import Features
from stec.objective import Out, Term
from stec.views import Views

OF_SEQUENCES: dict[str, dict[str, Any]] = {
    "cpc": {"steps": 2, "num_negatives": 4},
    "time_insensitive": {"hidden": 8, "out": 4},
    "frame_offset": {"hidden": 8, "reach": 3, "num_pairs": 3},
}
# Other forms of a loss, which the defaults do not come to.
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("simclr", {"negatives": "local"}),
    ("relic", {"momentum": None, "predictor": True}),
    ("byol", {"momentum": None}),
    ("byol", {"momentum": None, "predictor": False, "stop_gradient": False}),
    ("moco", {"symmetric": True}),
    ("swav", {"freeze_steps": 0}),
    ("swav", {"freeze_steps": 0, "queue": 8}),
    ("cpc", {"score": "mean", "negatives": "same_sequence"}),
    ("time_insensitive", {"design": "frames", "reads": "local", "num_frames": 2}),
    ("binned", {"noise": 0.2, "direction": "both"}),
    ("regression", {"squash": "tanh"}),
    ("augself", {"discrete": False}),
    ("forward_model", {"similarity": "dot"}),
]
KIND = {name: kind for kind in CORE for name in CORE[kind]}
EVERY = [*((name, {}) for name in KIND), *FORMS]
NAMES = ["-".join([name, *map(str, options.values())]) for name, options in EVERY]


class Case(NamedTuple):
    """A term, and what it is scored on."""

    term: Term
    features: tuple[Features, ...]
    views: Views

    def rounded(self, to: torch.dtype, held: torch.dtype) -> "Case":
        """The term in float32, as it is trained; the features rounded `to` a precision, and `held` in one."""
        features = tuple(Features(*(_in(_in(t, to), held) for t in f)) for f in self.features)
        return Case(self.term.float(), features, self.views._replace(x=tuple(x.float() for x in self.views.x)))

    @property
    def num_outputs(self) -> int:
        return len([t for f in self.features for t in f[:3] if t is not None])

    def leaves(self) -> list[Tensor]:
        """The outputs that a gradient goes back to the encoder by; then the parameters that learn."""
        outputs = [t for f in self.features for t in f[:3] if t is not None]
        return outputs + [p for p in self.term.parameters() if p.requires_grad]

    def score(self, *given: Tensor) -> Out:
        """With the leaves replaced; whatever the term keeps (queues, statistics) stays as it is."""
        left = list(given)
        features = tuple(
            Features(*(left.pop(0) if n < 3 and t is not None else t for n, t in enumerate(f))) for f in self.features
        )
        names = [name for name, p in self.term.named_parameters() if p.requires_grad]
        state = {name: b.clone() for name, b in self.term.named_buffers()} | dict(zip(names, left, strict=True))
        out: Out = functional_call(self.term, state, (features, self.views))
        return out


def case(name: str, num: int = 6, **options: Any) -> Case:
    """In float64, after a first step, as far as a term counts steps."""
    torch.manual_seed(3)
    if name in OF_SEQUENCES:
        sizes = {"dims": DIMS, **OF_SEQUENCES[name], **options}
        views = sequence_views(num, num_views=2)
        features = tuple(some_features(num, 9, seed) for seed in (1, 2))
        # Leaves of their own: what is made of them in the features is no matter here.
        features = tuple(f._replace(pooled=f.pooled.detach()) for f in features)
        return Case(find(KIND[name], name)(**sizes).double().train(), features, views)
    encoder = TwoLayers()
    frame = "augself" if name == "augself" else "ego"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "_FIT_DRAWS", 2048)  # the bins' places are no matter here
        found: Term = Part(name, find(KIND[name], name), SMALL[name] | options).of(
            encoder=encoder, dims=encoder.dims, space=toy_space(frame), extents=EXTENTS
        )
    found = found.double().train()
    for step in (0, 2):
        found.before_step(encoder.double(), step, 10)
    if options.get("queue") and name == "swav":
        found.queued.copy_(nn.functional.normalize(torch.randn_like(found.queued), dim=2))
    features = tuple(Features(torch.randn(num, encoder.dims["pooled"]).double()) for _ in range(3))
    return Case(found, features, toy_views(1, num, frame))


def heads(term: Term) -> list[nn.Module]:
    """The networks between the features and the loss, which may run in a low precision."""
    inside = [list(child) if isinstance(child, nn.ModuleList) else [child] for child in term.children()]
    inside = [list(c.values()) if isinstance(c, nn.ModuleDict) else [c] for group in inside for c in group]
    return [m for group in inside for m in group if not isinstance(m, nn.Identity)]


class Constants:
    """with constants: detach() gives, in each later block, what it gave in the first one. A stopped gradient is that of
    a constant, to whoever finds gradients by differences too."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []
        self.count, self.patch = -1, pytest.MonkeyPatch()

    def __enter__(self) -> None:
        detach, self.count = Tensor.detach, 0 if self.count < 0 else len(self.kept)
        left = iter(self.kept[: self.count])

        def kept(t: Tensor) -> Tensor:
            if self.count:
                return next(left)
            self.kept.append(detach(t).clone())
            return self.kept[-1]

        self.patch.setattr(Tensor, "detach", kept)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


def _in(t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return t.detach().to(dtype) if isinstance(t, Tensor) and t.is_floating_point() else t
