"""Sums of metrics between two log lines, kept on the device and added up over ranks only when they are read."""

import torch
import torch.distributed as dist
from torch import Tensor

from stec.distributed import all_reduce_sums, rank, world_size
from stec.errors import NonFinite
from stec.objective import Sums

# Steps with a finite loss, and with a finite one of each name, counted along with the rest: they tell later which step
# was the first that was not, and which loss it began in. (In the step after it, all of them are not.)
_FINITE = "finite steps"


class Meter:
    """add() each step (no wait for the device), read() at log lines. All ranks bring the same names."""

    def __init__(self, device: torch.device):
        self.device, self.since = device, 0
        self.sums: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, sums: Sums, loss: Tensor) -> None:
        losses = {f"{_FINITE} {name}": total for name, (total, _) in sums.items() if "/loss" in name}
        one, losses = torch.ones((), device=self.device), {_FINITE: loss.detach(), **losses}
        ours = {**sums, **{name: (torch.isfinite(value), one) for name, value in losses.items()}}
        for name, (total, count) in ours.items():
            before = self.sums.get(name)
            total, count = total.double(), count.double()
            self.sums[name] = (total, count) if before is None else (before[0] + total, before[1] + count)

    def read(self, step: int) -> dict[str, float]:
        """{metric: mean over ranks and steps since the last reading}, and begin anew; NonFinite as check()."""
        means = self.check(step)
        self.sums, self.since = {}, step
        return means

    def check(self, step: int) -> dict[str, float]:
        """The means so far; NonFinite names the metrics that are not finite numbers and the first step it happened."""
        reduced = all_reduce_sums(self.sums)
        if not reduced:
            return {}
        pairs = torch.stack([torch.stack(pair) for pair in reduced.values()]).tolist()
        means = {name: total / count for name, (total, count) in zip(reduced, pairs, strict=True) if count > 0}
        finite = {name: means.pop(name) for name in list(means) if name.startswith(_FINITE)}
        wrong = [name for name, mean in means.items() if mean != mean or abs(mean) == float("inf")]
        if finite[_FINITE] < 1 or wrong:
            low = min(finite.values())
            begun = [name.removeprefix(_FINITE).strip() for name, share in finite.items() if share == low < 1]
            # Their sum is to blame only if none of them is.
            blamed = [name for name in begun if name not in ("", "train/loss")] or wrong
            share, where = self._earliest()
            first = min(self.since + round(share * (step - self.since)) + 1, step)
            told = ", ".join(blamed) or "the loss"
            raise NonFinite(f"{told} is not a finite number, from about step {first} on{where}")
        return dict(sorted(means.items()))

    def _earliest(self) -> tuple[float, str]:
        """The smallest share of finite steps that a rank has, and, of several ranks, which ones have it, in words."""
        finite, count = self.sums[_FINITE]
        shares = [float(finite / count) if count > 0 else 1.0]
        if world_size() == 1:
            return shares[0], ""
        each: list[list[float]] = [[] for _ in range(world_size())]
        dist.all_gather_object(each, shares)
        shares = [share for one in each for share in one]
        low = min(shares)
        if low == 1:
            return low, ""
        return low, f" (at first on rank {', '.join(str(r) for r, share in enumerate(shares) if share == low)})"

    def state_dict(self) -> dict[str, object]:
        """What every rank has summed since the last reading (all ranks must ask)."""
        mine = {name: [float(total), float(count)] for name, (total, count) in self.sums.items()}
        ranks: list[dict[str, list[float]]] = [{} for _ in range(world_size())]
        if world_size() > 1:
            dist.all_gather_object(ranks, mine)
        else:
            ranks = [mine]
        return {"since": self.since, "ranks": ranks}

    def load_state_dict(self, state: dict) -> None:
        """Take up one's own sums; with another number of ranks, the first one takes up the sums of all."""
        ranks = state["ranks"]
        if len(ranks) != world_size():
            merged = {n: [sum(r[n][0] for r in ranks), sum(r[n][1] for r in ranks)] for n in ranks[0]}
            ranks = [merged] + [{n: [0.0, 0.0] for n in merged}] * (world_size() - 1)
        self.since = state["since"]
        self.sums = {
            name: tuple(torch.tensor(pair, dtype=torch.float64, device=self.device))
            for name, pair in ranks[rank()].items()
        }
