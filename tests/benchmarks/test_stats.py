"""Each interval has seen a known effect, and covers the truth as often as it says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from benchmarks.judging.stats import (
    Estimate,
    clustered_mean_interval,
    crossed_mean_interval,
    difference_p_value,
    equivalence_p_value,
    geometric_mean_ratio_interval,
    holm,
    mean_interval,
    power_law_exponent,
    power_law_slopes,
    proportion_interval,
    smallest_found,
    student_p_value,
    unweighted_slopes,
)


def coverage(draw: Callable[[np.random.Generator], Estimate], truth: float, runs: int) -> float:
    """The share of simulated intervals that contain the truth."""
    rng = np.random.default_rng(1)
    intervals = [draw(rng).interval for _ in range(runs)]
    return float(np.mean([low <= truth <= high for low, high in intervals]))


# 600 runs of a true 95 % interval: standard error 0.9 %, so 92 % to 98 % is three of them.
@pytest.mark.parametrize("level", [0.95, 0.5])
def test_students_interval_covers_the_mean_as_often_as_it_says(level: float) -> None:
    share = coverage(lambda rng: mean_interval(rng.normal(3, 2, size=6), level), 3, 600)
    assert share == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 600))


def test_students_interval_is_the_one_of_the_textbook() -> None:
    # t(0.975, 3) = 3.18245; the standard error of 1, 2, 3, 4 is sqrt(5/12).
    estimate = mean_interval([1, 2, 3, 4])
    assert estimate.value == 2.5
    assert estimate.interval[1] - 2.5 == pytest.approx(3.18245 * np.sqrt(5 / 12), rel=1e-5)
    assert estimate.n == 4


def test_clusters_of_one_are_students_interval() -> None:
    values = np.random.default_rng(2).normal(size=(200, 8))
    student = mean_interval(values.mean(axis=1))
    found = clustered_mean_interval(values, np.arange(200))
    assert (found.value, found.n) == (student.value, 200)
    assert found.interval == pytest.approx(student.interval)


def test_copies_of_a_value_inside_its_cluster_tell_nothing_new() -> None:
    values = np.random.default_rng(3).normal(size=40)
    found = clustered_mean_interval(np.repeat(values, 5), np.repeat(np.arange(40), 5))
    assert found.interval == pytest.approx(mean_interval(values).interval)
    assert found.n == 40


@pytest.mark.K10
def test_an_interval_that_keeps_neighbours_together_covers_the_mean_of_what_depends_on_them() -> (
    None
):
    """200 windows whose neighbours correlate by 0.35: in clusters of eight, and each alone."""

    def windows(rng: np.random.Generator) -> np.ndarray:
        noise, found = rng.normal(size=220), np.zeros(220)
        for at in range(1, 220):
            found[at] = 0.35 * found[at - 1] + noise[at]
        return found[20:]

    clusters = np.arange(200) // 8
    kept = coverage(lambda rng: clustered_mean_interval(windows(rng), clusters), 0, 400)
    alone = coverage(lambda rng: mean_interval(windows(rng)), 0, 400)
    assert alone < 0.88 < 0.92 <= kept


def test_clusters_of_different_sizes_cover_the_mean_as_often_as_they_say() -> None:
    clusters = np.repeat(np.arange(24), np.arange(24) % 3 + 1)

    def draw(rng: np.random.Generator) -> Estimate:
        own = rng.exponential(size=24)[clusters]
        return clustered_mean_interval(own + rng.normal(0, 0.3, size=len(own)), clusters)

    assert 0.90 <= coverage(draw, 1, 400) <= 0.98


def test_an_interval_needs_a_cluster_for_each_value_and_two_clusters() -> None:
    for clusters in ([0, 0, 0], [0, 1]):
        with pytest.raises(ValueError, match="need a cluster for each of 3 values"):
            clustered_mean_interval([1.0, 2.0, 3.0], clusters)


def test_pairing_finds_an_effect_that_the_spread_between_blocks_would_hide() -> None:
    rng = np.random.default_rng(7)
    hard = rng.normal(3, 1, size=(50, 4))
    shifted = hard + 0.01 + rng.normal(0, 0.005, size=hard.shape)
    low, high = mean_interval((shifted - hard).mean(axis=1)).interval
    assert 0 < low < 0.01 < high < 0.02
    apart = mean_interval(shifted.mean(axis=1)).interval
    assert apart[0] < mean_interval(hard.mean(axis=1)).value < apart[1]


def test_a_ratio_and_its_inverse_have_inverse_intervals() -> None:
    ratios = np.random.default_rng(9).lognormal(np.log(1.8), 0.1, size=12)
    there, back = geometric_mean_ratio_interval(ratios), geometric_mean_ratio_interval(1 / ratios)
    assert there.value == pytest.approx(1 / back.value)
    assert there.interval == pytest.approx((1 / back.interval[1], 1 / back.interval[0]))
    assert there.interval[0] < 1.8 < there.interval[1]


def exponent_of_simulated_law(
    rng: np.random.Generator, exponent: float = 1.0, family: int = 1
) -> Estimate:
    x = 2.0 ** np.arange(8)
    errors = 0.02 * x**exponent * np.linspace(0.5, 2, 8)
    return power_law_exponent(x, x**exponent + rng.normal(0, errors), errors, family=family)


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 1.0])
def test_the_interval_of_an_exponent_covers_it_as_often_as_it_says(exponent: float) -> None:
    share = coverage(lambda rng: exponent_of_simulated_law(rng, exponent), exponent, 600)
    assert 0.92 <= share <= 0.98


def test_a_family_of_exponents_is_covered_together_as_often_as_one() -> None:
    def all_five(rng: np.random.Generator) -> Estimate:
        family = [exponent_of_simulated_law(rng, family=5) for _ in range(5)]
        return max(family, key=lambda e: max(e.interval[0] - 1, 1 - e.interval[1]))

    assert 0.92 <= coverage(all_five, 1, 600) <= 0.98


def test_an_exact_law_gives_its_exponent_and_the_precise_points_count_most() -> None:
    x = np.array([1.0, 2.0, 4.0, 8.0])
    assert power_law_exponent(x, 3 * x**-0.5, 0.01 * x).value == pytest.approx(-0.5)
    bent = 3 * x**-0.5 * np.array([1, 1, 1, 2])
    assert power_law_exponent(x, bent, [1e-4, 1e-4, 1e-4, 10]).value == pytest.approx(
        -0.5, abs=1e-3
    )


def test_each_row_has_the_slope_of_its_own_law() -> None:
    x = np.array([4.0, 16, 64, 256])
    rows = np.stack([3 * x**-2, 0.1 * x**0.5, np.full(4, 7.0)])
    assert unweighted_slopes(x, rows) == pytest.approx([-2, 0.5, 0], abs=1e-12)


def test_the_scatter_of_slopes_covers_the_exponent_as_often_as_it_says() -> None:
    x = np.array([4.0, 16, 64, 256])

    def draw(rng: np.random.Generator) -> Estimate:
        # A seed's own factor, and scatter that no standard error tells of.
        y = x**-1 * np.exp(rng.normal(0, 1, (5, 1)) + rng.normal(0, 0.2, (5, 4)))
        return mean_interval(unweighted_slopes(x, y))

    assert coverage(draw, -1, 600) == pytest.approx(0.95, abs=0.027)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: mean_interval([1.0]), "need 2 values"),
        (lambda: mean_interval([1.0, np.nan]), "1 values are not finite"),
        (lambda: clustered_mean_interval(np.ones((1, 9)), [0]), "need 2 values"),
        (lambda: geometric_mean_ratio_interval([1, -1]), "positive"),
        (lambda: power_law_exponent([1, 2], [1, 2], [0, 1]), "positive"),
        (lambda: power_law_exponent([2, 2], [1, 2], [1, 1]), "all x are the same"),
        (lambda: power_law_exponent([1, 2, 3], [1, 2], [1, 1]), "3 x, 2 y"),
        (lambda: unweighted_slopes([1, 2], [[1, 2], [1, -2]]), "positive y"),
        (lambda: unweighted_slopes([2, 2], [[1, 2]]), "all x are the same"),
        (lambda: unweighted_slopes([1, 2, 3], [[1, 2]]), r"rows, 3"),
    ],
)
def test_what_cannot_give_an_interval_is_an_error(call: Callable[[], Estimate], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call()


def test_a_crossed_mean_scatters_with_seeds_and_with_blocks() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        seeds, blocks = rng.normal(0, 1.0, (6, 1)), rng.normal(0, 0.5, (1, 30))
        found = crossed_mean_interval(2.0 + seeds + blocks + rng.normal(0, 0.3, (6, 30)))
        covered += found.interval[0] <= 2.0 <= found.interval[1]
    assert 0.92 <= covered / 300 <= 1.0
    narrow = crossed_mean_interval(np.arange(30.0)[None] % 7)
    assert narrow == mean_interval(np.arange(30.0) % 7)


def test_a_crossed_mean_needs_two_blocks() -> None:
    with pytest.raises(ValueError, match="two blocks or more"):
        crossed_mean_interval([[1.0], [2.0]])


def test_many_exponents_at_once_are_those_one_by_one() -> None:
    rng = np.random.default_rng(11)
    x = 2.0 ** np.arange(6)
    y, errors = rng.uniform(1, 2, (3, 6)) / x, rng.uniform(0.01, 0.1, (3, 6)) / x
    slopes, slope_errors = power_law_slopes(x, y, errors)
    for index in range(3):
        alone = power_law_exponent(x, y[index], errors[index])
        assert slopes[index] == pytest.approx(alone.value)
        half = alone.interval[1] - alone.value
        assert slope_errors[index] * 1.959964 == pytest.approx(half, rel=1e-6)


def test_a_difference_and_an_equivalence_have_the_textbooks_p_values() -> None:
    value, error = np.array([1.0, 1.0 + 1.959964]), np.array([1.0, 1.0])
    assert difference_p_value(value, error, 1.0) == pytest.approx([1.0, 0.05], rel=1e-5)
    # In the middle of ± 1.645 standard errors: 5 % against each side; on a border: one half.
    value, error = np.array([0.0, 1.644854, 3.0]), np.ones(3)
    found = equivalence_p_value(value, error, -1.644854, 1.644854)
    assert found == pytest.approx([0.05, 0.5, 0.912], rel=1e-3)


def test_a_student_interval_that_ends_where_it_is_expected_has_a_p_value_of_its_level() -> None:
    found = mean_interval([1.0, 2.0, 4.0, 7.0])
    for end in found.interval:
        assert student_p_value(found, end) == pytest.approx(0.05)
    assert student_p_value(found, found.value) == pytest.approx(1)
    assert student_p_value(found) == pytest.approx(stats.ttest_1samp([1, 2, 4, 7], 0).pvalue)
    alike = mean_interval([2.0, 2.0, 2.0])
    assert (student_p_value(alike, 2.0), student_p_value(alike)) == (1, 0)


def test_equivalence_is_wrongly_shown_at_the_border_as_often_as_it_says_and_surely_within() -> None:
    rng, error = np.random.default_rng(12), np.array([0.1])
    at_border = equivalence_p_value(rng.normal(1, 0.1, 4000), error, -1, 1) <= 0.05
    assert at_border.mean() == pytest.approx(0.05, abs=0.01)
    within = equivalence_p_value(rng.normal(0, 0.1, 4000), error, -1, 1) <= 0.05
    assert within.all()


def test_holms_p_values_are_those_of_his_example_and_keep_their_places() -> None:
    # Ascending 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, none below the one before it.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    both = holm([[0.04, 0.01], [0.6, 0.9]])
    assert both == pytest.approx(np.array([[0.04, 0.02], [1.0, 1.0]]))


def test_a_family_by_holm_errs_as_often_as_one_test_and_sees_more_than_bonferroni() -> None:
    p_values = np.random.default_rng(13).uniform(size=(4000, 8))
    family = (holm(p_values) <= 0.05).any(axis=-1).mean()
    assert family == pytest.approx(0.05, abs=0.012)
    three = np.array([0.001, 0.02, 0.03])
    assert (holm(three) <= 0.05).sum() == 3
    assert (3 * three <= 0.05).sum() == 1


def test_a_shares_interval_is_clopper_pearsons() -> None:
    # None of n: the upper end is 1 - 0.025^(1/n).
    none = proportion_interval(0, 1000)
    assert none.interval == pytest.approx((0.0, 1 - 0.025 ** (1 / 1000)))
    assert none.n == 1000
    every = proportion_interval(1000, 1000)
    assert every.interval == pytest.approx((0.025 ** (1 / 1000), 1.0))
    assert proportion_interval(50, 1000).interval == pytest.approx((0.0373, 0.0654), abs=2e-4)


def test_a_shares_interval_covers_it_no_less_often_than_it_says() -> None:
    drawn = np.random.default_rng(14).binomial(200, 0.05, size=600)
    ends = np.array([proportion_interval(int(k), 200).interval for k in drawn])
    assert ((ends[:, 0] <= 0.05) & (ends[:, 1] >= 0.05)).mean() >= 0.94


@pytest.mark.parametrize(("n", "level"), [(5, 0.95), (10, 1 - 0.05 / 4)])
def test_the_smallest_difference_that_is_found_is_found_in_four_of_five_draws(
    n: int, level: float
) -> None:
    mean = smallest_found(0.02, n, level)
    draws = np.random.default_rng(0).normal(mean, 0.02, (20_000, n))
    errors = draws.std(axis=1, ddof=1) / np.sqrt(n)
    found = draws.mean(axis=1) > stats.t.ppf((1 + level) / 2, n - 1) * errors
    assert found.mean() == pytest.approx(0.8, abs=0.01)
