"""What limits a run: from the times of its steps to a table of one screen and a sentence with what to change."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from stec.cores import cores
from stec.training.making import Making
from stec.training.options import Hardware
from stec.training.phases import PHASES
from stec.training.run import flat

# Below this share of a step, waiting for the loader is no matter.
_IDLE = 0.1
# What takes more than this share of a step, beside forward and backward, is worth a word.
_MUCH = 0.25
# A GPU that computes for less than this share of the time in which it has data is fed too slowly by the program.
_BUSY = 0.7
# Loading processes are given more to do, for a GPU's sake, only if they can make this many times what its step takes.
_SPARE = 1.5


class Augment(NamedTuple):
    """What the key `augment` means to a recipe. fast: it says so; told: are any actions told it; moved: is the decoder
    told it, which then performs in loading processes what augment=exact leaves to the device."""

    fast: bool = False
    told: bool = False
    moved: bool = False


def augment_of(config: Mapping[str, Any]) -> Augment:
    """Who is told `augment` in a composed configuration."""
    told = {key.partition(".")[0] for key in flat(config) if key.endswith(".augment")}
    return Augment(config.get("augment") == "fast", bool(told), "dataset" in told)


class Account(NamedTuple):
    """phases: seconds of a step in each phase; samples: of this rank in a step; making: of a batch (None: batches come
    from memory); busy: share of the time in which the GPU computed (None: no GPU)."""

    phases: dict[str, float]
    samples: int
    making: Making | None
    busy: float | None = None

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return max(sum(self.phases.values()), 1e-9)

    @property
    def rate(self) -> float:
        """Samples a second, waiting included."""
        return self.samples / self.step

    @property
    def able(self) -> float:
        """Samples a second that the step could take if it never waited."""
        return self.samples / max(self.step - self.phases["wait"], 1e-9)

    def share(self, *names: str) -> float:
        return sum(self.phases[name] for name in names) / self.step

    def table(self) -> list[str]:
        """A line for each phase: milliseconds, share, and what is in it."""
        return [
            f"  {name:10}{1000 * seconds:9.2f} ms {seconds / self.step:5.0%}  {PHASES[name]}".rstrip()
            for name, seconds in self.phases.items()
        ]


def verdict(account: Account, hardware: Hardware, augment: Augment) -> str:
    """One sentence: what limits, and what to change that is not so already."""
    if account.share("wait") > _IDLE:
        returned = augment.fast and augment.moved and hardware.device.type != "cpu"
        way = loading(account.making, account.able, hardware.num_workers, returned=returned)
        return (
            f"the loader limits: {_makers(account.making, hardware.num_workers)} {account.rate:,.0f} samples/s,"
            f" the step could take {account.able:,.0f}: {way}"
        )
    sooner = "augment=fast, or " * _helps(augment, account, hardware)
    nearer = "dataset.resident=true, or " * (account.making is not None)
    for name, words in (
        ("augment", f"performing the actions on the device limits: try {sooner}smaller views"),
        ("other", "what is done between steps limits: raise training.log_every and training.checkpoint_every"),
        ("transfer", f"moving batches to the device limits: try {nearer}smaller views"),
        ("optimiser", "the optimiser limits: a larger batch_size needs fewer of its steps"),
    ):
        if account.share(name) > max(_MUCH, account.share("forward", "backward")):
            return f"{words} ({account.share(name):.0%} of the time)."
    return f"{computing(account, hardware)} {_reserve(account, hardware)}"


def _helps(augment: Augment, account: Account, hardware: Hardware) -> bool:
    """Would augment=fast make steps quicker? Not if it is so, nor if it lays more on loading processes without room."""
    if augment.fast or not augment.told:
        return False
    if not augment.moved or account.making is None or hardware.device.type == "cpu":  # there all share the same cores
        return True
    return hardware.num_workers * account.making.rate > _SPARE * account.able


def loading(making: Making | None, wanted: float, num_workers: int, *, returned: bool = False) -> str:
    """What to change so that loading processes deliver `wanted` samples/s. returned: would augment=exact give some of
    their work back to the device?"""
    if making is None:
        return "drawing the actions takes that long; a larger batch_size draws more of them at once."
    needed = math.ceil(wanted / making.rate)
    largest = max(making.seconds, key=lambda part: making.seconds[part])
    if num_workers < needed <= max(1, cores() - 1):
        return f"one core makes {making.rate:,.0f}, so set hardware.num_workers={needed}."
    ways = {
        "read": "the disk is slow: copy the shards to a nearer one, or set dataset.resident=true",
        "draw": "drawing the actions takes longest: fewer of them, or fewer views",
        "stack": "copying the views together takes longest: smaller views",
    }
    way = ways.get(largest, "decoding takes longest: pack smaller samples, or set dataset.resident=true if they fit")
    if returned and largest == "decode":
        way += "; augment=exact leaves more of the actions to the device"
    if num_workers >= needed:  # then they cannot get at their cores, or the disk serves one at a time
        who = "with a core to itself it" if num_workers == 1 else f"with {num_workers} cores to themselves they"
        return f"{who} could deliver {num_workers * making.rate:,.0f}; {way}."
    have = f"this process has {cores()} core{'s' * (cores() > 1)} for them and the step"
    return f"one core makes {making.rate:,.0f}, so {needed} loading processes would be needed, and {have}; {way}."


def computing(account: Account, hardware: Hardware) -> str:
    """Which computation limits, and what to change."""
    if account.busy is not None and account.busy < _BUSY:
        compiled = "" if hardware.compile else "hardware.compile=true or "
        return (
            f"the program feeds the GPU too slowly, which computes {account.busy:.0%} of the time: try"
            f" {compiled}a larger batch_size."
        )
    ways = ["hardware.precision=bf16"] * (hardware.precision == "fp32" and hardware.device.type == "cuda")
    ways += ["hardware.channels_last=true"] * (not hardware.channels_last)
    ways += ["hardware.compile=true"] * (not hardware.compile and hardware.device.type == "cuda")
    ways += ["a larger hardware.micro_batch, or none"] * (hardware.micro_batch is not None)
    ways += ["smaller views", "a smaller encoder"] + ["a GPU"] * (hardware.device.type == "cpu")
    return (
        f"computing limits: forward and backward on {hardware.device} take"
        f" {account.share('forward', 'backward'):.0%} of the time: try {', '.join(ways[:-1])} or {ways[-1]}."
    )


def _reserve(account: Account, hardware: Hardware) -> str:
    if account.making is None:
        return "Batches come from memory."
    if not hardware.num_workers:
        return f"Without loading processes {account.making}."
    most = hardware.num_workers * account.making.rate
    return f"The loader keeps up: {hardware.num_workers} x {account.making.rate:,.0f} = {most:,.0f} samples/s at most."


def _makers(making: Making | None, num_workers: int) -> str:
    if making is None:
        return "batches from memory come at"
    if not num_workers:
        return "without loading processes it delivers"
    return "1 loading process delivers" if num_workers == 1 else f"{num_workers} loading processes deliver"
