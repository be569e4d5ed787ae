"""R6: NT-Xent beside the plain form of it, which holds the whole matrix of logits; and beside lightly's.

Legend: N pairs, so 2N anchors that have 2N - 1 candidates each; D dimensions of an embedding.
"""

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from clock import Work, interleaved
from process import child, extra_mib, one_thread
from row import Options, Outcome, Row, Way, ratios
from torch import Tensor

from stec.losses import nt_xent

_D, _TEMPERATURE = 128, 0.5
Loss = Callable[[Tensor, Tensor], Tensor]


def naive(z1: Tensor, z2: Tensor) -> Tensor:
    """As it stands in the paper: a matrix of all cosines, without its diagonal, into a cross-entropy."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    logits = (z @ z.T / _TEMPERATURE).fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z1)))


def ours(z1: Tensor, z2: Tensor) -> Tensor:
    return nt_xent(z1, z2, _TEMPERATURE).mean()


def _lightly() -> Loss:
    from lightly.loss import NTXentLoss  # takes seconds to import

    return NTXentLoss(_TEMPERATURE)


def losses() -> dict[str, Callable[[], Loss]]:
    """{name: gives the loss}, of those that are installed."""
    found: dict[str, Callable[[], Loss]] = {"plain": lambda: naive, "stec": lambda: ours}
    return found | ({"lightly": _lightly} if find_spec("lightly") else {})


def embeddings(num: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Two views [N, D] of each of `num` samples, a good deal alike."""
    generator = torch.Generator().manual_seed(0)
    shared, *apart = torch.randn(3, num, _D, generator=generator, dtype=torch.float64)
    z1, z2 = ((shared + each).to(device, dtype).requires_grad_() for each in apart)
    return z1, z2


def forth_and_back(loss: Loss, z1: Tensor, z2: Tensor) -> int:
    z1.grad = z2.grad = None
    loss(z1, z2).backward()
    return 1


def difference(num: int) -> float:
    """Of ours from the plain form in float64, relative: the larger one of the loss's and of the gradient's norm's."""
    exact, found = embeddings(num, dtype=torch.float64), embeddings(num)
    told, wanted = ours(*found), naive(*exact)
    torch.stack([told.double(), wanted]).sum().backward()
    apart = [(told.double() - wanted).abs() / wanted.abs()]
    grads = [torch.cat([z.grad.double() for z in pair if z.grad is not None]) for pair in (found, exact)]
    apart.append((grads[0] - grads[1]).norm() / grads[1].norm())
    return float(torch.stack(apart).detach().max())


def _num(options: Options) -> int:
    return 256 if options.small else 4096


def memory(options: Options) -> Outcome:
    num = _num(options)
    matrix = (2 * num) ** 2 * 4 / 2**20
    # It hardly varies, and each is a process of its own.
    rounds = {name: min(options.rounds, 3) if name == "stec" else 1 for name in losses()}
    extra = {name: [child(__file__, name, num) for _ in range(many)] for name, many in rounds.items()}
    ways = [Way(name, "MiB beyond the embeddings", values) for name, values in extra.items()]
    limit = "a slab of logits and its gradient, three copies of the embeddings and their gradients"
    return Outcome([value / matrix for value in extra["stec"]], ways, limit)


def speed(options: Options) -> Outcome:
    each: dict[str, Work] = {}
    pair = embeddings(_num(options))
    for name, make in losses().items():
        loss = make()
        each[name] = lambda loss=loss: forth_and_back(loss, *pair)
    with one_thread():
        seconds = interleaved(each, options.rounds, least=0.0 if options.small else 0.2)
    ways = [Way(name, "ms forth and back (CPU)", [1000 * s for s in values]) for name, values in seconds.items()]
    return Outcome(
        ratios(seconds["stec"], seconds["plain"]),
        ways,
        "4 matrix products, one of them made twice, and exp of every logit twice",
    )


def exactness(options: Options) -> Outcome:
    with one_thread():
        return Outcome([difference(_num(options))], (), "float32 beside float64")


ROWS = [
    Row("R6", "NT-Xent, 4,096 pairs of 128: memory / a float32 matrix (2N)^2", 0.30, None, memory, most=True),
    Row("R6b", "NT-Xent, 4,096 pairs: CPU time / the plain form's", 0.70, None, speed, most=True),
    Row("R6c", "NT-Xent: difference of loss and gradient, relative", 1e-4, None, exactness, most=True, format="{:.0e}"),
]


def _main() -> None:
    """The child's part: LOSS N -> MiB that it took."""
    name, num = sys.argv[1], int(sys.argv[2])
    loss, pair = losses()[name](), embeddings(num)
    forth_and_back(loss, *pair)  # libraries that are first mapped in now are not the loss's memory
    pair[0].grad = pair[1].grad = None
    print(json.dumps(extra_mib(lambda: forth_and_back(loss, *pair))))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    _main()
