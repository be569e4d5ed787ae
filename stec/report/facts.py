"""What a report says, as plain data. Whatever is left empty leaves its section out of the page.

Legend: N pairs or samples, K bins, T points in time.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Column(NamedTuple):
    """A measure of the table. unit "%": values are shares in [0, 1]; "bits" or another unit: values are as they are.

    chance: what a guesser who sees nothing gets; most: what a perfect model gets (None: the best value in the table);
    group: what this column and its neighbours of the same group have in common, in words.
    """

    key: str
    label: str
    unit: str = "%"
    chance: float | None = None
    most: float | None = 1.0
    group: str = ""


class Pair(NamedTuple):
    """Two views of one sample. picture: PNG; action and predicted: what was done, and what the model says, in words."""

    picture: bytes
    action: str
    predicted: str = ""


class Predicted(NamedTuple):
    """One action component over N held-out pairs. true, predicted: bin numbers int [N], 0..K-1; edges [K-1], ascending.

    bits: how many bits of the component the model reads, if measured; meaning: the component in a few words, unit and
    all, instead of its bare unit.
    """

    name: str
    unit: str
    edges: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    bits: float | None = None
    meaning: str = ""


class Curve(NamedTuple):
    """A metric over the run: steps int [T], values float [T]; NaN leaves a gap in the line."""

    steps: np.ndarray
    values: np.ndarray


class Map(NamedTuple):
    """Embeddings in two dimensions: places float [N, 2]; labels int [N] (-1: unknown); classes: names by label;
    method: how the two dimensions were made, in words; title: whose embeddings these are, if there are several maps;
    coloured: the only labels with a colour of their own, the rest is grey (None: all have one)."""

    places: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...] = ()
    method: str = ""
    title: str = ""
    coloured: tuple[int, ...] | None = None


class Command(NamedTuple):
    """A line to type next, and what for."""

    purpose: str
    line: str


class Facts(NamedTuple):
    """A whole report.

    name: of the run; trained: one sentence, what was trained; details: {"encoder": "ResNet-18", "seed": "0", ...};
    objective: the line of `STEC.describe`; warnings: what a reader must know before the numbers (collapse, a control);
    columns and rows {name: {column key: value}}: the table, its last row the trained model, with protocol {what: how it
    was measured, in words} under it;
    pairs, predicted, curves {metric: Curve} with chance {metric: level}, maps, commands: one section each;
    pairs_from, predicted_from: which pairs these are, in words.
    """

    name: str
    trained: str
    details: Mapping[str, str] = {}
    objective: str = ""
    warnings: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    rows: Mapping[str, Mapping[str, float]] = {}
    protocol: Mapping[str, str] = {}
    pairs: tuple[Pair, ...] = ()
    pairs_from: str = ""
    predicted: tuple[Predicted, ...] = ()
    predicted_from: str = ""
    curves: Mapping[str, Curve] = {}
    chance: Mapping[str, float] = {}
    maps: tuple[Map, ...] = ()
    commands: tuple[Command, ...] = ()
