"""Counter-based random numbers: a key gives the same number in numpy and torch, on any device, in any worker.

Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011). The counter names what is drawn:
(sample, epoch, view and stream, block); the Philox key is the seed. So a draw is a function of its name and of nothing
else, and any view of any sample can be made again from a line of a log.
"""

import zlib
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", Tensor, np.ndarray)

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
# So many numbers are drawn at a time: what is in between fits into a processor's cache.
_AT_ONCE = 2**16


def philox(counter: tuple[Array, Array, Array, Array], key: tuple[Array, Array]) -> tuple[Array, Array, Array, Array]:
    """Four 32-bit words from four counter words and two key words, each an int64 array holding values in [0, 2^32)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The 64-bit product wraps into the sign bit; masking after the shift makes the shift logical again.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def make_keys(seed: int, epoch: int, samples: Tensor) -> Tensor:
    """Keys int64 [B, 3] = (seed, epoch, sample) of samples int64 [B] (numbers within the data set, below 2^32)."""
    samples = torch.as_tensor(samples, dtype=torch.int64)
    return torch.stack([torch.full_like(samples, seed), torch.full_like(samples, epoch), samples], dim=-1)


def bits(keys: Array, view: int, stream: str, num: int) -> Array:
    """int64 [B, num], each in [0, 2^32), for keys int64 [B, 3], a view (0..255) and a stream (what is drawn)."""
    blocks = -(-num // 4)
    where = ((zlib.crc32(stream.encode()) & 0xFFFFFF) << 8) | (view & 0xFF)
    if isinstance(keys, Tensor):
        block: Array = torch.arange(blocks, device=keys.device)[None]
    else:
        block = np.arange(blocks, dtype=np.int64)[None]
    seed, epoch, sample = keys[:, 0:1], keys[:, 1:2], keys[:, 2:3]
    counter = (sample & _MASK, epoch & _MASK, 0 * sample + where, block)  # [B, 1] and [1, blocks]: rounds mix them all
    words = philox(counter, (seed & _MASK, (seed >> 32) & _MASK))
    stack = torch.stack(words, -1) if isinstance(keys, Tensor) else np.stack(words, -1)
    return stack.reshape(len(keys), blocks * 4)[:, :num]


def uniform(keys: Array, view: int, stream: str, num: int) -> Array:
    """float64 [B, num] in [0, 1), multiples of 2^-32."""
    words = bits(keys, view, stream, num)
    return (words.double() if isinstance(words, Tensor) else words.astype(np.float64)) / 2.0**32


def permutation(n: int, seed: int, epoch: int, stream: str) -> np.ndarray:
    """A permutation of range(n), int64, a pure function of its arguments (ties of 64-bit draws go by position)."""
    drawn = np.empty(n, np.uint64)
    for first in range(0, n, _AT_ONCE):
        numbers = np.arange(first, min(first + _AT_ONCE, n), dtype=np.int64)
        keys = np.stack([np.full_like(numbers, seed), np.full_like(numbers, epoch), numbers], axis=-1)
        high, low = bits(keys, 0, stream, 2).astype(np.uint64).T
        drawn[numbers] = high << np.uint64(32) | low
    return np.argsort(drawn, kind="stable")
