"""A step of the terms on sequences asks the device for nothing: no number and no shape has to come back first."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy_sequence import DIMS, sequence_views, some_features

from stec.identity.cpc import CPC
from stec.identity.time_insensitive import TimeInsensitive
from stec.manipulation.frame_offset import FrameOffset
from stec.negatives import MODES

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero", "bincount")
TERMS = {
    **{mode: lambda mode=mode: CPC(DIMS, steps=3, num_negatives=6, negatives=mode) for mode in MODES},
    "windows": lambda: TimeInsensitive(DIMS),
    "frames": lambda: TimeInsensitive(DIMS, design="frames"),
    "offset": lambda: FrameOffset(DIMS, reach=4),
}


class Waits(TorchDispatchMode):
    """Notes each operation whose answer, or whose shape, a device would have to be waited for."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name.startswith("index") and any(
            t is not None and t.dtype == torch.bool for x in args[1:2] if isinstance(x, list | tuple) for t in x
        )
        if masks or any(name.startswith(wait) for wait in WAITS):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("real", [None, torch.tensor([9, 7, 9, 4, 2, 9, 9, 8])], ids=["whole", "padded"])
@pytest.mark.parametrize("name", TERMS)
def test_nothing_waits_for_the_device(name, real):
    term = TERMS[name]().double()
    features, views = tuple(some_features(8, 9, seed, real) for seed in (0, 1)), sequence_views(8, 9, 2)
    with Waits() as waits:
        term(features, views).loss.backward()
    assert waits.found == []


def test_waiting_would_be_seen():
    x = torch.arange(3)
    for wait in (lambda: x.sum().item(), lambda: x[x > 1], lambda: int(x[0]), lambda: x.nonzero(), lambda: bool(x[1])):
        with Waits() as waits:
            wait()
        assert waits.found
