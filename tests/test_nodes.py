"""A node of the configuration against a signature: what fits is converted, what does not is one sentence."""

import dataclasses

import pytest

from stec.errors import UsageError
from stec.nodes import checked, keywords


class Part:
    def __init__(
        self,
        dims: dict[str, int],
        *,
        needed: int,
        rate: float = 0.1,
        on: bool = False,
        kind: str = "a",
        most: int | None = None,
        scale: list[float] | None = None,
    ):
        self.options = (needed, rate, on, kind, most, scale)


class Bare:
    """No options at all."""


@dataclasses.dataclass(kw_only=True)
class Options:
    epochs: int
    rate: float = 0.5


def a_function(space: object, *, size: int = 3) -> None: ...


def test_keys_are_the_keyword_only_parameters_in_order():
    assert list(keywords(Part)) == ["needed", "rate", "on", "kind", "most", "scale"]
    assert list(keywords(Options)) == ["epochs", "rate"]
    assert list(keywords(a_function)) == ["size"]
    assert keywords(Bare) == {}


def test_what_fits_is_handed_on_and_only_that():
    node = {"needed": 3, "rate": 1, "on": True, "kind": "b", "most": None, "scale": (1, 2.5)}
    found = checked(Part, node, "part")
    assert found == {"needed": 3, "rate": 1.0, "on": True, "kind": "b", "most": None, "scale": [1.0, 2.5]}
    assert isinstance(found["rate"], float)
    assert all(isinstance(number, float) for number in found["scale"])
    assert checked(Part, {"needed": "7", "most": 2}, "part") == {"needed": 7, "most": 2}
    assert checked(Options, {"epochs": 2}, "training") == {"epochs": 2}
    assert checked(a_function, {"size": 5}, "f") == {"size": 5}
    assert checked(Bare, {}, "bare") == {}


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        ({"needed": 1, "rat": 1}, "part.rat is unknown: did you mean 'rate'? There is: kind, most, "),
        ({"needed": 1, "dims": {}}, "part.dims is unknown: "),
        ({}, "part.needed is missing: int is needed."),
        ({"needed": "???"}, "part.needed is missing: int is needed."),
        ({"needed": 1, "rate": "???"}, "part.rate is missing: float is needed."),
        ({"needed": 1.5}, "part.needed=1.5 has the wrong type: int was expected."),
        ({"needed": True}, "part.needed=True has the wrong type: int was expected."),
        ({"needed": None}, "part.needed=None has the wrong type: int was expected."),
        ({"needed": "many"}, "part.needed='many' has the wrong type: int was expected."),
        ({"needed": 1, "rate": [0.1]}, "part.rate=[0.1] has the wrong type: float was expected."),
        ({"needed": 1, "rate": 10**400}, " has the wrong type: float was expected."),
        ({"needed": 1, "on": "maybe"}, "part.on='maybe' has the wrong type: bool was expected."),
        ({"needed": 1, "kind": None}, "part.kind=None has the wrong type: str was expected."),
        ({"needed": 1, "kind": {"x": 1}}, "part.kind={'x': 1} has the wrong type: str was expected."),
        ({"needed": 1, "most": "x"}, "part.most='x' has the wrong type: int | None was expected."),
        ({"needed": 1, "scale": 3}, "part.scale=3 has the wrong type: list[float] | None was expected."),
        ({"needed": 1, "scale": ["x"]}, "part.scale=['x'] has the wrong type: list[float] | None was expected."),
        ({"needed": 1, "scale": [0.5, [1.0]]}, "part.scale[1]=[1.0] has the wrong type: float was expected."),
        ({"needed": 1, "rate": "${nowhere}"}, "part.rate='${nowhere}' has the wrong type: float was expected."),
        (None, "part=None has the wrong type: a group of keys was expected."),
        ("needed", "part='needed' has the wrong type: a group of keys was expected."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(node, sentence):
    with pytest.raises(UsageError) as caught:
        checked(Part, node, "part")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_at_the_top_a_key_stands_alone():
    with pytest.raises(UsageError, match=r"^needed='many' has the wrong type: int was expected\.$"):
        checked(Part, {"needed": "many"}, "")


def test_a_class_without_options_says_so():
    with pytest.raises(UsageError, match=r"bare\.size is unknown: There is: nothing"):
        checked(Bare, {"size": 1}, "bare")
