"""No step of training waits for the device: nothing that a step does asks it for a number or a shape, or copies to it.

Steps are made on torch's `meta` device, whose tensors have no values: whatever asks for one fails, and what branches on
`device.type != "cpu"` goes the way that it goes on a GPU. Copies from the host are seen by the modes below.
"""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from toy_sequence import Sequences, sequence_views
from toy_source import SPACE, Sources, memory
from toy_space import Windows
from toy_terms import EXTENTS, IDENTITY, MANIPULATION, MULTI_CROP, Turns, objective

from stec.actions import Compose, Relative, sample_views
from stec.identity.cpc import CPC
from stec.identity.time_insensitive import TimeInsensitive
from stec.manipulation.frame_offset import FrameOffset
from stec.negatives import MODES
from stec.objective import STEC
from stec.probe import OnlineProbe
from stec.resident import Resident
from stec.rng import make_keys
from stec.training.gradcache import GradCache
from stec.training.gradient import Pass, Plain
from stec.training.meter import Meter
from stec.training.optim import OPTIMIZERS
from stec.training.options import Hardware
from stec.views import Batch, Views, make_views
from stec_vision.actions import AffineCrop
from stec_vision.encoders import ResNet
from stec_vision.photometry import ColorJitter, GaussianBlur, Grayscale, Solarize
from stec_vision.quarter_turn import QuarterTurn

META = torch.device("meta")
CPU = Hardware(device="cpu", precision="fp32")
# What a value or a shape would have to come back for; most of them fail on the meta device anyway.
ASKS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero", "bincount")


class Waits(TorchDispatchMode):
    """Notes each operation that a GPU would have to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._makes = Makes(self.found)

    def __enter__(self) -> "Waits":
        self._makes.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._makes.__exit__(*raised)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        given = [t for x in args for t in (x if isinstance(x, list | tuple) else [x]) if isinstance(t, Tensor)]
        away = any(t.device == META for t in given)
        out = func(*args, **kwargs)
        if away and (
            any(name.startswith(ask) for ask in ASKS)
            or (name.startswith("index") and any(t.dtype == torch.bool for t in given[1:]))
            # A number of the host's goes along with the kernel; anything larger is copied, and waited for.
            or (
                any(t.device.type == "cpu" and t.dim() for t in given)
                and not kwargs.get("non_blocking")
                and name != "copy_"
            )
        ):
            self.found.append(name)
        sent = isinstance(out, Tensor) and out.device == META and given and not away
        if (sent and not kwargs.get("non_blocking")) or (name == "copy_" and _blocks(args, kwargs)):
            self.found.append(f"{name} from the host")
        return out


def _blocks(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    here, there, *rest = args
    return here.device != there.device and not (rest and rest[0]) and not kwargs.get("non_blocking")


class Makes(TorchFunctionMode):
    """torch.tensor(..., device=...) copies from the host as well, unseen by the mode above."""

    def __init__(self, found: list[str]):
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.tensor, torch.as_tensor) and torch.device((kwargs or {}).get("device") or "cpu") == META:
            self.found.append(f"torch.{func.__name__} from the host")
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch):
    """Which there is for all devices but this one."""
    monkeypatch.setattr(torch, "autocast", lambda *given, **options: nullcontext())


def test_waiting_would_be_seen():
    x, mask, here = torch.ones(4, device=META), torch.ones(4, device=META) > 0, torch.ones(4)
    for asks in (
        lambda: x.sum().item(),
        lambda: bool(mask[0]),
        lambda: x.tolist(),
        lambda: x.cpu(),
        lambda: x.nonzero(),
    ):
        with Waits() as waits, pytest.raises((NotImplementedError, RuntimeError)):
            asks()
    for waited in (
        lambda: here.to(META),
        lambda: x.copy_(here),
        lambda: torch.tensor([1.0, 2.0], device=META),
        lambda: torch.tensor(1.0, device=META),
        lambda: x[torch.arange(2)],
    ):
        with Waits() as waits:
            waited()
        assert len(waits.found) == 1
    with Waits() as waits:
        _ = (here.to(META, non_blocking=True), x * 2, x * torch.tensor(2.0), torch.full((3,), 1.0, device=META))
        x[0] = 3
    assert waits.found == []


def waited(stec: STEC, batches: list[Any], complete: Any, optimizer: str = "adamw", micro_batch: int | None = None):
    """What the steps of a training waited for on the meta device."""
    stec.train().to(META)
    step, meter = OPTIMIZERS[optimizer](stec, 8, lr=0.1), Meter(META)
    plain = Plain(Pass(stec), CPU, lambda loss: loss)
    backward = GradCache(stec, CPU, lambda loss: loss, micro_batch) if micro_batch else plain
    with Waits() as waits:
        for number, batch in enumerate(batches):
            stec.before_step(number, len(batches))
            out = backward(complete(batch), False)
            step.step()
            step.zero_grad()
            meter.add(out.sums, out.loss)
    with pytest.raises(NotImplementedError):
        meter.read(len(batches))  # a log line is what waits
    return waits.found


class OnDevice(Turns):
    """The toy's turns, trusted where they are."""

    def trusted(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.ones(len(a), dtype=torch.bool, device=a.device)

    def relative(self, a: Tensor, b: Tensor) -> Relative:
        return super().relative(a, b)._replace(valid=self.trusted(a, b)[:, None])


def toy_space(frame: str = "ego") -> Compose:
    return Compose({"window": Windows(frame), "turns": OnDevice()})


def toy_batch(step: int, small: int = 0, num: int = 12) -> Batch:
    keys = make_keys(0, step, torch.arange(num))
    actions = sample_views(toy_space(), keys, EXTENTS.expand(num, 2), 3 + small)
    x = [torch.randn(num, 4 if view < 3 else 3).double() for view in range(3 + small)]
    return Batch(tuple(x), actions, keys, torch.arange(num) // 2, torch.arange(num) % 3)


CASES = [
    *((name, None, {}) for name in IDENTITY),
    *(("simclr", name, {}) for name in MANIPULATION),
    *((name, None, {"small": 2}) for name in MULTI_CROP),
    ("byol", None, {"micro_batch": 4}),
    ("simclr", None, {"optimizer": "lars"}),
    ("simclr", None, {"optimizer": "sgd"}),
]


@pytest.mark.parametrize(("identity", "manipulation", "options"), CASES, ids=str)
def test_no_step_waits_for_the_device(identity, manipulation, options):
    small, rest = options.get("small", 0), {key: value for key, value in options.items() if key != "small"}
    stec = objective(identity, manipulation)
    stec.probes["online"] = OnlineProbe(stec.encoder.dims, 3).double()
    stec.weights["probes.online"] = 1.0
    space = toy_space("augself" if manipulation == "augself" else "ego")

    def complete(batch: Batch) -> Views:
        return make_views(batch.to(META), space, stec.pairs)

    assert waited(stec, [toy_batch(step, small) for step in range(2)], complete, **rest) == []


@pytest.mark.parametrize("frame", ["ego", "allocentric", "augself", "published"])
def test_no_efference_copy_waits(frame):
    with Waits() as waits:
        make_views(toy_batch(0).to(META), toy_space(frame), ((0, 1), (1, 0)))
    assert waits.found == []


TERMS = {
    **{mode: lambda mode=mode: CPC(Sequences().dims, steps=3, num_negatives=6, negatives=mode) for mode in MODES},
    "windows": lambda: TimeInsensitive(Sequences().dims),
    "frames": lambda: TimeInsensitive(Sequences().dims, design="frames"),
    "offset": lambda: FrameOffset(Sequences().dims, reach=4),
}


@pytest.mark.parametrize("name", TERMS)
def test_no_step_on_sequences_waits(name):
    stec = STEC(Sequences(), {name: (1.0, TERMS[name]())}, {}, {}).double()

    def complete(views: Views) -> Views:
        x = tuple(each.to(META, non_blocking=True) for each in views.x)
        return views._replace(x=x, group=views.group.to(META, non_blocking=True))

    assert waited(stec, [sequence_views(8, 9, 2, seed) for seed in range(2)], complete) == []


def pictures(space: Compose, step: int, performed: int, num: int = 6) -> Batch:
    keys, extents = make_keys(0, step, torch.arange(num)), torch.tensor([[40, 48]]).expand(num, 2)
    actions = sample_views(space, keys, extents, 3)
    sizes = [(40, 48)] if not performed else [(24, 24), (24, 24), (16, 16)]
    x = tuple(torch.zeros(num, 3, *size, dtype=torch.uint8) for size in sizes)
    return Batch(x, actions, keys, labels=torch.arange(num) % 3)


@pytest.mark.parametrize("performed", [0, 1], ids=["crops on the device", "crops while decoding"])
@pytest.mark.parametrize("light", ["exact", "fast"])
def test_no_view_of_a_picture_waits(light, performed):
    colours = {"jitter": ColorJitter(augment=light), "grey": Grayscale(), "blur": GaussianBlur(), "sun": Solarize()}
    space = Compose({"crop": AffineCrop(size=24), "turn": QuarterTurn(first_view=1), **colours})

    def finish(x: Tensor) -> Tensor:
        return x.float() / 255

    def views(step: int) -> None:
        batch = pictures(space, step, performed)
        make_views(batch.to(META), space, ((0, 1), (1, 0)), performed=performed, finish=finish)

    views(0)  # constants are copied to a device once
    with Waits() as waits:
        views(1)
    assert waits.found == []


def test_no_batch_of_data_that_lies_on_the_device_waits():
    source = Resident(memory(), Sources(), SPACE, batch_size=4, device=META)
    with Waits() as waits:
        batch = next(source.batches(0))
    assert batch.x[0].device == META
    assert waits.found == []


def test_no_pass_through_a_network_waits():
    encoder = ResNet(width=2).to(META)
    with Waits() as waits:
        encoder(torch.zeros(4, 3, 24, 24, device=META)).pooled.sum().backward()
    assert waits.found == []
