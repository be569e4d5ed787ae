"""G1 to G5: what only a GPU can tell. Every measurement takes its device and its sizes: a test runs it on a CPU, tiny.

A GPU works behind the program that tells it what to do: clocks wait for it, once for several steps (`now`).
"""

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import repeat
from pathlib import Path

import numpy as np
import ours
import torch
from clock import interleaved
from PIL import Image as pil
from process import extra_mib
from row import Options, Outcome, Row, Way, per_second, ratios
from rows_cifar import space
from rows_loss import embeddings, forth_and_back, naive
from rows_loss import ours as nt_xent
from rows_step import Tiny, images, over_bare, piece
from splits import photographs, shards
from watched import LOGGED, Task, now, watched

from stec.actions import Compose
from stec.cores import cores
from stec.encoder import Encoder
from stec.loading import Stream
from stec.shards.reader import open_shards
from stec.training.options import Hardware
from stec.views import Batch, make_views
from stec_vision.actions import AffineCrop
from stec_vision.decode import ImageCrop
from stec_vision.encoders import ResNet
from stec_vision.photometry import ColorJitter, GaussianBlur, Grayscale, Solarize


def _resnet50() -> ResNet:
    return ResNet(depth=50, stem="imagenet")


def loading(encoder: Encoder, hardware: Hardware, *, size: int, pairs: int, rounds: int, block: int) -> Outcome:
    """The loop on shards of JPEGs, decoded and painted by hardware.num_workers processes, over the same on one batch
    that lies on the device: how much of its speed is left."""
    space = Compose(
        {
            "affine_crop": AffineCrop(size=size),
            "color_jitter": ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, p=0.8, augment="fast"),
            "grayscale": Grayscale(p=0.2),
            "gaussian_blur": GaussianBlur(p=0.5, kernel=0.1, sigma=(0.1, 2.0)),
            "solarize": Solarize(p=0.2),
        }
    )
    decoder, workers = ImageCrop(space, augment="fast"), hardware.num_workers
    num = ((rounds + 1) * (block + 3 * workers) + 4 * workers + 2) * pairs
    with tempfile.TemporaryDirectory() as folder:
        shards(Path(folder), -(-num // 1000), photographs(min(num, 1000)))
        source = open_shards(Path(folder) / "train")
        batches = Stream(source, decoder, space, batch_size=pairs, num_workers=workers).batches(0)
        complete = partial(make_views, space=space, performed=decoder.performs, finish=decoder.finish)
        task = images(encoder, pairs, size)._replace(complete=complete, batch=next(batches).to(hardware.device))
        # Two batches to a process: what torch's DataLoader lets them run ahead.
        out = fed(task, hardware, batches, rounds=rounds, block=block, ahead=2 * workers)
        del batches  # ends its processes
    return out._replace(limit=f"{workers} workers on {cores()} cores, which decode")


def fed(
    task: Task,
    hardware: Hardware,
    batches: Iterator[Batch],
    *,
    rounds: int,
    block: int,
    ahead: int,
    clock: Callable[[], float] | None = None,
) -> Outcome:
    """The loop's speed on `batches`, which processes make up to `ahead` before they are asked for, over that on the
    task's own batch: blocks of both in turn. clock: another one than `now`."""
    sources = {"one batch on the device": repeat(task.batch), "from shards": batches}
    seconds = watched(task, hardware, rounds, block, sources, ahead={"from shards": ahead}, clock=clock)
    views = 2 * len(task.batch.keys)
    ways = [per_second(name, [s / views for s in each], "views/s (wall)") for name, each in seconds.items()]
    resident, loaded = ways
    return Outcome(ratios(loaded.values, resident.values), ways)


def step(task: Task, hardware: Hardware, *, rounds: int, block: int) -> Outcome:
    """How much of plain torch's speed a step of the loop has."""
    out = over_bare(task, hardware, rounds, block)
    views = 2 * len(task.batch.keys)
    ways = [Way(way.name, "views/s (wall)", [1000 * views / ms for ms in way.values]) for way in out.ways]
    return Outcome([1 / each for each in out.values], ways, "the encoder's kernels")


def resident(encoder: Encoder, hardware: Hardware, *, num: int, pairs: int, rounds: int, block: int) -> Outcome:
    """Pairs per second of the loop on small pictures that lie on the device, where the views are made as well."""
    device = hardware.device
    batches, complete = ours.resident(list(map(_png, range(num))), space("fast"), batch_size=pairs, device=device)
    task = images(encoder, pairs, 32, hidden=512, out=64)._replace(complete=complete)
    seconds = watched(task, hardware, rounds, block, {"": batches})[""]
    batch = next(batches).to(device)
    views = interleaved({"": lambda: len(complete(batch).keys)}, rounds, least=0.0, clock=partial(now, device))[""]
    drawn = interleaved({"": lambda: len(next(batches).keys)}, rounds, least=0.0, clock=time.perf_counter)[""]
    ways = [
        per_second("the loop, views made on the device", [s / pairs for s in seconds], "pairs/s (wall)"),
        per_second("views alone", views, "pairs/s (wall)"),
        per_second("drawing and picking on the host, alone", drawn, "pairs/s (wall)"),
    ]
    return Outcome(ways[0].values, ways, "the encoder")


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    pil.fromarray(pixels).resize((32, 32)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def loss_memory(device: torch.device, *, num: int, compared: int) -> Outcome:
    """GiB that NT-Xent takes beyond `num` pairs of embeddings; and for `compared` pairs, beside the plain form."""

    def peak(loss: Callable[..., torch.Tensor], num: int) -> float:
        pair = embeddings(num, device=str(device))
        forth_and_back(loss, *embeddings(32, device=str(device)))
        return _peak_gib(device, lambda: forth_and_back(loss, *pair), beyond=True)

    plain, stec = peak(naive, compared), peak(nt_xent, compared)
    ways = [Way(f"plain, {compared} pairs", "GiB", [plain]), Way(f"stec, {compared} pairs", "GiB", [stec])]
    ways += [Way(f"stec, {pairs} pairs", "GiB", [peak(nt_xent, pairs)]) for pairs in (num, 2 * num)]
    return Outcome(ways[2].values, ways, "a slab of logits and its gradient")


def _peak_gib(device: torch.device, work: Callable[[], object], beyond: bool) -> float:
    """GiB that torch has handed out at most; `beyond` what it had before. On a CPU, of the process, always beyond."""
    if device.type == "cpu":
        return extra_mib(work) / 1024
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if beyond else 0
    work()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**30


def exact_batch(
    make: Callable[[int], Task], device: torch.device, *, pairs: int, micro: int, rounds: int
) -> tuple[Outcome, Outcome]:
    """(GiB that training takes at most in a step on `pairs` at once, encoded in micro-batches: all of them in the loss,
    batch norm by micro-batch; its time over that of as many pairs in plain steps of a micro-batch). make(b) -> a task
    of b pairs."""
    task = make(pairs)
    large = piece(task, Hardware(device=str(device), micro_batch=micro))
    gib = _peak_gib(device, large, beyond=False)
    small = piece(make(micro), Hardware(device=str(device)))
    many = pairs // micro

    def plain() -> int:
        for _ in range(many):
            small()
        return 1

    seconds = interleaved({"plain": plain, "exact": large}, rounds, least=0.0, clock=partial(now, device))
    names = {"plain": "plain steps of a micro-batch", "exact": f"one loss of {pairs}, micro-batches of {micro}"}
    ways = [per_second(name, [s / pairs for s in seconds[key]], "pairs/s (wall)") for key, name in names.items()]
    views = 4 * sum(x.numel() for x in task.batch.x) / 2**30
    memory = f"the views in float32 ({views:.1f} GiB), twice for a moment, and a micro-batch's activations"
    over = ratios(seconds["exact"], seconds["plain"])
    return (
        Outcome([gib], ways, memory),
        Outcome(over, ways, "the second forward pass: 4/3, if a backward pass costs two"),
    )


def _gpu() -> torch.device | None:
    return torch.device("cuda", 0) if torch.cuda.is_available() else None


def _only(measure: Callable[[Options, torch.device], Outcome]) -> Callable[[Options], Outcome]:
    """Of a machine without a GPU, there is nothing to tell."""

    def row(options: Options) -> Outcome:
        device = _gpu()
        return Outcome(missing="no GPU") if device is None else measure(options, device)

    return row


def _hardware(device: torch.device) -> Hardware:
    return Hardware(device=str(device), precision="bf16", num_workers=8)


def _g1(options: Options, device: torch.device) -> Outcome:
    if options.small:
        return loading(Tiny(3 * 16 * 16), _hardware(device), size=16, pairs=4, rounds=options.rounds, block=2)
    return loading(_resnet50(), _hardware(device), size=224, pairs=128, rounds=options.rounds, block=3 * LOGGED)


def _g2(options: Options, device: torch.device) -> Outcome:
    if options.small:
        return step(_tiny(4, device), _hardware(device), rounds=options.rounds, block=2)
    task = images(_resnet50(), 128, 224, hidden=2048, device=device)
    return step(task, _hardware(device), rounds=options.rounds, block=LOGGED)


def _g3(options: Options, device: torch.device) -> Outcome:
    if options.small:
        return resident(Tiny(3 * 32 * 32), _hardware(device), num=8, pairs=4, rounds=options.rounds, block=2)
    encoder = ResNet(depth=18, stem="cifar")
    return resident(encoder, _hardware(device), num=10_240, pairs=1024, rounds=options.rounds, block=LOGGED)


def _g4(options: Options, device: torch.device) -> Outcome:
    return loss_memory(device, num=64, compared=32) if options.small else loss_memory(device, num=32_768, compared=8192)


@cache
def _exact(options: Options, device: torch.device) -> tuple[Outcome, Outcome]:
    if options.small:
        return exact_batch(partial(_tiny, device=device), device, pairs=8, micro=4, rounds=options.rounds)

    def make(pairs: int) -> Task:
        return images(_resnet50(), pairs, 224, hidden=2048, device=device)

    return exact_batch(make, device, pairs=4096, micro=64, rounds=min(options.rounds, 3))


def _tiny(pairs: int, device: torch.device) -> Task:
    return images(Tiny(3 * 16 * 16), pairs, 16, hidden=8, out=4, device=device)


_G1 = "GPU: loop on shards (augment=fast), 8 workers / on one resident batch, ResNet-50 224 bf16"
_G3 = "GPU: CIFAR ResNet-18, data and views (augment=fast) on the GPU, pairs/s"
_G5 = "GPU: training step, loss of 4,096 pairs at once, batch norm per micro-batch of 64, ResNet-50 224, peak GiB"
_G5B = "the same: time / plain steps of a micro-batch"
ROWS = [
    Row("G1", _G1, 0.95, 0.99, _only(_g1)),
    Row("G2", "GPU: speed of the loop / of plain torch, ResNet-50 224 bf16", 0.95, 0.98, _only(_g2)),
    Row("G3", _G3, 11_500, 20_000, _only(_g3), format="{:.0f}"),
    Row("G4", "GPU: NT-Xent of 32,768 pairs, GiB beyond the embeddings", 2, 1, _only(_g4), most=True),
    Row("G5", _G5, 24, None, _only(lambda o, d: _exact(o, d)[0]), most=True),
    Row("G5b", _G5B, 1.35, None, _only(lambda o, d: _exact(o, d)[1]), most=True),
]
