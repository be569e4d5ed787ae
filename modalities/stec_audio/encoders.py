"""The network of contrastive predictive coding: five strided convolutions, and what sums up the past.

Legend: B recordings [B, 1, L], float in [-1, 1], 16,000 samples per second; T frames, E channels, C width of context.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stec.encoder import Encoder, Features
from stec.errors import UsageError

_KERNELS = (10, 8, 4, 4, 4)
_STRIDES = (5, 4, 2, 2, 2)
_PADDINGS = {"gim": (2, 2, 2, 2, 1), "cpc_audio": (3, 2, 1, 1, 1)}
_NORMS = ("none", "channel", "batch")
_CONTEXTS = ("gru", "lstm", "linear", "none")
# Mean and standard deviation of LibriSpeech's samples, by which Greedy InfoMax normalises.
_MEAN, _DEVIATION = -6.78e-4, 0.0630


class Cpc(Encoder):
    """Frames z_t and context c_t (van den Oord et al., 2018): one frame for every 160 samples, each of 465 samples.

    channels: E. norm: after each convolution "none" (Greedy InfoMax), "channel" (each frame over its channels,
    CPC_audio) or "batch". padding: of the convolutions, as Greedy InfoMax ("gim") or CPC_audio ("cpc_audio") has it; it
    shifts the frames by 59 samples. context: "gru", "lstm" (over the past, from a zero state), "linear" (each frame
    alone) or "none" (the frames themselves; width is not used). width: C. layers: of the recurrent network.
    normalize: take LibriSpeech's mean off the samples and divide by their deviation.

    pooled: the mean of the context over time; layer "last": the context of the last frame.
    """

    takes = "float [B, 1, L] in [-1, 1] at 16 kHz"
    hop = 160

    def __init__(
        self,
        *,
        channels: int = 512,
        norm: str = "none",
        padding: str = "gim",
        context: str = "gru",
        width: int = 256,
        layers: int = 1,
        normalize: bool = True,
    ):
        super().__init__()
        for key, value in (("channels", channels), ("width", width), ("layers", layers)):
            if value < 1:
                raise UsageError(f"encoder.{key}={value} must be at least 1.")
        for key, name, known in (
            ("norm", norm, _NORMS),
            ("padding", padding, _PADDINGS),
            ("context", context, _CONTEXTS),
        ):
            if name not in known:
                raise UsageError(f"encoder.{key}={name!r} is unknown: choose one of {', '.join(known)}.")
        each = list(zip(_KERNELS, _STRIDES, _PADDINGS[padding], strict=True))
        inputs = [1] + [channels] * (len(each) - 1)
        # A batch norm takes any bias off again.
        self.convs = nn.ModuleList(
            nn.Conv1d(i, channels, *shape, bias=norm != "batch") for i, shape in zip(inputs, each, strict=True)
        )
        self.norms = nn.ModuleList(_norm(norm, channels) for _ in each)
        self.recurrent: nn.GRU | nn.LSTM | None = None
        self.linear = nn.Linear(channels, width) if context == "linear" else None
        if context in ("gru", "lstm"):
            self.recurrent = (nn.GRU if context == "gru" else nn.LSTM)(channels, width, layers, batch_first=True)
        self.normalize, self.centre = normalize, _centre(each)
        summed = channels if context == "none" else width
        self.dims = {"pooled": summed, "local": channels, "context": summed, "last": summed}

    def forward(self, x: Tensor) -> Features:
        """T = L // 160 frames; UsageError if that is none."""
        num_frames = x.shape[-1] // self.hop
        if num_frames == 0:
            raise UsageError(f"encoder=cpc needs at least {self.hop} samples, not {x.shape[-1]}.")
        if self.normalize:
            x = (x - _MEAN) / _DEVIATION
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)), inplace=True)
        # The padding makes a frame more of some lengths, of less than a hop of samples.
        local = x[..., :num_frames].transpose(1, 2)
        context = local
        if self.recurrent is not None:
            context, _ = self.recurrent(local)
        elif self.linear is not None:
            context = self.linear(local)
        return Features(context.mean(dim=1), local, context, layers={"last": context[:, -1]})


def _norm(name: str, channels: int) -> nn.Module:
    if name == "none":
        return nn.Identity()
    return ChannelNorm(channels) if name == "channel" else nn.BatchNorm1d(channels)


class ChannelNorm(nn.Module):
    """Each frame of [B, E, T] to mean 0 and variance 1 (unbiased) over its E channels, then a gain and bias of each.

    Unlike a group norm of one group, it mixes no frames: nothing of the future leaks into a frame.
    """

    def __init__(self, channels: int, epsilon: float = 1e-5):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels, 1)), nn.Parameter(torch.zeros(channels, 1))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        # A layer norm, which is one pass over memory instead of five, divides by the biased variance.
        share = (channels - 1) / channels
        weight, bias = share**0.5 * self.weight[:, 0], self.bias[:, 0]
        normed = F.layer_norm(x.transpose(1, 2), (channels,), weight, bias, share * self.epsilon)
        return normed.transpose(1, 2).contiguous()


def _centre(layers: list[tuple[int, int, int]]) -> float:
    """The sample in the middle of what frame 0 sees, for convolutions of (kernel, stride, padding)."""
    middle, step = 0.0, 1
    for kernel, stride, padding in layers:
        middle += step * ((kernel - 1) / 2 - padding)
        step *= stride
    return middle
