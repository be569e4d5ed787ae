"""AugSelf (Lee et al., NeurIPS 2021): what differs between two views, as a bystander sees it, from both their features.

The allocentric relative of q(a | x, x'): a normal law around each difference, in a head of its own for each kind of
action.

Legend: B pairs, P = 2 directions, C live components, G components of a group, L levels of a discrete component.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stec.actions import Component, Compose
from stec.copies import OfCopies, level, level_shares
from stec.distributed import global_mean
from stec.encoder import Features
from stec.errors import UsageError, at_least
from stec.heads import MLP, width
from stec.losses import float_of
from stec.objective import Out, tally
from stec.views import Views

# A part that has both tells its window as the entries of a matrix (stec.affine.entries), in whichever frame.
_ENTRIES = {"linear", "translation"}


def augself_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """(tanh(head(x, x')) - difference)^2, one value for each pair and component, of outputs and target [P * B, G] in
    (-1, 1); their mean is the loss of one group."""
    return (outputs.tanh() - target).square()


class AugSelf(OfCopies):
    """The sum over groups of the mean squared error within a group, over valid pairs in both orders.

    A group holds the components of one part of the action space: the window's (in frame "augself"), those of colours,
    and so on. A component is divided by its declared range, or if it has none by the largest value among draws, so that
    it lies in [-1, 1]. discrete: components with levels, such as `mirrored`, are groups of their own, with the
    cross-entropy of their levels (of two: the binary one); the authors' published settings leave these out.

    hidden: width of each group's head, three linear layers with batch norm and ReLU between. tap: the output of the
    encoder that is read. yoked: the control, as in the model `binned`. UsageError if a part of the actions is told in
    another frame, or nothing is left to predict.
    """

    scale: Tensor

    def __init__(
        self,
        dims: Mapping[str, int],
        space: Compose,
        extents: Tensor,
        *,
        hidden: int = 512,
        discrete: bool = True,
        yoked: bool = False,
        tap: str = "pooled",
    ):
        super().__init__()
        where = "manipulation.augself"
        at_least(1, where, hidden=hidden)
        owner = {c.name: name for name, part in space.parts.items() for c in part.components}
        for name, part in space.parts.items():
            if {c.name.partition("_")[0] for c in part.components} >= _ENTRIES:
                raise UsageError(
                    f"{where} predicts differences in the frame augself (centre_*, size_*), but actions.{name} tells"
                    f" {part.components[0].name}: set actions.{name}.frame=augself."
                )
        drawn = self.fit(where, space, extents, direction="both", tap=tap, yoked=yoked)
        self.register_buffer("scale", torch.ones(len(self.components), dtype=torch.float64))
        self.groups: dict[str, list[int]] = {}
        self.classes: dict[str, int] = {}
        chance: dict[str, float] = {}
        self.majority: dict[str, float] = {}
        self.variance: dict[str, float] = {}
        for c, component in enumerate(self.components):
            values, valid = drawn.values[:, c], drawn.valid[:, c]
            if component.levels and discrete:
                shares = level_shares(component, values, valid)
                self.classes[component.name] = c
                self.majority[component.name] = float(shares.max())
                chance[component.name] = float(torch.special.entr(shares).sum())
            elif not component.levels:
                if component.period > 0:
                    raise UsageError(f"{where} cannot regress the circular component {component.name}: choose binned.")
                self.groups.setdefault(owner[component.name], []).append(c)
                self.scale[c] = _reach(component, values[valid])
                self.variance[component.name] = float((values[valid] / self.scale[c]).var(correction=0))
        if not self.groups and not self.classes:
            raise UsageError(f"{where} has nothing to predict: its components are discrete, and discrete=false.")
        for name, columns in self.groups.items():
            each = [self.variance[self.components[c].name] for c in columns]
            chance[name] = sum(each) / len(each)
        self.chance_level = sum(chance.values())
        inputs = 2 * width(dims, tap)
        self.heads = nn.ModuleDict(
            {name: MLP(inputs, hidden, len(columns), num_layers=3) for name, columns in self.groups.items()}
        )
        self.class_heads = nn.ModuleDict(
            {n: MLP(inputs, hidden, len(self.components[c].levels), num_layers=3) for n, c in self.classes.items()}
        )

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        values, valid = self.given(views)
        scaled, seen = values / self.scale, self.look(features)
        losses = []
        sums = {}
        for name, columns in self.groups.items():
            outputs = self.heads[name](seen)
            known = torch.stack([valid[:, c] for c in columns], dim=1)
            target = torch.stack([scaled[:, c] for c in columns], dim=1)
            with torch.autocast(seen.device.type, enabled=False):
                outputs = float_of(outputs)
                errors = augself_loss(outputs, target.to(outputs))
            losses.append(global_mean(errors, known))
            for g, c in enumerate(columns):
                component = self.components[c].name
                explained = 1 - errors[:, g].detach() / self.variance[component]
                sums[f"train/action_r2/{component}"] = tally(explained, known[:, g])
        for name, c in self.classes.items():
            logits, known = self.class_heads[name](seen), valid[:, c]
            number = level(self.components[c], values[:, c])
            with torch.autocast(seen.device.type, enabled=False):
                losses.append(global_mean(F.cross_entropy(float_of(logits), number, reduction="none"), known))
            sums[f"train/action_acc/{name}"] = tally(logits.detach().argmax(dim=1) == number, known)
        loss = torch.stack(losses).sum()
        return Out(loss, {"train/loss_manip": tally(loss), **sums})

    def chance(self, batch_size: int | None = None) -> dict[str, float]:  # noqa: ARG002
        return {
            "train/loss_manip": self.chance_level,
            **{f"train/action_r2/{name}": 0.0 for name in self.variance},
            **{f"train/action_acc/{name}": share for name, share in self.majority.items()},
        }

    def describe(self) -> str:
        told = [
            f"{name} ({', '.join(self.components[c].name for c in columns)})" for name, columns in self.groups.items()
        ]
        groups = " + ".join([*told, *self.classes])
        return f"sum of mean errors of {groups}, both orders, chance {self.chance_level:.3f}{self.asides()}"


def _reach(component: Component, drawn: Tensor) -> float:
    """The largest magnitude that the component can have, if it is declared, or else that it has among draws [N]."""
    declared = max(abs(component.low), abs(component.high))
    return declared if declared < float("inf") else float(drawn.abs().max())
