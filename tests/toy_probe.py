"""An encoder of sequences, and a probe with a label for each of their places, of the samples of toy_source."""

import torch
from torch import nn
from toy_source import toy_sample

from stec.encoder import Encoder, Features
from stec.errors import DataError, UsageError


class Rows(Encoder):
    """A picture [B, 1, H, W] as H frames; context [B, H, W + 1]: each frame and, since the length of a sequence must
    matter to whoever pads it, the mean of all of them."""

    hop = 1

    def __init__(self, width: int = 6):
        super().__init__()
        self.dims = {"pooled": width, "context": width + 1}
        self.scale, self.dropout = nn.Parameter(torch.ones(width)), nn.Dropout(0.5)

    def forward(self, x):
        frames = self.dropout(x[:, 0] * self.scale)
        means = frames.mean(dim=(1, 2))[:, None, None].expand(-1, frames.shape[1], 1)
        return Features(frames.mean(dim=1), context=torch.cat([frames, means], dim=2))


class Plain(Rows):
    """The same with keywords for a configuration: none."""

    def __init__(self):
        super().__init__()


class Marks:
    """The member `marks`: one whole number for each of the first rows of a picture; what lies below is cut off."""

    needs = frozenset({"context"})

    def __init__(self, decoder, *, offset: int = 0):
        if offset < 0:
            raise UsageError(f"offset={offset} must be at least 0.")
        self.decoder, self.offset = decoder, offset

    def example(self, members, meta):
        if "marks" not in members:
            return None
        try:
            labels = torch.tensor([int(word) for word in members["marks"].split()])
        except ValueError:
            raise DataError("the marks are no numbers.") from None
        return self.decoder.finish(self.decoder.whole(self.decoder.open(members["toy"])))[
            None, :, : len(labels)
        ], labels

    def rows(self, encoder, features, labels):
        return features.context[0], labels + self.offset

    def classes(self, meta):
        return list(meta.get("marks", []))

    def describe(self):
        return "a mark for each row"


def marked(number: int, height: int = 5, label: int | None = None, num: int | None = None):
    """A toy sample whose rows are marked 0, 1 or 2 by their first pixel."""
    sample = toy_sample(number, height, label=number % 5 if label is None else label)
    marks = [sample["toy"][2 + 6 * row] * 3 // 256 for row in range(height)]
    return sample | {"marks": " ".join(map(str, marks[:num])).encode()}


class Kind:
    """The class of a picture, from all of its pooled features."""

    needs = frozenset({"pooled"})

    def __init__(self, decoder, *, flip: bool = False):
        self.decoder, self.flip = decoder, flip

    def example(self, members, meta):
        x = self.decoder.finish(self.decoder.whole(self.decoder.open(members["png"])))[None]
        return (x.flip(-1) if self.flip else x), torch.tensor([int(members["cls"])])

    def rows(self, encoder, features, labels):
        return features.pooled, labels

    def classes(self, meta):
        return list(meta["classes"])

    def describe(self):
        return "the kind of a picture"
