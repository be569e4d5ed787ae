"""E-SSL (Dangovski et al., ICLR 2022): by which quarter turn was this view turned? Read off that view alone.

The manipulation model q(a | x') that sees no first view: a turn shows without one, as things have an upright position.

Legend: B samples, L levels of the component, E width of the output that is read.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stec.actions import ActionSpace
from stec.bins import constant
from stec.copies import YOKED, draw, level, level_shares, told
from stec.distributed import global_mean
from stec.encoder import Features, tap
from stec.errors import UsageError, at_least
from stec.heads import width
from stec.losses import float_of
from stec.objective import Out, Term, tally
from stec.views import Views


class Rotation(Term):
    """Mean cross-entropy over samples of one discrete component of the action from view 0 to view `view`.

    component: its name, with levels ("quarter_turn", of which view 0 is not turned, so that it tells the turn of the
    other view). view: number of the view that is turned and read; the identity model compares the first two, as theirs.
    hidden: width of the head, three linear layers with layer norm and ReLU between, as in their code for small samples.
    tap: the output of the encoder that is read. yoked: the control, as in the model `binned`.

    Their code turns each third view in all four ways; here each is turned in one way, drawn with its keys: the same
    loss on average, for a quarter of the cost.
    """

    # Not through norms, but through the count of valid samples.
    couples_batch = True

    def __init__(
        self,
        dims: Mapping[str, int],
        space: ActionSpace,
        extents: Tensor,
        *,
        component: str = "quarter_turn",
        view: int = 2,
        hidden: int = 2048,
        yoked: bool = False,
        tap: str = "pooled",
    ):
        super().__init__()
        where = "manipulation.rotation"
        if view < 1:
            raise UsageError(f"{where}.view={view} must be at least 1: view 0 is the one that is not turned.")
        at_least(1, where, hidden=hidden)
        names = [c.name for c in space.components]
        if component not in names:
            raise UsageError(
                f"{where}.component={component!r} is not among the components of these actions"
                f" ({', '.join(names) or 'none'}): an action that has it is needed."
            )
        self.column = names.index(component)
        self.component = space.components[self.column]
        if not self.component.levels:
            raise UsageError(f"{where}.component={component!r} has no levels: a discrete component is needed.")
        self.needs, self.tap, self.yoked = frozenset({tap}), tap, yoked
        self.view, self.pairs, self.num_views = view, ((0, view),), view + 1
        self.keeps = frozenset({view} - {0, 1})  # the first two are every identity model's
        drawn = draw(space, extents, self.pairs)
        if constant(drawn.values, drawn.valid)[self.column]:
            raise UsageError(f"{where} has nothing to predict: {component} is constant between views 0 and {view}.")
        shares = level_shares(self.component, drawn.values[:, self.column], drawn.valid[:, self.column])
        self.entropy, self.majority = float(torch.special.entr(shares).sum()), float(shares.max())
        self.head = nn.Sequential(
            nn.Linear(width(dims, tap), hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, len(self.component.levels)),
        )

    def forward(self, features: tuple[Features, ...], views: Views) -> Out:
        values, valid = (told(t, self.yoked)[:, self.column] for t in views.copies[self.pairs[0]])
        target = level(self.component, torch.where(valid, values, 0.0))
        logits: Tensor = self.head(tap(features[self.view], self.tap))
        with torch.autocast(logits.device.type, enabled=False):
            losses = F.cross_entropy(float_of(logits), target, reduction="none")
        name = self.component.name
        sums = {
            "train/loss_manip": tally(losses, valid),
            f"train/action_acc/{name}": tally(logits.detach().argmax(dim=1) == target, valid),
            f"train/action_bits/{name}": tally((self.entropy - losses.detach()) / math.log(2), valid),
        }
        return Out(global_mean(losses, valid), sums)

    def chance(self, batch_size: int | None = None) -> dict[str, float]:  # noqa: ARG002
        name = self.component.name
        return {
            "train/loss_manip": self.entropy,
            f"train/action_acc/{name}": self.majority,
            f"train/action_bits/{name}": 0.0,
        }

    def describe(self) -> str:
        what = (
            f"cross-entropy of {self.component.name}, {len(self.component.levels)} levels, from view {self.view} alone"
        )
        aside = YOKED if self.yoked else ""
        return f"{what}, chance {self.entropy:.2f} nats, majority {self.majority:.3f}{aside}"
