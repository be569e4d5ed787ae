"""Two ranks on the halves of a batch are one rank on the whole: loss, averaged gradient and metrics."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from apart import WORLD, on_two_ranks
from test_objective import model, some_views
from torch import nn

from stec.actions import Relative
from stec.distributed import all_reduce_sums, gather, global_mean, rank, world_size
from stec.losses import nt_xent
from stec.objective import STEC
from stec.views import Views

NUM = 12


def whole_batch() -> Views:
    views = some_views(NUM)
    # Unequal halves: the first rank may learn from 2 of 6 copies, the second from 5, and not the same number of labels.
    trusted = torch.tensor([1, 0, 0, 1, 0, 0, 1, 1, 1, 0, 1, 1], dtype=torch.bool)
    copies = {pair: Relative(c.values, trusted[:, None].expand_as(c.valid)) for pair, c in views.copies.items()}
    return views._replace(copies=copies, labels=torch.tensor([0, 1, 2, 0, 1, 2, -1, -1, -1, -1, 1, 2]))


def half(views: Views, which: int) -> Views:
    s = slice(which * NUM // WORLD, (which + 1) * NUM // WORLD)
    copies = {pair: Relative(c.values[s], c.valid[s]) for pair, c in views.copies.items()}
    return Views(tuple(x[s] for x in views.x), copies, views.num_global, views.keys[s], None, views.labels[s])


def outcome(stec: nn.Module, views: Views) -> dict[str, Any]:
    """Loss, gradients and metrics; batch norm in eval mode, since its statistics are per rank unless converted."""
    inner = stec.module if isinstance(stec, nn.parallel.DistributedDataParallel) else stec
    assert isinstance(inner, STEC)
    stec.eval()
    out = stec(views, grad_share=True)
    out.loss.backward()
    sums = all_reduce_sums(out.sums)
    return {
        "loss": out.loss.detach(),
        "gradients": {name: p.grad for name, p in inner.named_parameters() if p.grad is not None},
        "metrics": {name: total / count for name, (total, count) in sums.items() if name != "train/grad_share_manip"},
    }


def one_of_two(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=WORLD)
    assert (rank(), world_size()) == (number, WORLD)
    x = (torch.arange(6.0).view(3, 2) + 10 * number).requires_grad_()
    gathered = gather(x)
    assert gathered[:, 0].tolist() == [0, 2, 4, 10, 12, 14]
    (gathered * torch.arange(6.0)[:, None] * (number + 1)).sum().backward()
    # The ranks weigh row r by r and by 2r: whoever owns the row hears both.
    assert torch.equal(x.grad[:, 0], 3 * torch.arange(6.0)[3 * number : 3 * number + 3])

    values, mask = torch.arange(4.0) + 4 * number, torch.tensor([True, False, False, number == 0])
    loss = global_mean(values, mask)
    dist.all_reduce(loss)
    assert torch.isclose(loss / WORLD, torch.tensor([0.0, 3.0, 4.0]).mean())

    z1, z2 = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(number))
    alone = nt_xent(z1, z2, 0.5, negatives="local")
    ddp = nn.parallel.DistributedDataParallel(model(), broadcast_buffers=False)
    found = outcome(ddp, half(whole_batch(), number)) | {"local": alone, "z": (z1, z2)}
    torch.save(found, Path(folder) / f"{number}.pt")


def test_two_ranks_are_one(tmp_path):
    on_two_ranks(one_of_two, str(tmp_path))
    ranks = [torch.load(tmp_path / f"{number}.pt") for number in range(WORLD)]
    one = outcome(model(), whole_batch())
    assert torch.allclose(torch.stack([r["loss"] for r in ranks]).mean(), one["loss"], rtol=1e-5)
    for found in ranks:
        assert found["gradients"].keys() == one["gradients"].keys()
        for name, gradient in one["gradients"].items():
            assert torch.allclose(found["gradients"][name], gradient, rtol=1e-4, atol=1e-6), name
        assert found["metrics"].keys() == one["metrics"].keys()
        for name, value in one["metrics"].items():
            assert found["metrics"][name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6), name
        assert torch.equal(found["local"], nt_xent(*found["z"], 0.5))


def test_one_process_is_the_plain_case():
    x = torch.arange(3.0, requires_grad=True)
    assert (rank(), world_size()) == (0, 1)
    assert gather(x) is x
    assert global_mean(x) == 1
    assert global_mean(x, torch.tensor([True, False, True])) == 1
    assert global_mean(x, x < 0) == 0
    spoilt = torch.tensor([1.0, torch.nan])
    assert global_mean(spoilt, ~spoilt.isnan()) == 1
    sums = all_reduce_sums({"b": (torch.tensor(3.0), 2), "a": (1.0, torch.tensor(4.0))})
    assert {name: (float(s), float(c)) for name, (s, c) in sums.items()} == {"a": (1, 4), "b": (3, 2)}
    assert all_reduce_sums({}) == {}
