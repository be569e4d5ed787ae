"""Three steps of every model on two ranks, each with its half of the batches, are three steps on one rank.

Batch norms keep their first statistics: there is no SyncBatchNorm on a CPU.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from apart import WORLD, on_two_ranks
from torch import nn
from toy_terms import IDENTITY, MANIPULATION, MULTI_CROP, objective, toy_views

from stec.distributed import all_reduce_sums, rank
from stec.objective import STEC
from stec.training.gradient import rows
from stec.training.options import Hardware, Training
from stec.training.prepare import gradient_of
from stec.views import Views

NUM, STEPS = 12, 3
CASES = [(name, None) for name in IDENTITY] + [(None, name) for name in MANIPULATION]


def batches(case: tuple[str | None, str | None]) -> list[Views]:
    frame, small = ("augself" if case[1] == "augself" else "ego"), (2 if case[0] in MULTI_CROP else 0)
    return [toy_views(step, NUM, frame, small) for step in range(STEPS)]


def trained(case: tuple[str | None, str | None], mine: slice) -> dict[str, Any]:
    """Losses and metrics of three steps, and where they led to. Each rank draws first numbers of its own."""
    stec = objective(*case, seed=rank()).train()
    options, hardware = Training(epochs=1, warmup_epochs=0), Hardware(device="cpu", precision="fp32")
    backward = gradient_of(stec, options, hardware, lambda loss: loss)
    for module in stec.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    optimizer = torch.optim.SGD([p for p in stec.parameters() if p.requires_grad], lr=0.1)
    losses, metrics = [], []
    for step, views in enumerate(batches(case)):
        stec.before_step(step, STEPS)
        out = backward(rows(views, mine), False)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(out.loss.detach())
        metrics.append({name: total / count for name, (total, count) in all_reduce_sums(out.sums).items()})
    return {"losses": torch.stack(losses), "metrics": metrics, "state": stec.state_dict()}


def one_of_two(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=WORLD)
    mine = slice(number * NUM // WORLD, (number + 1) * NUM // WORLD)
    torch.save([trained(case, mine) for case in CASES], Path(folder) / f"{number}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    on_two_ranks(one_of_two, str(folder))
    each = [torch.load(folder / f"{number}.pt") for number in range(WORLD)]
    return {case: [found[i] for found in each] for i, case in enumerate(CASES)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_ranks_are_one(ranks, case):
    one, two = trained(case, slice(None)), ranks[case]
    assert torch.allclose(torch.stack([found["losses"] for found in two]).mean(0), one["losses"], rtol=1e-10)
    for found in two:
        assert found["state"].keys() == one["state"].keys()
        for name, value in one["state"].items():
            assert torch.allclose(found["state"][name], value, rtol=1e-7, atol=1e-10), name
        for ours, whole in zip(found["metrics"], one["metrics"], strict=True):
            assert ours.keys() == whole.keys()
            for name, value in whole.items():
                assert ours[name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_parameter_that_learns_gets_a_gradient(case):
    stec: STEC = objective(*case)
    stec.before_step(5, 10)
    stec(batches(case)[0]).loss.backward()
    without = {name for name, p in stec.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in stec.encoder.parameters())
