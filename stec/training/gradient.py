"""The gradient of one batch, left in the parameters: at once, or part after part.

Legend: B samples of this rank, V views, D width of the pooled features.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stec import spectrum
from stec.actions import Relative
from stec.encoder import Features
from stec.errors import UsageError
from stec.objective import STEC, Out, Sums, tally
from stec.training.options import Hardware
from stec.views import Views

Scale = Callable[[Tensor], Tensor]
_ROWS = 512


class Pass(nn.Module):
    """One forward pass, as the one module that DDP wraps. `measured`: also what only log lines need."""

    def __init__(self, stec: STEC):
        super().__init__()
        self.stec = stec

    def forward(self, views: Views, measured: bool) -> Out:
        features = self.stec.encode(views.x)
        out: Out = self.stec.score(features, views, grad_share=measured)
        return Out(out.loss, out.sums | health(features)) if measured else out


def health(features: tuple[Features, ...]) -> Sums:
    """Spread and effective rank of the first view's pooled features (512 rows): the evaluation's std and rankme."""
    x = features[0].pooled[:_ROWS]
    return {"train/z_std": tally(spectrum.std(x)), "train/rankme": tally(spectrum.rankme(x))}


class Plain:
    """Forward and backward of the whole batch, or of `parts` equal parts of it that do not hear of each other."""

    def __init__(self, model: Pass | DistributedDataParallel, hardware: Hardware, scale: Scale, parts: int = 1):
        self.model, self.hardware, self.scale, self.parts = model, hardware, scale, parts

    def __call__(self, views: Views, measured: bool) -> Out:
        losses: list[Tensor] = []
        sums: Sums = {}
        for number, part in enumerate(cut(views, self.parts)):
            # DDP averages gradients over ranks in the last part's backward; until then they add up locally.
            ddp = self.model if isinstance(self.model, DistributedDataParallel) else None
            with ddp.no_sync() if ddp is not None and number < self.parts - 1 else nullcontext():
                with self.hardware.autocast():
                    out: Out = self.model(part, measured)
                self.scale(out.loss / self.parts).backward()
            losses.append(out.loss.detach())
            for name, (total, count) in out.sums.items():
                before = sums.get(name)
                sums[name] = (total, count) if before is None else (before[0] + total, before[1] + count)
        return Out(torch.stack(losses).mean(), sums)


def cut(views: Views, parts: int) -> Iterator[Views]:
    """The batch in equal parts, in order; UsageError if it cannot be cut so."""
    num = len(views.x[0])
    if num % parts:
        raise UsageError(f"training.accumulate={parts} must divide the {num} samples that a rank has of each batch.")
    for start in range(0, num, num // parts):
        yield rows(views, slice(start, start + num // parts))


def rows(views: Views, s: slice) -> Views:
    """Some of the samples, with all that is known of them."""
    copies = {pair: Relative(c.values[s], c.valid[s]) for pair, c in views.copies.items()}
    group, labels = (None if t is None else t[s] for t in (views.group, views.labels))
    return Views(tuple(x[s] for x in views.x), copies, views.num_global, views.keys[s], group, labels)
