"""Small networks between the encoder and a loss. Plain modules: SyncBatchNorm conversion finds its way in."""

from collections.abc import Mapping

from torch import Tensor, nn

from stec.errors import UsageError


def width(dims: Mapping[str, int], tap: str) -> int:
    """The width of a named output of the encoder; UsageError lists what there is."""
    if tap not in dims:
        raise UsageError(f"tap={tap!r} is not an output of this encoder: choose one of {', '.join(dims)}.")
    return dims[tap]


class Projector(nn.Sequential):
    """[B, num_inputs] -> [B, num_outputs]: Linear - BN - ReLU - Linear (no bias) - BN (bias fixed at 0)."""

    def __init__(self, num_inputs: int, hidden: int, num_outputs: int):
        last = nn.BatchNorm1d(num_outputs)
        last.bias.requires_grad_(False)  # a shift common to all samples would only crowd the sphere
        super().__init__(
            nn.Linear(num_inputs, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, num_outputs, bias=False),
            last,
        )


class ManipulationHead(nn.Module):
    """Both views' features [B, 2 * num_inputs] -> logits [B, num_components, num_bins]: Linear - BN - ReLU - Linear."""

    def __init__(self, num_inputs: int, hidden: int, num_components: int, num_bins: int):
        super().__init__()
        self.shape = (num_components, num_bins)
        self.layers = nn.Sequential(
            nn.Linear(2 * num_inputs, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, num_components * num_bins),
        )

    def forward(self, pair: Tensor) -> Tensor:
        logits: Tensor = self.layers(pair)
        return logits.unflatten(1, self.shape)
