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


class MLP(nn.Sequential):
    """[B, num_inputs] -> [B, num_outputs] in num_layers linear layers, each but the last followed by BN and ReLU.

    norm: whether there is BN between layers. last_norm: what follows the last layer: None, "affine" (a whole BN) or
    "plain" (BN without gain and shift). last_bias: whether the last layer has a bias.
    """

    def __init__(
        self,
        num_inputs: int,
        hidden: int,
        num_outputs: int,
        *,
        num_layers: int = 2,
        norm: bool = True,
        last_norm: str | None = None,
        last_bias: bool = True,
    ):
        layers: list[nn.Module] = []
        for number in range(num_layers - 1):
            layers.append(nn.Linear(hidden if number else num_inputs, hidden))
            layers += [nn.BatchNorm1d(hidden)] * norm + [nn.ReLU(inplace=True)]
        layers.append(nn.Linear(hidden if num_layers > 1 else num_inputs, num_outputs, bias=last_bias))
        if last_norm is not None:
            layers.append(nn.BatchNorm1d(num_outputs, affine=last_norm == "affine"))
        super().__init__(*layers)


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
