import torch
from torch import nn

from stec.encoder import Encoder, Features
from stec.errors import DataError


class Net(Encoder):
    hop, centre = 4, 1.5

    def __init__(self, *, channels: int = 32):
        super().__init__()
        self.dims = {"pooled": channels, "local": channels}
        first, second = nn.Conv1d(3, channels, 4, 2, 1), nn.Conv1d(channels, channels, 4, 2, 1)
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())

    def forward(self, x):
        local = self.layers(x).mT
        return Features(local.mean(dim=1), local)


class Activity:
    """Probe: which activity? Read from the pooled features."""

    needs = frozenset({"pooled"})

    def __init__(self, decoder):
        self.decoder = decoder

    def example(self, members, meta):
        if not members["cls"].isdigit():
            raise DataError("the member cls is not a number")
        x = self.decoder.finish(self.decoder.whole(self.decoder.open(members["npy"]))[None])
        return x, torch.tensor([int(members["cls"])])

    def rows(self, encoder, features, labels):
        return features.pooled, labels

    def classes(self, meta):
        return meta["classes"]

    def describe(self):
        return "the activity, a recording a row"
