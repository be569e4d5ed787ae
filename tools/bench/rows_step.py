"""R5: a step of the training loop beside the same step in a few lines of plain torch, and beside one without the head.

Batches stay in memory, cut already (a loader and what a device does to views are other rows'): both turn integers into
floats, encode, project, compare, go back and step. The loop takes the efference copies besides, counts, logs every
tenth step and listens to signals.
"""

import copy
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from clock import interleaved
from process import one_thread
from row import Options, Outcome, Row, Way, ratios
from torch import Tensor, nn
from watched import LOGGED, LR, Step, Task, watched

from stec.actions import Compose, sample_views
from stec.encoder import Encoder, Features
from stec.identity.cpc import CPC
from stec.identity.simclr import SimCLR
from stec.manipulation.binned import Binned
from stec.objective import STEC, Term
from stec.rng import make_keys
from stec.training import optim, prepare
from stec.training.meter import Meter
from stec.training.options import Hardware, Training
from stec.views import Batch, Views, make_views
from stec_audio.actions import TemporalWindow
from stec_audio.decode import Window
from stec_audio.encoders import Cpc
from stec_vision.actions import AffineCrop
from stec_vision.decode import ImageCrop
from stec_vision.encoders import ResNet

_TEMPERATURE = 0.5
_CPC_ROUNDS = 5
"""At most: each takes half a minute."""


class Tiny(Encoder):
    """One matrix: whatever a step of it takes, the loop and torch's launching of small operations take."""

    def __init__(self, inputs: int):
        super().__init__()
        self.dims, self.linear = {"pooled": 16}, nn.Linear(inputs, 16)

    def forward(self, x: Tensor) -> Features:
        return Features(self.linear(x.flatten(1)))


def images(
    encoder: Encoder,
    pairs: int,
    size: int,
    *,
    head: bool = False,
    hidden: int = 512,
    out: int = 128,
    device: torch.device | str = "cpu",
) -> Task:
    """SimCLR on pairs of views uint8 [b, 3, S, S], on `device`; with the binned manipulation model, if `head`."""
    space = Compose({"affine_crop": AffineCrop(size=size)})
    decoder = ImageCrop(space)
    extents = torch.full((pairs, 2), 2 * size)
    x = torch.randint(256, (2, pairs, 3, size, size), dtype=torch.uint8, device=device).unbind(0)
    simclr = SimCLR(encoder.dims, temperature=_TEMPERATURE, hidden=hidden, out=out)
    manipulation: dict[str, tuple[float, Term]] = {}
    if head:
        manipulation["binned"] = (1.0, Binned(encoder.dims, space, extents[:1], hidden=hidden))
    stec = STEC(encoder, {"simclr": (1.0, simclr)}, manipulation, {})

    def loss(encoder: Encoder, projector: nn.Module, hardware: Hardware) -> Tensor:
        views = torch.cat([v.to(hardware.device, non_blocking=True).float() / 255 for v in x])
        if hardware.channels_last:
            views = views.contiguous(memory_format=torch.channels_last)
        with hardware.autocast():
            z = projector(encoder(views).pooled)
        z = F.normalize(z.float(), dim=1)
        logits = (z @ z.T / _TEMPERATURE).fill_diagonal_(-torch.inf)
        return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(pairs))

    return _task(stec, space, x, extents, decoder, partial(_bare, encoder, simclr.projector, loss))


def recordings(encoder: Cpc, pairs: int, size: int, *, num_views: int = 1, head: bool = False, steps: int = 12) -> Task:
    """CPC on windows int16 [b, 1, L], `num_views` of each recording; with the binned manipulation model, if `head`."""
    space = Compose({"temporal_window": TemporalWindow(size=size, max_offset=2.0)})
    decoder = Window(space)
    extents = torch.full((pairs, 1), 10 * size)
    x = torch.randint(-3000, 3000, (num_views, pairs, 1, size), dtype=torch.int16).unbind(0)
    cpc = CPC(encoder.dims, steps=steps)
    manipulation: dict[str, tuple[float, Term]] = {}
    if head:
        manipulation["binned"] = (1.0, Binned(encoder.dims, space, extents[:1]))
    stec = STEC(encoder, {"cpc": (1.0, cpc)}, manipulation, {})

    keys = _keys(pairs)

    def loss(encoder: Encoder, cpc: nn.Module, hardware: Hardware) -> Tensor:
        """The loop's own: written anew it would draw other negatives."""
        views = tuple(v.to(hardware.device, non_blocking=True).float() / 32768 for v in x)
        with hardware.autocast():
            value: Tensor = cpc(tuple(map(encoder, views)), Views(views, {}, num_views, keys)).loss
        return value

    return _task(stec, space, x, extents, decoder, partial(_bare, encoder, cpc, loss))


def _task(stec: STEC, space: Compose, x: tuple[Tensor, ...], extents: Tensor, decoder: Any, bare: Any) -> Task:
    keys = _keys(len(extents))
    batch = Batch(x, sample_views(space, keys, extents, len(x)), keys)
    complete = partial(make_views, space=space, pairs=stec.pairs, performed=decoder.performs, finish=decoder.finish)
    return Task(stec, batch, complete, bare)


def _keys(num: int) -> Tensor:
    return make_keys(0, 0, torch.arange(num))


def _bare(encoder: Encoder, head: nn.Module, loss: Callable[..., Tensor], hardware: Hardware) -> Step:
    """Forward, backward and a step of SGD, for copies of the encoder and of what the loss has of its own."""
    encoder, head = copy.deepcopy(encoder).to(hardware.device), copy.deepcopy(head).to(hardware.device)
    if hardware.channels_last:
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learning = [p for p in (*encoder.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=LR, momentum=0.9, weight_decay=5e-4)

    def step() -> Tensor:
        value = loss(encoder, head, hardware)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value.detach()

    return step


def over_bare(task: Task, hardware: Hardware, rounds: int, block: int = LOGGED) -> Outcome:
    """The loop's seconds per step over plain torch's, taken in turn."""
    others = {"plain torch": task.bare(hardware)}
    seconds = watched(task, hardware, rounds, block, {"the loop": repeat(task.batch)}, others)
    plain, loop = (_per_step(name, seconds[name]) for name in ("plain torch", "the loop"))
    return Outcome(ratios(loop.values, plain.values), [plain, loop])


def _per_step(name: str, seconds: list[float]) -> Way:
    return Way(name, "ms/step (CPU)", [1000 * s for s in seconds])


def piece(task: Task, hardware: Hardware) -> Step:
    """A step made of the loop's parts, without its bookkeeping."""
    prepare.place(task.stec, hardware)
    optimizer = optim.sgd(task.stec, 256, lr=LR)
    backward = prepare.gradient_of(task.stec, Training(epochs=1, warmup_epochs=0), hardware, lambda loss: loss)
    meter = Meter(hardware.device)

    def step() -> int:
        out = backward(prepare.contiguous(task.complete(task.batch.to(hardware.device)), hardware), False)
        optimizer.step()
        optimizer.zero_grad()
        meter.add(out.sums, out.loss)
        return 1

    return step


def with_head(make: Callable[[bool], Task], hardware: Hardware, rounds: int) -> Outcome:
    """Seconds per step with the manipulation model over those without, taken in turn."""
    steps: Any = {name: piece(make(head), hardware) for name, head in (("without", False), ("with", True))}
    seconds = interleaved(steps, rounds, least=0.0)
    ways = [_per_step(f"{name} the manipulation model", values) for name, values in seconds.items()]
    return Outcome(ratios(seconds["with"], seconds["without"]), ways)


def _rounds(options: Options) -> int:
    return options.rounds if options.small else max(15, 2 * options.rounds + 1)


def _resnet(options: Options, head: bool = False) -> Task:
    width, pairs = (4, 4) if options.small else (64, 32)
    return images(ResNet(depth=18, stem="cifar", width=width), pairs, 32, head=head)


def _cpc(options: Options, num_views: int = 1, head: bool = False) -> Task:
    channels, width, size = (8, 8, 4800) if options.small else (512, 256, 20_480)
    return recordings(Cpc(channels=channels, width=width), 8 // num_views, size, num_views=num_views, head=head)


def _on_the_host(rounds: int) -> list[Way]:
    """Microseconds of a step in which there is next to nothing to compute: what a GPU would have to wait for."""
    out = over_bare(images(Tiny(3 * 8 * 8), 4, 8, hidden=16, out=8), Hardware(device="cpu", precision="fp32"), rounds)
    base = f"{out.ways[0].name}, {_TINY}"
    return [
        Way(f"{name}, {_TINY}", "us/step (CPU)", [1000 * ms for ms in values], base=base)
        for name, _, values, *_ in out.ways
    ]


_TINY = "one matrix as its network"


def resnet_step(options: Options) -> Outcome:
    with one_thread():
        out = over_bare(_resnet(options), Hardware(device="cpu"), options.rounds)
        return out._replace(
            ways=[*out.ways, *_on_the_host(options.rounds)],
            limit="the copies' algebra and the sums of metrics, in small operations; steps that log (one in ten) more",
        )


def cpc_step(options: Options) -> Outcome:
    with one_thread():
        out = over_bare(_cpc(options), Hardware(device="cpu"), min(options.rounds, _CPC_ROUNDS))
        return out._replace(limit="as R5")


def resnet_head(options: Options) -> Outcome:
    with one_thread():
        return with_head(lambda head: _resnet(options, head), Hardware(device="cpu"), _rounds(options))


def cpc_head(options: Options) -> Outcome:
    with one_thread():
        return with_head(lambda head: _cpc(options, 2, head), Hardware(device="cpu"), _rounds(options))


ROWS = [
    Row("R5", "step of the loop / plain torch: ResNet-18 (CIFAR), 32 pairs", 1.03, 1.01, resnet_step, True, "{:.3f}"),
    Row("R5s", "step of the loop / plain torch: CPC, 8 windows", 1.03, 1.01, cpc_step, True, "{:.3f}"),
    Row("R5b", "step with the manipulation model / without: ResNet-18", 1.03, 1.01, resnet_head, True, "{:.3f}"),
    Row("R5bs", "step with the manipulation model / without: CPC", 1.03, 1.01, cpc_head, True, "{:.3f}"),
]
