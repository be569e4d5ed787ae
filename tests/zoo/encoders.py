"""A good encoder, and some that are each wrong in one way."""

import torch
from torch import Tensor, nn

from stec.encoder import Encoder, Features


class Look(Encoder):
    """Mean, spread and three projections of a sample."""

    def __init__(self, *, channels: int = 16):
        super().__init__()
        self.dims = {"pooled": channels}
        self.linear = nn.Linear(3, channels)

    def forward(self, x: Tensor) -> Features:
        flat = x.flatten(1)
        return Features(self.linear(torch.stack([flat.mean(1), flat.std(1, unbiased=False), flat[:, 0]], dim=1)))


class Demanding(Look):
    def __init__(self, *, channels: int):
        super().__init__(channels=channels)


class Misnamed(Look):
    def __init__(self):
        super().__init__()
        self.dims = {"pooled": 16, "context": 16}


class TooWide(Look):
    def __init__(self):
        super().__init__()
        self.dims = {"pooled": 17}


class Hopless(Look):
    def __init__(self):
        super().__init__()
        self.dims = {"pooled": 16, "local": 16}

    def forward(self, x):
        pooled = super().forward(x).pooled
        return Features(pooled, pooled[:, None])


class Averages(Look):
    """Means over four numbers each, with which it says nothing of where they stood."""

    hop, centre = 4, 1.5

    def __init__(self):
        super().__init__()
        self.dims = {"pooled": 16, "local": 1}

    def forward(self, x):
        return Features(super().forward(x).pooled, x.flatten(1, -2).mean(1).unfold(1, 4, 4).mean(2)[..., None])


class Hastes(Averages):
    hop = 5


class Astray(Averages):
    centre = 99.0


class Restless(Look):
    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return Features(super().forward(x).pooled + self.calls)


class LooksAround(Look):
    def forward(self, x):
        pooled = super().forward(x).pooled
        return Features(pooled - pooled.mean(dim=0))


class Unreached(Look):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Forgets(Look):
    """What it learnt of its input's mean is no buffer."""

    mean = 0.0

    def forward(self, x):
        if self.training:
            self.mean = float(x.mean())
        return super().forward(x - self.mean)


class Blind(Look):
    def forward(self, x):
        return super().forward(torch.zeros_like(x))
