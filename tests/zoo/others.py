"""A good probe, picture, packer and example, and some that are each wrong in one way."""

import io

import torch
from PIL import Image
from toy_source import toy_sample

from stec.errors import DataError, UsageError


class Labels:
    """Probe: the class."""

    needs = frozenset({"pooled"})

    def __init__(self, decoder):
        self.decoder = decoder

    def example(self, members, meta):
        if not members["cls"].isdigit():
            raise DataError("cls is not a number")
        whole = self.decoder.whole(self.decoder.open(members["toy"]))
        return self.decoder.finish(whole)[None], torch.tensor([int(members["cls"])])

    def rows(self, encoder, features, labels):
        return features.pooled, labels

    def classes(self, meta):
        return meta["classes"]

    def describe(self):
        return "a sample a row"


class Uneven(Labels):
    def rows(self, encoder, features, labels):
        return features.pooled, labels.repeat(2)


class BeyondItsClasses(Labels):
    def classes(self, meta):
        return meta["classes"][:1]


class Trusting(Labels):
    def example(self, members, meta):
        whole = self.decoder.whole(self.decoder.open(members["toy"]))
        return self.decoder.finish(whole)[None], torch.tensor([int(members["cls"])])


class Drawn:
    legend, meanings = "A square.", {}

    def __init__(self, space):
        pass

    def source(self, raw, decoder):
        return decoder.whole(decoder.open(raw))

    def pair(self, source, actions, views):
        Image.new("L", (2, 2)).save(file := io.BytesIO(), "PNG")
        return file.getvalue()

    def words(self, values):
        return "something"


class Wordless(Drawn):
    def words(self, values):
        return values["level"]


class Crooked(Drawn):
    def source(self, raw, decoder):
        return 1 / 0


class Few:
    """Example and packer."""

    splits = ("train",)
    options: dict[str, dict[str, dict[str, object]]] = {}  # noqa: RUF012
    num = 8

    def __init__(self, source=""):
        if source:
            raise UsageError("it reads nothing.")

    def samples(self, split):
        for i in range(self.num):
            yield {"__key__": f"{i}", **toy_sample(i, label=i % 2)}

    def meta(self, split):
        return {"classes": ["even", "odd"]}


class TooFew(Few):
    num = 3


class Misspelt(Few):
    options = {"encoder": {"one": {"chanels": 3}}}  # noqa: RUF012


class OneKey(Few):
    def samples(self, split):
        return ({**sample, "__key__": "same"} for sample in super().samples(split))


class Unsteady(Few):
    turn = 0

    def samples(self, split):
        self.turn += 1
        return ({**sample, "json": b"%d" % self.turn} for sample in super().samples(split))


class StrayLabel(Few):
    def samples(self, split):
        return ({**sample, "cls": b"2"} for sample in super().samples(split))


class Sourceless(Few):
    def __init__(self, source):
        raise KeyError(source)
