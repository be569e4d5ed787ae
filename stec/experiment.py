"""One experiment from its configuration to its report: check everything, find the data, build, train, measure, tell."""

import copy
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from stec import build, distributed, protocols
from stec.actions import Compose
from stec.catalogue import nearest
from stec.data import Dataset, Splits, extents, open_data
from stec.errors import UsageError
from stec.evaluation.suite import Suite
from stec.loading import Stream
from stec.measure import Begun, Measure, projector
from stec.nodes import checked, group
from stec.objective import STEC
from stec.resident import Resident
from stec.shards.fetching import address
from stec.summary import REPORT, tell
from stec.training.deterministic import deterministic
from stec.training.loop import train
from stec.training.making import time_making
from stec.training.optim import OPTIMIZERS
from stec.training.options import Hardware, Training
from stec.training.profile import Profile
from stec.training.ranks import ranks
from stec.training.run import Run
from stec.views import make_views

# What training.epochs=null stands for: data of any size are passed over so often, but in fewer steps nothing is learnt.
FEWEST_EPOCHS = 20
FEWEST_STEPS = 1000

MODEL = ("actions", "encoder", "identity", "manipulation")
SECTIONS = ("dataset", *MODEL, "optimizer", "training", "hardware", "evaluation")


class Settings:
    """The keys of a configuration that belong to no group.

    batch_size: the global batch, over all ranks; num_views: views of each sample; data: what to learn from; weights:
    what to start from; run_dir and resume: see Run; forward_views: see STEC; augment: "exact" or
    "fast", for those parts of the actions, and of the decoder, that are told it; profile: say what limits the run.
    """

    def __init__(
        self,
        *,
        name: str,
        seed: int,
        batch_size: int,
        num_views: int,
        data: str | None,
        weights: str | None,
        forward_views: str,
        resume: str,
        run_dir: str,
        augment: str = "exact",
        profile: bool = False,
    ):
        if not 0 <= seed < 2**31:
            raise UsageError(f"seed={seed} must be at least 0 and below 2^31.")
        if batch_size < 2:
            raise UsageError(f"batch_size={batch_size} must be at least 2.")
        if not 1 <= num_views <= 256:
            raise UsageError(f"num_views={num_views} must be at least 1 and at most 256.")
        if augment not in ("exact", "fast"):
            raise UsageError(f"augment={augment!r} is unknown: choose exact or fast.")
        if data:
            address(data)  # one with a password is refused before anything is written down
        self.num_views = num_views
        self.name, self.seed, self.batch_size, self.data, self.weights = name, seed, batch_size, data, weights
        self.forward_views, self.profile = forward_views, profile
        self.resume, self.run_dir = os.path.expanduser(resume), os.path.expanduser(run_dir)


class Experiment:
    """All sections of a configuration, checked against what they configure; nothing is built yet."""

    def __init__(self, config: Mapping[str, Any]):
        if missing := [section for section in SECTIONS if section not in config]:
            raise UsageError(f"{missing[0]} is missing: choose one with {missing[0]}=NAME.")
        scalars = {key: value for key, value in config.items() if key not in SECTIONS}
        self.settings = Settings(**checked(Settings, scalars, ""))
        dataset = group(config["dataset"], "dataset")
        parts = {key: dataset.get(key) for key in ("packer", "decoder", "picture")}
        rest = {key: value for key, value in dataset.items() if key not in parts}
        self.dataset = Dataset(**checked(Dataset, rest, "dataset"))
        self.packer = build.part("packer", parts["packer"], "dataset.packer")
        training = group(config["training"], "training")
        self.lasts_as_needed = "epochs" in training and training["epochs"] is None
        length = {"epochs": FEWEST_EPOCHS} if self.lasts_as_needed else {}
        self.training = Training(**checked(Training, {**training, **length}, "training"))
        self.hardware = Hardware(**checked(Hardware, config["hardware"], "hardware"))
        self.optimizer = build.choice(OPTIMIZERS, config["optimizer"], "optimizer")
        self.suite, self.online_probe, self.raw_input, self.baselines = _evaluation(config["evaluation"])
        self.spec: dict[str, Any] = {
            "format": build.SPEC_FORMAT,
            **{key: config[key] for key in MODEL},
            "decoder": parts["decoder"],
            "picture": parts["picture"],
            "forward_views": self.settings.forward_views,
        }
        build.plan(self.spec)

    def lasting(self, per_epoch: int) -> Training:
        """The options of training; training.epochs=null is FEWEST_EPOCHS, or as many as make FEWEST_STEPS."""
        if not self.lasts_as_needed:
            return self.training
        return replace(self.training, epochs=max(FEWEST_EPOCHS, math.ceil(FEWEST_STEPS / per_epoch)))

    def describe(self, splits: Splits) -> dict[str, Any]:
        """The spec, completed with what only the data can tell."""
        parts = build.plan(self.spec)
        sizes = extents(splits.train, parts.decoder(build.space(parts)))
        probed = splits.classes if self.online_probe and splits.labelled is splits.train else []
        return {**self.spec, "extents": sizes, "classes": splits.classes, "num_classes": len(probed)}


def run(config: Mapping[str, Any]) -> None:
    """Run (or continue, or merely report as finished) the experiment that a composed configuration describes."""
    experiment = Experiment(config)
    settings, hardware = experiment.settings, experiment.hardware
    with (
        ranks(hardware.device, hardware.patience) as crew,
        Run(settings.run_dir, config, resume=settings.resume) as directory,
    ):
        crew.at = lambda: f"step {directory.step}"
        if directory.finished and (directory.directory / REPORT).exists():
            directory.say(f"{settings.run_dir}: this run is finished; choose another run_dir or seed for a new one.")
            return
        with deterministic(hardware.deterministic):
            _run(experiment, directory)


def _run(experiment: Experiment, directory: Run) -> None:
    settings, dataset, hardware = experiment.settings, experiment.dataset, experiment.hardware
    if not directory.main:
        distributed.barrier()  # the first rank packs, if anything is to be packed, for it is the one that says so
    try:
        splits = open_data(dataset, settings.data, experiment.packer, experiment.packer.described())
    finally:
        if directory.main:
            distributed.barrier()
    directory.say(_told(splits))
    batch_size = fitting(settings.batch_size, splits.train.num_samples)
    if batch_size < settings.batch_size:
        directory.say(f"batch_size: {batch_size} instead of {settings.batch_size}, for there are no more samples")
    torch.manual_seed(settings.seed)
    spec = experiment.describe(splits)
    model = build.model(spec)
    assert model.stec is not None
    stec, decoder, space = model.stec, model.decoder, model.space
    enough_views(settings.num_views, stec, space)
    pooled = [name for name in stec.encoder.dims if name not in ("local", "context")]
    if experiment.suite.tap not in (readable := [*pooled, *(["projector"] if projector(stec) else [])]):
        raise UsageError(f"evaluation.tap={experiment.suite.tap} is unknown: {nearest(experiment.suite.tap, readable)}")
    if stec.reads_group and "group" not in splits.train.fields:
        raise UsageError("this objective asks which samples belong together, but the data has no member `group`.")
    if settings.weights is not None:
        build.weights(stec.encoder, settings.weights)
    fresh = settings.weights is None and not spec["encoder"].get("pretrained")
    begun = Begun("untrained" if fresh else "before training", *copy.deepcopy((stec.encoder, projector(stec))))
    serve = (
        partial(Resident, device=hardware.device)
        if dataset.resident
        else partial(Stream, num_workers=hardware.num_workers, patience=hardware.patience)
    )
    stream = serve(
        splits.train,
        decoder,
        space,
        batch_size=batch_size,
        num_views=settings.num_views,
        seed=settings.seed,
        window=dataset.window,
        max_bad=dataset.max_bad,
    )
    training = experiment.lasting(stream.steps_per_epoch)
    if training.epochs > experiment.training.epochs:
        directory.say(f"training.epochs: {training.epochs}, the fewest that make {FEWEST_STEPS:,} steps")
    complete = partial(make_views, space=space, pairs=stec.pairs, performed=decoder.performs, finish=decoder.finish)
    measure = Measure(experiment.suite, model, splits, hardware, dataset.max_bad)
    rows: dict[str, dict[str, float]] = {}

    def evaluate(step: int) -> dict[str, float]:
        """The trained row; on the first rank, while the others wait."""
        if directory.main:
            directory.say(f"step {step}: evaluating")
            rows["trained"] = measure.trained()
        distributed.barrier()
        return rows.get("trained", {})

    each = {"num_views": settings.num_views, "batch_size": batch_size // distributed.world_size()}
    making = None if dataset.resident else partial(time_making, splits.train, decoder, space, **each)
    data = {
        "fingerprint": splits.train.fingerprint,
        "shards": splits.train.shard_hashes,
        "batch_size": batch_size,
        "seed": settings.seed,
    }
    train(
        stec,
        stream,
        complete,
        experiment.optimizer(stec, batch_size),
        training,
        hardware,
        directory,
        evaluate,
        spec=spec,
        data=data,
        profile=Profile(directory, hardware, making) if settings.profile and directory.main else None,
    )
    if directory.main and directory.finished:
        others = {label: s for label, s in experiment.baselines.items() if not (s and directory.is_at(s))}
        table = measure.baselines(begun, experiment.raw_input, others)
        tell(directory, measure, {**table, **rows}, settings.name, batch_size)


def enough_views(num_views: int, stec: STEC, space: Compose) -> None:
    """UsageError if the objective compares more views, or if a part of the actions would never do what it is told to do
    with later ones."""
    if num_views < stec.num_views:
        raise UsageError(f"num_views={num_views} is too few: this objective compares {stec.num_views} views.")
    for name, part in space.parts.items():
        if num_views < (wanted := getattr(part, "num_views", 1)):
            raise UsageError(
                f"num_views={num_views} is too few for actions.{name}: what it is told to do with view {wanted - 1}"
                f" (the first is view 0) would never be done; at least {wanted} views are needed."
            )


def fitting(batch_size: int, num_samples: int) -> int:
    """The global batch size; for fewer samples as many as the ranks can share equally. UsageError below two a rank."""
    if num_samples >= batch_size:
        return batch_size
    world = distributed.world_size()
    if num_samples < 2 * world:
        each = "" if world == 1 else f" for each of {world} ranks"
        raise UsageError(f"too few samples to learn from, {num_samples}: at least 2{each} are needed.")
    return num_samples // world * world


def _evaluation(node: Mapping[str, Any]) -> tuple[Suite, bool, bool, dict[str, str | None]]:
    """The protocols; whether a probe trains along; whether there is a row for the raw input; other rows to compare
    with, {label: source}."""
    rest = dict(group(node, "evaluation"))
    online, raw_input = rest.pop("online_probe", True), rest.pop("raw_input", True)
    compared = protocols.baselines(rest.pop("baselines", None))
    for key, value in (("online_probe", online), ("raw_input", raw_input)):
        if not isinstance(value, bool):
            raise UsageError(f"evaluation.{key}={value!r} has the wrong type: true or false was expected.")
    return protocols.suite(rest), online, raw_input, compared


def _told(splits: Splits) -> str:
    shards = len(splits.train.shard_sizes)
    parts = [f"{splits.train.num_samples:,} samples to learn from in {shards} shard{'s' * (shards != 1)}"]
    parts += [f"{splits.test.num_samples:,} to test on" if splits.test is not None else "no test split", splits.labels]
    return f"data: {', '.join(parts)} ({splits.train.folder})"
