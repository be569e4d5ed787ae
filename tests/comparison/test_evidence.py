"""Intervals and powers against scipy's own tests, tables that everybody has, and simulated experiments."""

import math

import numpy as np
import pytest
from scipy import stats

from stec.comparison import evidence
from stec.comparison.evidence import Mean


def drawn(seed: int, n: int, shift: float = 0.0) -> list[float]:
    return list(np.random.default_rng(seed).normal(shift, 1.3, n))


@pytest.mark.parametrize("n", [2, 3, 8, 30])
def test_the_interval_of_paired_differences_is_that_of_the_paired_t_test(n):
    row, other = drawn(0, n, 0.7), drawn(1, n)
    found = evidence.paired(dict(enumerate(row)), dict(enumerate(other)))
    test = stats.ttest_rel(row, other)
    low, high = test.confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), abs=1e-12)
    assert found.differs == (test.pvalue < 0.05)
    assert found.spread == pytest.approx(np.std(np.subtract(row, other), ddof=1))


def test_only_seeds_of_both_are_paired():
    found = evidence.paired({0: 5.0, 1: 7.0, 9: 100.0}, {1: 6.0, 0: 3.0, 4: -50.0})
    assert (found.n, found.mean) == (2, 1.5)
    assert evidence.paired({0: 1.0}, {1: 2.0}) is None


def test_what_all_seeds_share_does_not_blur_a_paired_difference():
    luck = dict(enumerate(drawn(3, 6)))
    row = {seed: value + 0.5 for seed, value in luck.items()}
    found = evidence.paired(row, luck)
    assert found.half == pytest.approx(0.0, abs=1e-12)
    assert evidence.mean(list(row.values())).half > 0.5


def test_a_single_value_has_no_interval():
    assert evidence.mean([4.0]) == Mean(1, 4.0, None, None)
    assert not evidence.mean([4.0]).differs


@pytest.mark.parametrize("n", [2, 3, 5, 12, 40])
@pytest.mark.parametrize("size", [0.2, 0.8, 1.5])
def test_power_is_that_of_the_noncentral_t(n, size):
    critical, shift = stats.t.ppf(0.975, n - 1), size * math.sqrt(n)
    slow = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    slow = 1.0 if math.isnan(slow) else slow  # scipy loses the far tail of nct
    assert evidence.power(3 * size, 3.0, n) == pytest.approx(slow, abs=1e-7)


def test_power_is_how_often_an_experiment_succeeds():
    numbers = np.random.default_rng(0).normal(1.0, 1.2, (20_000, 5))
    share = (stats.ttest_1samp(numbers, 0.0, axis=1).pvalue < 0.05).mean()
    assert evidence.power(1.0, 1.2, 5) == pytest.approx(share, abs=0.01)


def test_power_at_the_ends():
    assert evidence.power(0.0, 1.0, 7) == pytest.approx(0.05)
    assert evidence.power(50.0, 1.0, 10) == pytest.approx(1.0)
    assert evidence.power(1.0, 1.0, 1) == 0.0
    assert (evidence.power(0.1, 0.0, 3), evidence.power(0.0, 0.0, 3)) == (1.0, 0.05)


# Cohen's d and pairs for a power of 80 %, as in any handbook of the paired t test.
@pytest.mark.parametrize(("d", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_the_pairs_that_are_needed_are_the_handbooks(d, pairs):
    assert evidence.needed(d, 1.0) == pairs
    assert evidence.needed(-2.5 * d, 2.5) == pairs


def test_one_pair_less_is_not_enough():
    pairs = evidence.needed(0.7, 0.9)
    assert evidence.power(0.7, 0.9, pairs) >= 0.8 > evidence.power(0.7, 0.9, pairs - 1)


def test_a_difference_that_nobody_could_find():
    assert evidence.needed(1e-4, 1.0) is None
    assert evidence.needed(0.0, 1.0) is None


@pytest.mark.parametrize("n", [2, 3, 8, 100])
def test_what_can_be_detected_is_detected_four_times_in_five(n):
    smallest = evidence.detectable(0.4, n)
    assert evidence.power(smallest, 0.4, n) == pytest.approx(0.8, abs=1e-6)
    assert evidence.detectable(0.8, n) == pytest.approx(2 * smallest)


def test_a_single_pair_detects_nothing_and_pairs_without_spread_anything():
    assert evidence.detectable(0.4, 1) is None
    assert evidence.detectable(0.0, 2) == 0.0


def test_spreads_are_pooled_by_their_degrees_of_freedom():
    one, other = drawn(5, 4), drawn(6, 9)
    found = evidence.pooled([evidence.mean(one), evidence.mean(other), evidence.mean([3.0])])
    residues = [x - np.mean(group) for group in (one, other) for x in group]
    assert found == pytest.approx(math.sqrt(np.sum(np.square(residues)) / (len(residues) - 2)))
    assert evidence.pooled([evidence.mean([3.0])]) is None


def test_gain_is_the_drop_of_a_normal_posterior():
    effect, spread = 0.5, 0.4

    def variance(n: int) -> float:
        return 1 / (1 / effect**2 + n / spread**2)

    for n in range(6):
        assert evidence.gain(effect, spread, n) == pytest.approx((variance(n) - variance(n + 1)) / effect**2)
    assert sum(evidence.gain(effect, spread, n) for n in range(2000)) == pytest.approx(1.0, abs=1e-3)


def test_the_first_pair_tells_most_and_a_large_effect_more_than_a_small_one():
    gains = [evidence.gain(0.5, 0.4, n) for n in range(5)]
    assert gains == sorted(gains, reverse=True)
    assert evidence.gain(1.3, 0.4, 0) > evidence.gain(0.5, 0.4, 0)


def test_verdicts():
    def full(found, sought, assumed):
        return evidence.verdict(found, (sought,), assumed).full

    assert full(None, 0.5, 0.42) == "cannot be seen with 0 seeds: would need 8"
    assert full(evidence.mean([0.6]), 0.5, 0.42) == "cannot be seen with 1 seed: would need 8"
    assert full(evidence.mean([0.9, 1.0, 1.1]), 0.5, 0.42) == "higher"
    assert full(evidence.mean([-0.9, -1.0, -1.1]), 0.5, 0.42) == "lower"
    few = evidence.mean([-0.4, 0.0, 0.4])
    assert full(few, 0.4, 9.0) == f"undecided: would need {evidence.needed(0.4, 0.4)}"
    assert full(few, 3.0, 9.0) == "not seen: +3 is ruled out"
    assert full(evidence.mean([-40.0, 40.0]), 0.001, 1.0).endswith("would need more than 10000")


def test_verdicts_in_few_words():
    assert evidence.verdict(None, (0.5,), 0.42).brief == "0 seeds, needs 8"
    assert evidence.verdict(evidence.mean([-0.4, 0.0, 0.4]), (0.4,), 9.0).brief == "undecided, needs 10"
    assert evidence.verdict(evidence.mean([-0.4, 0.0, 0.4]), (3.0,), 9.0).brief == "not seen"


def test_a_difference_within_the_interval_is_not_ruled_out_however_great_the_power():
    wide = Mean(5, 0.52, 0.59, 0.475)
    assert evidence.power(1.0, wide.spread, 5) > 0.8
    told = evidence.verdict(wide, (1.0,), 9.0).full
    assert told.startswith("undecided: would need ")
    seeds = int(told.split()[-1])
    half = [float(stats.t.ppf(0.975, n - 1)) * wide.spread / math.sqrt(n) for n in (seeds - 1, seeds)]
    assert half[0] >= 0.52 > half[1]  # so many leave out 0, or 1, whichever is farther from this mean
    assert seeds > 5


def test_the_sign_of_what_is_sought_counts_where_there_is_one():
    found = Mean(4, -0.6, 0.7, 0.44)
    assert evidence.verdict(found, (1.0,), None).full == "not seen: +1 is ruled out"
    assert evidence.verdict(found, (-1.0,), None).brief.startswith("undecided")
    assert evidence.verdict(found, (1.0, -1.0), None).brief.startswith("undecided")
    assert evidence.verdict(found, (1.5, -1.5), None).full == "not seen: ±1.5 is ruled out"


def test_where_nobody_says_what_would_matter_nothing_is_ruled_out():
    assert evidence.verdict(None, (), None).full == "cannot be seen with 0 seeds"
    assert evidence.verdict(Mean(4, 0.1, 0.7, 0.44), (), None).full == "undecided"
    assert evidence.verdict(Mean(4, 0.8, 0.7, 0.44), (), None).full == "higher"


def test_the_papers_own_spread_decides_its_claims_with_few_seeds():
    """Unpaired standard deviations of Table 1, R18; Figure 3A with that of CIFAR-100; STL-10 and SimCLR."""
    assert evidence.needed(1.3, math.hypot(0.3, 0.3)) <= 4
    assert evidence.needed(2.0, math.hypot(0.3, 0.4)) <= 3
    assert evidence.needed(0.5, math.hypot(0.3, 0.3)) == 8
    assert evidence.needed(0.1, math.hypot(0.4, 0.2)) > 100
