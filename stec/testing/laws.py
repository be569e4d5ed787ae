"""What is promised of the efference copies of an action space: its laws, its mask, its bins.

Legend: B pairs, K components, d dimensions of the signal.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from stec import affine
from stec.actions import Component, Relative
from stec.bins import Bins, constant
from stec.testing.fault import Skip, require
from stec.testing.spaces import MANY, Space

_NEAR = 1e-3


def nothing_to_itself(one: Space) -> None:
    """relative(a, a) is one and the same "nothing" for every a; the identity, for affine windows of an ego frame."""
    copy = _copies(one, one.draw(MANY), one.draw(MANY))
    names = [c.name for c in one.space.components]
    axes = ego_axes(one.space.components)
    if axes:
        neutral = affine.entries(affine.identity(len(axes))).to(copy.values)
    else:  # what is nothing is for the space to choose, but it is one thing
        rows = copy.valid.all(dim=1)
        neutral = copy.values[rows][0] if rows.any() else torch.zeros(len(names))
    wrong = ((copy.values - neutral).abs() > _NEAR * neutral.abs().clamp(min=1)) & copy.valid
    for i, name in enumerate(names):
        sentence = (
            f"`relative(a, a)` tells {name} = {_first(copy.values[:, i], wrong[:, i])}: from an action to itself it is"
            f" {float(neutral[i]):g}, whatever the action."
        )
        require(not wrong[:, i].any(), sentence)


def group_law(one: Space) -> None:
    """In the ego frame E13 = E12 E23 and E21 is the inverse of E12."""
    axes = ego_axes(one.space.components)
    if axes is None:
        _copies(one, one.draw(1), one.draw(1))
        raise Skip(
            "its components are not those of an affine window in the ego frame (stec.affine.entry_names, translations"
            " in half-windows), so no law is known for them"
        )
    a, b, c = (one.draw(MANY, view) for view in range(3))
    each = {pair: _copies(one, *pair_of) for pair, pair_of in {"12": (a, b), "23": (b, c), "13": (a, c)}.items()}
    each["21"] = _copies(one, b, a)
    whole = torch.stack([copy.valid.all(dim=1) for copy in each.values()]).all(dim=0)
    require(bool(whole.any()), f"of {MANY} triples of actions none has all its copies valid: nothing can be learnt.")
    e = {pair: _matrices(copy.values[whole], len(axes)) for pair, copy in each.items()}
    apart = _apart(e["21"] @ e["12"], affine.identity(len(axes)).expand_as(e["12"]), e["21"], e["12"])
    require(
        apart < _NEAR,
        f"E21 is not the inverse of E12 (they are {apart:.1%} off): the way back must undo the way there. In the ego"
        " frame E12 = inv(A1) A2, where view v samples its source at p = A_v u.",
    )
    apart = _apart(e["12"] @ e["23"], e["13"], e["12"], e["23"])
    require(apart < _NEAR, f"E13 is not E12 E23 (they are {apart:.1%} off): two steps must make the whole way.")


def values_are_what_the_components_say(one: Space) -> None:
    """Valid values are finite, within their component's range, and among its levels if it has some."""
    copy = _copies(one, one.draw(MANY), one.draw(MANY, view=1))
    for i, component in enumerate(one.space.components):
        values = copy.values[copy.valid[:, i], i].double()
        require(len(values) > 0, f"{component.name} is valid for none of {MANY} pairs: it cannot be learnt.")
        require(bool(values.isfinite().all()), f"{component.name} is not finite, and yet `valid` calls it so.")
        if component.period == 0:
            out = (values < component.low - 1e-4) | (values > component.high + 1e-4)
            stray = f"{component.name} = {_first(values, out)} lies outside {component.low:g} to {component.high:g}."
            require(not out.any(), stray)
        if component.levels:
            levels = torch.tensor(component.levels, dtype=torch.float64)
            odd = (values[:, None] - levels).abs().amin(dim=1) > 1e-4
            require(
                not odd.any(), f"{component.name} = {_first(values, odd)} is none of its levels {component.levels}."
            )


def every_bin_is_hit(one: Space) -> None:
    """Bins of equal mass, fitted on some draws, are all hit by other draws; at least one component is not constant."""
    fit = _copies(one, one.draw(MANY), one.draw(MANY, view=1))
    if any(not fit.valid[:, i].any() for i in range(fit.valid.shape[1])):
        raise Skip("a component is valid for no pair")
    live = ~constant(fit.values.double(), fit.valid)
    require(bool(live.any()), "all components are constant: with these options there is nothing to predict.")
    components = [c for c, alive in zip(one.space.components, live.tolist(), strict=True) if alive]
    bins = Bins(components, fit.values[:, live].double(), fit.valid[:, live], kind="equal_mass", num_bins=6)
    other = _copies(one, one.draw(MANY, seed=1), one.draw(MANY, view=1, seed=1))
    numbers = bins.assign(other.values[:, live].double().nan_to_num())
    for i, component in enumerate(components):
        hit = numbers[other.valid[:, live][:, i], i].bincount(minlength=int(bins.num_bins[i]))
        sentence = (
            f"of the {int(bins.num_bins[i])} bins of {component.name}, {int((hit == 0).sum())} are hit by none of"
            f" {MANY} pairs, though others hit them: are its draws independent of the seed of their keys?"
        )
        require(bool((hit > 0).all()), sentence)


CHECKS: tuple[Callable[[Space], None], ...] = (
    nothing_to_itself,
    group_law,
    values_are_what_the_components_say,
    every_bin_is_hit,
)


def ego_axes(components: tuple[Component, ...]) -> str | None:
    """The axes ("xy", "t") of an affine window told in the ego frame, known by the names and units of its components;
    None for any other space."""
    moves = [c for c in components if c.name.startswith("translation_")]
    axes = "".join(c.name.removeprefix("translation_") for c in moves)
    if not axes or any(c.unit != "half-windows" for c in moves):
        return None
    return axes if [c.name for c in components] == affine.entry_names(axes) else None


def _copies(one: Space, a: Tensor, b: Tensor) -> Relative:
    if not one.space.components:
        raise Skip("a nuisance: there is nothing to predict")
    copy: Relative = one.space.relative(a, b)
    if {copy.values.shape, copy.valid.shape} != {(len(a), len(one.space.components))}:
        raise Skip("its copies do not have the shape that they should have")
    return copy


def _matrices(values: Tensor, dimension: int) -> Tensor:
    rows = values.double().view(-1, dimension, dimension + 1)
    return affine.homogeneous(rows[..., :-1], rows[..., -1])


def _apart(found: Tensor, wanted: Tensor, *factors: Tensor) -> float:
    """The largest difference of matrices, as a share of the norms of the factors that one of them is made of."""
    scale = torch.stack([f.norm(dim=(1, 2)) for f in factors]).prod(dim=0)
    return float(((found - wanted).norm(dim=(1, 2)) / scale).max())


def _first(values: Tensor, wrong: Tensor) -> str:
    return f"{float(values[wrong][0]):g}" if wrong.any() else ""
