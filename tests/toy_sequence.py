"""A small encoder of sequences, and views of a one-dimensional signal for it."""

import torch
from torch import Tensor, nn

from stec.encoder import Encoder, Features
from stec.rng import make_keys
from stec.views import Views

DIMS = {"pooled": 5, "local": 4, "context": 5, "last": 5}


class Sequences(Encoder):
    """x [B, 1, L] -> (L - 2) // 2 frames. Each sample alone; frames: how many leading frames of a sample are real."""

    def __init__(self, frames: Tensor | None = None):
        super().__init__()
        self.dims, self.frames = dict(DIMS), frames
        self.near, self.far = nn.Conv1d(1, 4, 4, stride=2), nn.GRU(4, 5, batch_first=True)

    def forward(self, x: Tensor) -> Features:
        local = self.near(x).tanh().mT
        context = self.far(local)[0]
        return Features(context.mean(1), local, context, self.frames, {"last": context[:, -1]})


def sequence_views(num: int = 8, frames: int = 9, num_views: int = 1, seed: int = 0) -> Views:
    """Noise, of which each pair of samples is one group; the last two samples do not know theirs."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_views, num, 1, 2 * frames + 2, generator=generator, dtype=torch.float64)
    group = torch.arange(num) // 2
    group[-2:] = -1
    return Views(tuple(x), {}, num_views, make_keys(seed, 1, torch.arange(num) * 3 + 1), group)


def some_features(num: int = 4, frames: int = 7, seed: int = 0, real: Tensor | None = None) -> Features:
    """Random float64 leaves; what is not real is large."""
    generator = torch.Generator().manual_seed(seed)
    local, context = (torch.randn(num, frames, DIMS[n], generator=generator).double() for n in ("local", "context"))
    if real is not None:
        for x in (local, context):
            x[torch.arange(frames) >= real[:, None]] = 50.0
    return Features(context.mean(1), local.requires_grad_(), context.requires_grad_(), real)
