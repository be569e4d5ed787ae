"""A decoder is asked for views or for one source; what it has decoded is let go of before the next sample is."""

import gc
import weakref

import pytest
import torch
from toy_source import SPACE, Corners, Sources, memory, toy_sample

from stec.decoder import Opened, begin
from stec.samples import make_batch, read_whole


def test_views_of_one_that_performs_and_one_source_of_one_that_does_not():
    raw, actions = toy_sample(3)["toy"], torch.tensor([[1.0, 2.0], [0.0, 4.0], [4.0, 5.0]])
    whole = Sources().whole(Sources().open(raw))
    (source,) = begin(Sources(), Sources().open(raw), actions)
    assert torch.equal(source, whole)
    views = begin(Corners(), Corners().open(raw), actions)
    assert [view.tolist() for view in views] == [[int(whole[0, i, j]), i, j] for i, j in actions.int().tolist()]


@pytest.fixture
def young():
    """Only what is made from now on is looked through for garbage: there may be a great deal of the rest."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Content:
    """Bytes in something that can be watched."""

    def __init__(self, raw):
        self.raw = raw


class Watched(Sources):
    """Notes how many of the samples that it has decoded are still there when it decodes the next one."""

    def __init__(self, performs):
        self.performs, self.decoded, self.kept = performs, [], []

    def open(self, raw):
        extent, raw = super().open(raw)
        return Opened(extent, Content(raw))

    def whole(self, opened):
        gc.collect()
        self.kept.append(sum(each() is not None for each in self.decoded))
        self.decoded.append(weakref.ref(opened.content))
        return super().whole(Opened(opened.extent, opened.content.raw))

    def __call__(self, opened, actions):
        return (self.whole(opened),) * len(actions)


@pytest.mark.usefixtures("young")
@pytest.mark.parametrize("performs", [0, 1])
def test_what_has_been_decoded_is_not_kept_till_the_batch_is_full(performs):
    for make in (
        lambda decoder: make_batch(memory(), decoder, SPACE, 2, 0, 0, range(12)),
        lambda decoder: read_whole(memory(), decoder, range(12)),
    ):
        decoder = Watched(performs)
        make(decoder)
        assert decoder.kept == [0] * 12
