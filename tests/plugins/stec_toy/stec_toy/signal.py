import io

import numpy as np
import torch
from PIL import Image, ImageDraw

from stec.decoder import Opened
from stec.errors import DataError


class Motion:
    """`.npy` int16 [3, N], 4096 to one g -> the whole recording; all actions are performed later."""

    extensions, performs = ("npy",), 0

    def __init__(self, space): ...

    def open(self, raw):
        file = io.BytesIO(raw)
        try:
            np.lib.format.read_magic(file)
            (axes, num), _, kind = np.lib.format.read_array_header_1_0(file)
            assert (axes, num > 0, kind, 6 * num) == (3, True, np.dtype("<i2"), len(raw) - file.tell())
        except Exception as error:
            raise DataError(f"{len(raw)} bytes that are not the .npy of an int16 array [3, N]") from error
        return Opened((num,), raw)

    def whole(self, opened):
        (num,), raw = opened
        return torch.from_numpy(np.frombuffer(raw[-6 * num :], "<i2").reshape(3, num).copy())

    def finish(self, x):
        return x.float() / 4096


class MadeUp:
    """Three activities: swings of a rhythm each, of any direction and phase, at 50 Hz. Packer and example."""

    splits, options = ("train", "test"), {"encoder": {"motion": {"channels": 8}}}

    def __init__(self, source=""): ...

    def samples(self, split):
        numbers = np.random.default_rng(len(split))
        for i in range(96):
            phase, push = numbers.uniform(0, 6.28, (3, 1)), numbers.uniform(0.3, 1, (3, 1))
            swing = push * np.sin(6.28 * (1 + i % 3) * np.arange(128) / 50 + phase)
            np.save(file := io.BytesIO(), (4096 * swing).astype("<i2"))
            yield {"__key__": f"{i:04d}", "npy": file.getvalue(), "cls": b"%d" % (i % 3)}

    def meta(self, split):
        return {"classes": ["stroll", "walk", "run"]}


class Curves:
    legend, meanings = "Black: recording, blue: view 1, orange: view 2.", {"gain": "How much stronger view 2 is."}

    def __init__(self, space): ...

    def source(self, raw, decoder):
        return decoder.finish(decoder.whole(decoder.open(raw)))

    def pair(self, source, actions, views):
        picture = Image.new("RGB", (256, 180), "white")
        for row, (x, colour) in enumerate(zip((source, *views[:2]), ("black", "blue", "orange"), strict=True)):
            points = [(256 * i / len(x[0]), 30 + 60 * row - 15 * value) for i, value in enumerate(x[0].tolist())]
            ImageDraw.Draw(picture).line(points, fill=colour)
        picture.save(file := io.BytesIO(), "PNG")
        return file.getvalue()

    def words(self, values):
        return ", ".join(f"{name} {value:.1f}" for name, value in values.items())
