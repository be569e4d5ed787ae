"""Mel-frequency cepstral coefficients: what a learnt representation of speech has to beat. Nothing in it is learnt.

Legend: B recordings [B, 1, L], float in [-1, 1], 16,000 samples per second; T frames, D numbers of each.
"""

import torch
from torch import Tensor
from torchaudio import functional, transforms

from stec.encoder import Encoder, Features
from stec.errors import UsageError
from stec_audio.reading import RATE

_WINDOW, _HOP = 400, 160
_WIDEST = 80  # more mel bands than this, and the lowest fall between the frequencies of a 25 ms window


class Mfcc(Encoder):
    """torchaudio's MFCC of 25 ms windows every 10 ms, and their changes: frame i covers samples 160 i to 160 i + 399.

    num_coefficients: cepstral coefficients of a frame. deltas: how many orders of change are appended (0: none, 1:
    slopes over 5 frames, 2: slopes of slopes as well). num_mels: bands of the mel scale that they are made from.

    D = num_coefficients * (1 + deltas). local and context are the frames, pooled their mean, layer "last" the last one.
    """

    takes = "float [B, 1, L] in [-1, 1] at 16 kHz"
    hop = _HOP
    centre = _WINDOW / 2

    def __init__(self, *, num_coefficients: int = 13, deltas: int = 2, num_mels: int = 40):
        super().__init__()
        if not 1 <= num_mels <= _WIDEST:
            raise UsageError(f"encoder.num_mels={num_mels} must be between 1 and {_WIDEST}.")
        if not 1 <= num_coefficients <= num_mels:
            raise UsageError(
                f"encoder.num_coefficients={num_coefficients} must be between 1 and encoder.num_mels={num_mels}."
            )
        if not 0 <= deltas <= 2:
            raise UsageError(f"encoder.deltas={deltas} must be 0, 1 or 2.")
        spectrogram = {"n_fft": _WINDOW, "hop_length": _HOP, "n_mels": num_mels, "center": False}
        self.mfcc = transforms.MFCC(RATE, num_coefficients, melkwargs=spectrogram)
        self.deltas = deltas
        self.dims = dict.fromkeys(("pooled", "local", "context", "last"), num_coefficients * (1 + deltas))

    def forward(self, x: Tensor) -> Features:
        """T = 1 + (L - 400) // 160 frames; UsageError if that is none."""
        if x.shape[-1] < _WINDOW:
            raise UsageError(f"encoder=mfcc needs at least {_WINDOW} samples, not {x.shape[-1]}.")
        with torch.autocast(x.device.type, enabled=False):
            # The channel stays: without it, the floor of 80 dB below the loudest would be that of the whole batch.
            orders = [self.mfcc(x.float())[:, 0]]
            for _ in range(self.deltas):
                orders.append(functional.compute_deltas(orders[-1]))
            frames = torch.cat(orders, dim=1).transpose(1, 2)
        return Features(frames.mean(dim=1), frames, frames, layers={"last": frames[:, -1]})
