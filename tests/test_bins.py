import math

import pytest
import torch
import torch.nn.functional as F

from stec.actions import Component
from stec.bins import Bins, constant
from stec.errors import UsageError
from stec.frames import published


def fitted(values: torch.Tensor, component: Component, kind: str = "equal_mass", num_bins: int = 6) -> Bins:
    return Bins(
        [component], values[:, None], torch.ones(len(values), 1, dtype=torch.bool), kind=kind, num_bins=num_bins
    )


def grid(low: float, high: float, num: int = 6001) -> torch.Tensor:
    return torch.linspace(low, high, num, dtype=torch.float64)


def test_equal_mass_of_a_uniform_law_is_a_uniform_grid_with_chance_ln_k():
    bins = fitted(grid(0, 6), Component("c", "s"))
    assert torch.allclose(bins.edges, torch.tensor([[1.0, 2, 3, 4, 5]], dtype=torch.float64), atol=2e-3)
    assert torch.allclose(bins.centres, torch.tensor([[0.5, 1.5, 2.5, 3.5, 4.5, 5.5]], dtype=torch.float64), atol=2e-3)
    assert bins.chance.item() == pytest.approx(math.log(6), abs=1e-5)
    assert bins.majority.item() == pytest.approx(1 / 6, abs=1e-3)


def test_every_value_has_the_bin_between_whose_edges_it_lies():
    bins = fitted(grid(-2, 5) ** 3, Component("c", "s"))
    values = grid(-50, 300, 997)
    number = bins.assign(values[:, None])[:, 0]
    edges = torch.cat([torch.tensor([-torch.inf]), bins.edges[0], torch.tensor([torch.inf])])
    assert (edges[number] < values).all()
    assert (values <= edges[number + 1]).all()


def test_an_atom_on_a_quantile_falls_on_one_side_in_any_precision():
    ratios = (torch.arange(1, 33, dtype=torch.float64)[:, None] / torch.arange(1, 33, dtype=torch.float64)).flatten()
    bins = fitted(ratios, Component("c", "1"))
    assert torch.equal(bins.assign(ratios[:, None]), bins.assign(ratios[:, None].float()))
    noisy = ratios * (1 + 2e-7 * torch.linspace(-1, 1, len(ratios), dtype=torch.float64))
    assert torch.equal(bins.assign(ratios[:, None]), bins.assign(noisy[:, None]))


def test_an_edge_stands_in_the_middle_of_a_gap():
    both = torch.cat([-1 - torch.rand(1000, generator=torch.Generator().manual_seed(0)).double(), grid(1, 2, 1010)])
    bins = fitted(both, Component("c", "1"), num_bins=2)
    assert bins.edges.item() == pytest.approx(0, abs=0.01)


def test_heavy_atoms_give_fewer_bins_and_no_empty_one():
    values = torch.tensor([0.0] * 70 + [1.0] * 20 + [2.0] * 10, dtype=torch.float64)
    bins = fitted(values, Component("c", "1"))
    assert bins.num_bins.tolist() == [3]
    assert torch.bincount(bins.assign(values[:, None])[:, 0]).tolist() == [70, 20, 10]
    assert bins.exists().tolist() == [[True, True, True]]


@pytest.mark.parametrize("rare", [0.02, 0.1, 0.3])
def test_what_is_rarer_than_a_heavy_atom_has_its_own_bin_on_either_side(rare):
    low, high = round(1000 * rare), 1000 - round(1000 * rare)
    for masses in ((low, high), (high, low)):
        values = torch.tensor([0.0] * masses[0] + [1.0] * masses[1], dtype=torch.float64)
        bins = fitted(values, Component("c", "1"))
        assert torch.bincount(bins.assign(values[:, None])[:, 0]).tolist() == list(masses)


@pytest.mark.parametrize("kind", ["equal_mass", "uniform", "log"])
def test_levels_get_one_bin_each_and_periods_equal_arcs(kind):
    speed = Component("speed", "1", levels=(0.9, 1.0, 1.1))
    angle = Component("angle", "rad", period=2 * math.pi)
    values = torch.stack(
        [torch.tensor([0.9, 1.0, 1.1]).double().repeat(2000), grid(-3 * math.pi, 3 * math.pi, 6000)], 1
    )
    bins = Bins([speed, angle], values, torch.ones_like(values, dtype=torch.bool), kind=kind, num_bins=4)
    assert bins.num_bins.tolist() == [3, 4]
    assert torch.isinf(bins.edges[0, 2])
    assert torch.allclose(bins.edges[1], torch.tensor([-math.pi / 2, 0, math.pi / 2], dtype=torch.float64))
    assert torch.allclose(bins.chance, torch.tensor([3.0, 4.0], dtype=torch.float64).log(), atol=1e-5)
    turned = values + torch.tensor([0, 4 * math.pi])
    same = (bins.assign(turned) == bins.assign(values)).double().mean(dim=0)
    assert same[0] == 1
    assert same[1] > 0.999


def test_uniform_takes_the_declared_range_or_the_outer_quantiles():
    ranged = fitted(grid(0, 1), Component("c", "s", low=-3, high=3), kind="uniform")
    assert torch.allclose(ranged.edges, torch.tensor([[-2.0, -1, 0, 1, 2]], dtype=torch.float64))
    outer = fitted(grid(0, 1000, 100001), Component("c", "s"), kind="uniform", num_bins=2)
    assert outer.edges.item() == pytest.approx(500, abs=0.1)
    assert torch.isfinite(ranged.centres).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_log_bins_of_one_sign_are_a_geometric_series_between_the_outer_quantiles(sign):
    """Between e^0 and e^6 the log-uniform law has equal mass in parts of equal ratio."""
    draws = sign * grid(0, 6, 100001).exp()
    bins = fitted(draws, Component("c", "s"), kind="log")
    low, high = 0.03, 5.97  # .5 % and 99.5 % of the way
    expected = (low + (high - low) * torch.arange(1, 6) / 6).double()
    edges = (sign * bins.edges[0]).log()
    torch.testing.assert_close(edges if sign > 0 else edges.flip(0), expected, rtol=0, atol=1e-3)
    assert bins.chance.item() == pytest.approx(math.log(6), abs=1e-3)


@pytest.mark.parametrize("num_bins", [2, 3, 6, 7, 8])
def test_log_bins_of_both_signs_are_symmetric_about_zero_and_every_one_is_hit(num_bins):
    draws = grid(-8, 8, 40001)
    bins = fitted(draws, Component("c", "half-windows"), kind="log", num_bins=num_bins)
    edges = bins.edges[0]
    assert torch.equal(edges, -edges.flip(0))
    assert (0.0 in edges.tolist()) == (num_bins % 2 == 0)
    parts = (num_bins + 1) // 2
    low, high = 8 * 0.005, 8 * 0.995  # of magnitudes, which are uniform between 0 and 8
    expected = [low * (high / low) ** (j / parts) for j in range(1, parts)]
    torch.testing.assert_close(edges[edges > 0], torch.tensor(expected).double(), rtol=2e-3, atol=0)
    number = bins.assign(draws[:, None])[:, 0]
    assert (number.diff() >= 0).all()
    assert torch.equal(number.unique(), torch.arange(num_bins))
    assert bins.assign(torch.tensor([[-1e9], [1e9]]))[:, 0].tolist() == [0, num_bins - 1]


def test_log_bins_are_a_matter_of_ratios_and_zeros_tell_nothing_of_them():
    values = torch.cat([grid(-3, 5) ** 3, torch.zeros(5000).double()])
    one, ten = (fitted(values * scale, Component("c", "s"), kind="log", num_bins=9) for scale in (1, 10))
    torch.testing.assert_close(10 * one.edges, ten.edges)
    torch.testing.assert_close(fitted(values[:6001], Component("c", "s"), kind="log", num_bins=9).edges, one.edges)


def test_published_is_the_release():
    components = [Component("linear_xx", "1"), Component("translation_x", "1")]
    values = torch.stack([grid(-3, 3), grid(-1, 1)], 1)
    bins = Bins(components, values, torch.ones_like(values, dtype=torch.bool), kind="published", num_bins=6)
    expected = published.assign(values, published.limits(["linear_xx", "translation_x"]), 6)
    assert torch.equal(bins.assign(values), expected)
    assert torch.allclose(bins.edges[1], torch.tensor([-2, -1, 0, 1, 2], dtype=torch.float64) / 6)
    assert bins.assign(torch.zeros(1, 2)).tolist() == [[2, 2]]


@pytest.mark.parametrize("name", ["centre_x", "quarter_turn", "linear"])
def test_published_bins_are_of_the_entries_of_a_matrix_only(name):
    components = [Component("linear_xx", "1"), Component(name, "1")]
    values = torch.stack([grid(-3, 3), grid(-1, 1)], 1)
    with pytest.raises(UsageError, match=f"bins=published has no support for the component {name}, only for linear_"):
        Bins(components, values, torch.ones_like(values, dtype=torch.bool), kind="published", num_bins=6)


def test_constant_components_are_found_among_valid_draws():
    values = torch.tensor([[1.0, 0.0, 5.0], [1.0 + 1e-9, 1.0, 5.0], [1.0, 2.0, 9.0]], dtype=torch.float64)
    valid = torch.tensor([[True] * 3, [True] * 3, [True, True, False]])
    assert constant(values, valid).tolist() == [True, False, True]


# -- noisy copies ------------------------------------------------------------------------------------------------------

PERIOD = 4.0
# Called as the published bins want it.
MIXED = (
    Component("linear_plain", "s"),
    Component("linear_circular", "rad", low=0.0, high=PERIOD, period=PERIOD),
    Component("linear_level", "1", levels=(0.0, 1.0, 2.0)),
    Component("linear_still", "s"),
)


def mixed(noise: float, kind: str = "equal_mass") -> tuple[Bins, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(4000, 4, generator=generator).double()
    values = torch.stack([values[:, 0] ** 2, PERIOD * values[:, 1], (3 * values[:, 2]).floor(), values[:, 3] * 0], 1)
    return Bins(MIXED, values, torch.ones_like(values) > 0, kind=kind, num_bins=4, noise=noise), values


@pytest.mark.parametrize("kind", ["equal_mass", "uniform", "published"])
@pytest.mark.parametrize("noise", [0.05, 0.5, 3.0])
def test_the_masses_of_a_noisy_copy_are_its_frequencies(kind, noise):
    bins, values = mixed(noise, kind)
    some, num = values[:6], 40_000
    masses = bins.masses(some)
    assert masses.shape == (6, 4, bins.edges.shape[1] + 1)
    torch.testing.assert_close(masses.sum(dim=2), torch.ones(6, 4).double())
    assert masses[~bins.exists().expand(6, -1, -1)].abs().sum() == 0
    noisy = torch.randn(num, 6, 4, generator=torch.Generator().manual_seed(1)).double() * values.std(0, correction=0)
    noisy = some + noise * noisy * torch.tensor([1, 1, 0, 0])
    number = bins.assign(noisy.flatten(0, 1)).view(num, 6, 4)
    frequencies = F.one_hot(number, masses.shape[2]).double().mean(dim=0)
    assert (frequencies - masses).abs().max() < 4 * 0.5 / math.sqrt(num)


def test_exact_components_stay_in_their_bins():
    bins, values = mixed(0.5)
    assert (bins.sigma > 0).tolist() == [True, True, False, False]
    hard = F.one_hot(bins.assign(values), bins.edges.shape[1] + 1).double()
    assert torch.equal(bins.masses(values)[:, 2:], hard[:, 2:])


def test_without_noise_the_masses_are_the_bins_and_with_little_nearly_so():
    (none, values), (little, _) = mixed(0.0), mixed(1e-9)
    hard = F.one_hot(none.assign(values), none.edges.shape[1] + 1).double()
    assert torch.equal(none.masses(values), hard)
    assert (little.masses(values) - hard).abs().amax(dim=(1, 2)).median() == 0
    torch.testing.assert_close(little.chance, none.chance, atol=1e-6, rtol=0)
    assert little.floor.max() < 1e-6
    assert {*little.state_dict()} - {*none.state_dict()} == {"sigma", "floor"}


def test_much_noise_leaves_the_ends_of_a_line_and_all_of_a_circle():
    masses = mixed(1e6)[0].masses(mixed(0.0)[1][:5])
    torch.testing.assert_close(masses[:, 0], torch.tensor([[0.5, 0, 0, 0.5]]).double().expand(5, -1), atol=1e-5, rtol=0)
    masses = mixed(20.0)[0].masses(mixed(0.0)[1][:5])
    torch.testing.assert_close(masses[:, 1], torch.full((5, 4), 0.25).double(), atol=1e-9, rtol=0)


def test_what_a_noisy_copy_tells_lies_between_its_floor_and_its_chance():
    bins, values = mixed(0.3)
    masses = bins.masses(values)
    torch.testing.assert_close(bins.floor, torch.special.entr(masses).sum(dim=2).mean(dim=0))
    torch.testing.assert_close(bins.chance, torch.special.entr(masses.mean(dim=0)).sum(dim=1))
    assert (bins.floor[:2] > 0.1).all()
    assert (bins.floor <= bins.chance + 1e-12).all()
    told = [mixed(noise)[0] for noise in (0.0, 0.1, 1.0)]
    bits = torch.stack([b.chance[:2] - b.floor[:2] for b in told])
    assert (bits.diff(dim=0) < 0).all()


@pytest.mark.parametrize("noise", [-0.1, math.inf, math.nan])
def test_noise_has_a_range(noise):
    with pytest.raises(UsageError, match=r"manipulation\.binned\.noise="):
        mixed(noise)


def test_bad_input_is_told_in_a_sentence():
    with pytest.raises(UsageError, match="equal_mass, uniform, published, log"):
        fitted(grid(0, 1), Component("c", "s"), kind="quantile")
    with pytest.raises(UsageError, match="at least 2"):
        fitted(grid(0, 1), Component("c", "s"), num_bins=1)
    with pytest.raises(UsageError, match="no valid draw"):
        Bins([Component("c", "s")], torch.zeros(4, 1), torch.zeros(4, 1, dtype=torch.bool), kind="uniform", num_bins=3)
