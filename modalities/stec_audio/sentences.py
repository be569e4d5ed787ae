"""Sentences to be read aloud, from word lists of our own: sense is not asked for, all sounds of English are."""

from collections.abc import Iterator

import numpy as np

from stec.rng import uniform


def _listed(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split(",")]


PERSONS = _listed("""
    the teacher, my father, her brother, the judge, a thief, the whole choir, our neighbour, the young baker, a
    tall sailor, the old fisherman, her cousin Joyce, the French nurse, a child, the king, Doctor Young, George,
    your mother, the boy, a foolish youth, the author, Mister Hughes, the third guest, every farmer, a good cook
""")

THINGS = _listed("""
    yellow umbrella, silver watch, azure vase, heavy box, wooden chair, new guitar, cheap treasure, round
    mirror, leather shoe, huge oyster, broken bottle, thick book, white feather, little engine, brown bear,
    usual newspaper, warm jacket, large fish, sharp knife, frozen juice, bright fire, pure gold ring, noisy
    machine, first picture, short poem, purple cushion, square table, paper ship, empty garage, quiet donkey,
    sour cherry pie, smooth pebble, dusty carpet, valuable map, loud voice, beige coat, jar of honey, cup of
    tea, bag of flour, tune
""")

VERBS = _listed("""
    saw, found, carried, heard, chose, bought, gave away, measured, dropped, enjoyed, pushed, hid, loved,
    watched, would sketch, took, borrowed, lost, threw, could hear, never mentioned, joined, forgot, washed
""")

PLACES = _listed("""
    near the river, behind the church, in the garden, on the bridge, under the oak, at the seashore, without a
    sound, by the southern gate, over the valley, beside the pool, with great pleasure, in the dark wood,
    through the fog, across the field, for an hour, around the house, in the village, before the storm, on the
    beach, with both hands, above the cloud, at the airport, beyond our vision, down the path
""")

TIMES = _listed("""
    Yesterday, At noon, Every Thursday, In the morning, After the show, Once a year, Last week, By chance, Long
    ago, Before dawn, On Sunday, Then
""")

CLAUSES = _listed("""
    and then went home, but nobody laughed, while it rained, and sang about it, because she asked, though it was
    late, and thought of you, as we all know, until the bell rang, and felt very proud, to his surprise, and
    nothing else
""")

_ARTICLES = ("the", "a", "this", "that", "his", "our", "their", "another")

_SHAPES = (
    (PERSONS, VERBS, _ARTICLES, THINGS, PLACES),
    (TIMES, ",", PERSONS, VERBS, _ARTICLES, THINGS),
    (PERSONS, VERBS, _ARTICLES, THINGS, ",", CLAUSES),
)


def sentences(seed: int) -> Iterator[str]:
    """Endless: sentence i is a function of (seed, i). Some come twice; there are more than half a million."""
    number = 0
    while True:
        draws = uniform(np.array([[seed, 0, number]], np.int64), 0, "sentences", 8)[0]
        shape = _SHAPES[int(draws[0] * len(_SHAPES))]
        words = [
            part if isinstance(part, str) else part[int(draw * len(part))]
            for part, draw in zip(shape, draws[1:], strict=False)
        ]
        text = " ".join(words).replace(" ,", ",") + "."
        for vowel in "aeio":
            text = text.replace(f" a {vowel}", f" an {vowel}")
        yield text[0].upper() + text[1:]
        number += 1
