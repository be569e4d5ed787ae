"""Any model of timm as an encoder, and the pieces that self-supervised training of transformers needs.

Legend: B images [B, 3, H, W], float in [0, 1].
"""

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor

from stec.catalogue import nearest
from stec.encoder import Encoder, Features
from stec.errors import UsageError
from stec_vision.encoders import TAKES

_log = logging.getLogger("stec")


class Timm(Encoder):
    """A model of timm without its classifier: pooled features [B, D].

    pretrained: start from the published weights; offline: only if they are on this machine already. normalize:
    subtract the mean and divide by the deviation that those weights expect. image_size: for models that are built for
    one size (vision transformers), in pixels. drop_path: rate of stochastic depth.

    For vision transformers: patch_size in pixels, depth (number of blocks) and embed_dim (a multiple of the model's
    number of heads) where they are not to be the named model's. dynamic_size: take images of any size that patches
    divide (multi-crop). freeze_patch_embed: the projection of patches stays as it began, against the instabilities of
    MoCo v3 (Chen, Xie & He 2021). taps: which of block0, block1, ... to give besides the pooled output, each the mean
    of its patch tokens, [B, E].
    """

    takes = TAKES
    prefix = "model."
    """What a name of the state dict has in front of timm's name."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        model: str,
        pretrained: bool = False,
        offline: bool = False,
        normalize: bool = True,
        image_size: int | None = None,
        drop_path: float = 0.0,
        patch_size: int | None = None,
        depth: int | None = None,
        embed_dim: int | None = None,
        dynamic_size: bool = False,
        freeze_patch_embed: bool = False,
        taps: list[str] | None = None,
    ):
        super().__init__()
        if not timm.is_model(model):
            raise UsageError(f"encoder.model={model!r} is not in timm {timm.__version__}: {_nearest_model(model)}")
        if not 0 <= drop_path < 1:
            raise UsageError(f"encoder.drop_path={drop_path} must be in [0, 1).")
        if pretrained and offline and not _at_hand(model):
            raise UsageError(f"encoder.model={model!r}: its published weights are not on this machine.")
        sizes = {"image_size": image_size, "patch_size": patch_size, "depth": depth, "embed_dim": embed_dim}
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise UsageError(f"encoder.{name}={size} must be at least 1, or null for the model's own.")
        wanted = {
            "img_size": image_size,
            "patch_size": patch_size,
            "depth": depth,
            "embed_dim": embed_dim,
            "dynamic_img_size": dynamic_size or None,
            "drop_path_rate": drop_path or None,
        }
        options: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
        self.name, self.options = model, options
        if pretrained and not _at_hand(model):
            _log.info("encoder.model=%s: fetching its published weights", model)
        try:
            with _hub_in_silence():
                self.model = timm.create_model(model, pretrained=pretrained, num_classes=0, **options)
        except TypeError as error:
            raise UsageError(f"encoder.model={model!r} does not take {' and '.join(options)}: {error}") from error
        except (OSError, RuntimeError, ValueError, AssertionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(
                f"encoder.model={model!r} cannot be built with pretrained={pretrained}: {reason}"
            ) from error
        # Some networks widen after the pooling; timm calls what comes out then head_hidden_size.
        facts: Any = self.model
        self.dims = {"pooled": int(getattr(facts, "head_hidden_size", None) or facts.num_features)}
        self._tap(taps or [])
        if freeze_patch_embed:
            self._frozen_patches()
        spared = facts.no_weight_decay() if hasattr(facts, "no_weight_decay") else ()
        self.undecayed = frozenset(self.prefix + n for n, _ in facts.named_parameters() if n in spared)
        published = facts.pretrained_cfg if normalize else {"mean": (0.0,) * 3, "std": (1.0,) * 3}
        self.register_buffer("mean", torch.tensor(published["mean"]).view(-1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(published["std"]).view(-1, 1, 1), persistent=False)

    def _tap(self, taps: list[str]) -> None:
        """Note the blocks to give and their width; UsageError if there are none of these names."""
        facts: Any = self.model
        tokens = all(hasattr(facts, name) for name in ("blocks", "num_prefix_tokens", "forward_intermediates"))
        if taps and not tokens:
            raise UsageError(f"encoder.taps={taps}: {self.name} is no vision transformer, and has no blocks to tap.")
        known = {f"block{number}": number for number in range(len(facts.blocks) if tokens else 0)}
        for name in taps:
            if name not in known:
                raise UsageError(f"encoder.taps: {name!r} is unknown: {nearest(name, known)}")
        self.taps = tuple(sorted(taps, key=known.__getitem__))
        self._blocks = [known[name] for name in self.taps]
        self.dims |= dict.fromkeys(self.taps, int(facts.embed_dim) if tokens else 0)

    def _frozen_patches(self) -> None:
        if not hasattr(self.model, "patch_embed"):
            raise UsageError(f"encoder.freeze_patch_embed=true: {self.name} has no projection of patches.")
        self.model.patch_embed.requires_grad_(False)

    @staticmethod
    def published(model: str) -> dict[str, Any]:
        """The description of a model with its published weights, its samples prepared at the size it was trained on."""
        if not timm.is_model(model):
            raise UsageError(f"timm/{model} is not in timm {timm.__version__}: {_nearest_model(model)}")
        known = timm.get_pretrained_cfg(model)
        if known is None:
            raise UsageError(f"timm/{model}: timm knows no published weights of this model.")
        size = known.input_size[-1]
        return {
            "actions": {"affine_crop": {"size": size}},
            "decoder": {"name": "image_crop"},
            "picture": {"name": "boxes"},
            "encoder": {"name": "timm", "model": model, "pretrained": True},
        }

    def loading_lines(self, file: str) -> list[str]:
        """Python that loads an exported file into timm's model; its input must be normalised by the last line."""
        shape = {name: value for name, value in self.options.items() if name != "drop_path_rate"}
        options = "".join(f", {name}={value}" for name, value in shape.items())
        return [
            "import timm",
            f"model = timm.create_model({self.name!r}, num_classes=0{options}, checkpoint_path={file!r})",
            f"mean, deviation = {self.mean.flatten().tolist()}, {self.deviation.flatten().tolist()}  # of the input",
        ]

    def _admit(self, height: int, width: int) -> None:
        """UsageError if images of this size cannot be cut into the model's patches."""
        patches: Any = getattr(self.model, "patch_embed", None)
        size, strict = getattr(patches, "img_size", None), getattr(patches, "strict_img_size", None)
        if size is None or strict is None:  # no projection of timm's own kind
            return
        came = f"encoder.model={self.name!r}: images of {height}x{width} pixels came"
        if strict and (height, width) != tuple(size):
            raise UsageError(
                f"{came}, but it is built for {size[0]}x{size[1]}: set encoder.image_size to the size of the views, or"
                " encoder.dynamic_size=true for views of several sizes (vision transformers)."
            )
        patch, padded = patches.patch_size, getattr(patches, "dynamic_img_pad", False)
        if not (strict or padded) and (height % patch[0] or width % patch[1]):
            raise UsageError(
                f"{came}, which patches of {patch[0]}x{patch[1]} do not divide: change encoder.patch_size, or the size"
                " of the views."
            )

    def forward(self, x: Tensor) -> Features:
        self._admit(x.shape[2], x.shape[3])
        x = (x - self.mean) / self.deviation
        if not self.taps:
            return Features(self.model(x))
        model: Any = self.model
        last, inner = model.forward_intermediates(x, indices=self._blocks, output_fmt="NLC")
        layers = {name: tokens.mean(dim=1) for name, tokens in zip(self.taps, inner, strict=True)}
        return Features(model.forward_head(last), layers=layers)


@contextmanager
def _hub_in_silence() -> Iterator[None]:
    """Without a network it warns of each of its attempts; they end in one sentence of ours."""
    hub = logging.getLogger("huggingface_hub")
    before = hub.level
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        hub.setLevel(before)


def _at_hand(model: str) -> bool:
    """Are the weights in the hub's cache? (Looking does not touch the network.)"""
    published = timm.get_pretrained_cfg(model)
    if published is None or not published.hf_hub_id:
        return False
    names = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(published.hf_hub_id, name), str) for name in names)


def _nearest_model(name: str) -> str:
    """timm has a thousand models: name a few near ones instead of all."""
    close = difflib.get_close_matches(name, timm.list_models(), n=3)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else "see timm.list_models()."
