"""A few pictures made from nothing, so that `stec.testing` can try the parts of this modality without any data."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from stec_vision.packers import lossless

_NUM = 8
_HEIGHT, _WIDTH = 28, 36  # not square: axes that are mixed up show


class Blots:
    """Smooth blots, red or blue, as lossless WebP [28, 36, 3]; and small options for the parts."""

    splits = ("train",)
    options = {  # noqa: RUF012
        "action_space": {"affine_crop": {"size": 20}, "quarter_turn": {"first_view": 0}},
        "decoder": {"image_crop": {"saliency": True}},
        "encoder": {"resnet": {"width": 4, "taps": ["layer2"]}, "timm": {"model": "test_resnet"}},
    }

    def samples(self, split: str) -> Iterator[dict[str, Any]]:
        numbers = np.random.default_rng(0)
        for i in range(_NUM):
            coarse = numbers.integers(0, 120, (4, 5, 3))
            coarse[..., 2 * (i % 2)] += 120
            smooth = Image.fromarray(coarse.astype(np.uint8)).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
            yield {"__key__": f"{split}-{i}", "webp": lossless(np.asarray(smooth)), "cls": b"%d" % (i % 2)}

    def meta(self, split: str) -> dict[str, Any]:  # noqa: ARG002
        return {"classes": ["red", "blue"]}
