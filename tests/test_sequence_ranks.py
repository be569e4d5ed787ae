"""Terms on sequences: two ranks on the halves of a batch draw, learn and report what one rank on the whole does."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from apart import WORLD, on_two_ranks
from torch import nn
from toy_sequence import DIMS, Sequences, sequence_views

from stec.distributed import all_reduce_sums
from stec.identity.cpc import CPC
from stec.identity.time_insensitive import TimeInsensitive
from stec.manipulation.frame_offset import FrameOffset
from stec.negatives import MODES
from stec.objective import STEC
from stec.training.gradient import rows
from stec.views import Views

NUM, LENGTH = 8, 9
REAL = torch.tensor([9, 7, 9, 4, 2, 9, 9, 8])
CASES = [(mode, padded) for mode in MODES for padded in (False, True)]


def whole_batch() -> Views:
    # Groups, the unknown one as well, lie across the ranks.
    return sequence_views(NUM, LENGTH, num_views=2)._replace(group=torch.tensor([5, 2, -1, 5, 2, 5, -1, 2]))


def stec(mode: str, real: torch.Tensor | None) -> STEC:
    torch.manual_seed(3)
    identity = {
        "cpc": (1.0, CPC(DIMS, steps=3, negatives=mode, num_negatives=6)),
        "windows": (0.5, TimeInsensitive(DIMS, hidden=8, out=4)),
        "frames": (0.5, TimeInsensitive(DIMS, design="frames", reads="local", num_frames=2, hidden=8, out=4)),
    }
    offset = FrameOffset(DIMS, reach=4, num_bins=4, hidden=8)
    # "separate": each call of the encoder is one view, and its padding that of one view.
    return STEC(Sequences(real), identity, {"offset": (1.0, offset)}, {}, forward_views="separate").double().eval()


def outcome(model: nn.Module, views: Views) -> dict[str, Any]:
    """Loss, gradients and metrics; in eval mode, since batch statistics are per rank unless converted."""
    out = model(views)
    out.loss.backward()
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    return {
        "loss": out.loss.detach(),
        "gradients": {name: p.grad for name, p in inner.named_parameters() if p.requires_grad},
        "metrics": {name: total / count for name, (total, count) in all_reduce_sums(out.sums).items()},
    }


def one_of_two(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=WORLD)
    mine = slice(number * NUM // WORLD, (number + 1) * NUM // WORLD)
    found = []
    for mode, padded in CASES:
        ddp = nn.parallel.DistributedDataParallel(stec(mode, REAL[mine] if padded else None), broadcast_buffers=False)
        found.append(outcome(ddp, rows(whole_batch(), mine)))
    torch.save(found, Path(folder) / f"{number}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    on_two_ranks(one_of_two, str(folder))
    return [dict(zip(CASES, torch.load(folder / f"{number}.pt"), strict=True)) for number in range(WORLD)]


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("mode", MODES)
def test_two_ranks_are_one(ranks, mode, padded):
    one = outcome(stec(mode, REAL if padded else None), whole_batch())
    two = [found[mode, padded] for found in ranks]
    assert torch.allclose(torch.stack([found["loss"] for found in two]).mean(), one["loss"], rtol=1e-12)
    for found in two:
        assert found["gradients"].keys() == one["gradients"].keys()
        for name, gradient in one["gradients"].items():
            assert torch.allclose(found["gradients"][name], gradient, rtol=1e-9, atol=1e-12), name
        assert found["metrics"].keys() == one["metrics"].keys()
        for name, value in one["metrics"].items():
            assert found["metrics"][name].item() == pytest.approx(value.item(), rel=1e-6), name
