"""Every interval of data that are constant, or nearly so, is finite and as narrow as they are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.instruments.readings import Reading
from benchmarks.judging.stats import (
    Array,
    Estimate,
    clustered_mean_interval,
    crossed_mean_interval,
    geometric_mean_ratio_interval,
    holm,
    mean_interval,
    power_law_exponent,
    unweighted_slopes,
)

pytestmark = pytest.mark.K7

PAIRS = np.arange(40) // 2
X = np.array([1.0, 2.0, 4.0, 8.0, 16.0])

# What each says of numbers (40,) that are all as good as `level`: the estimate, and its true value.
INTERVALS: dict[str, Callable[[Array, float], tuple[Estimate, float]]] = {
    "mean": lambda y, level: (mean_interval(y), level),
    "clusters": lambda y, level: (clustered_mean_interval(y, PAIRS), level),
    "clusters of blocks": lambda y, level: (
        clustered_mean_interval(y.reshape(20, 2), PAIRS[:20]),
        level,
    ),
    "crossed": lambda y, level: (crossed_mean_interval(y.reshape(4, 10)), level),
    "one seed": lambda y, level: (crossed_mean_interval(y[None]), level),
    "geometric mean": lambda y, level: (geometric_mean_ratio_interval(y), level),
    "scatter of exponents": lambda y, level: (
        mean_interval(unweighted_slopes(X, y.reshape(8, 5))),
        0.0,
    ),
    "exponent": lambda y, level: (power_law_exponent(X, y[:5], np.spacing(y[:5])), 0.0),
}
LEVELS = (1e-300, 0.1, 1.0, 1e12)
ROUNDING = 1e-12  # of a thousand units in the last place, and of a log of 690


@pytest.mark.parametrize("ulps", [0, 1, 16, 1000])
@pytest.mark.parametrize("name", INTERVALS)
def test_an_interval_of_nearly_constant_data_is_of_the_width_of_rounding(
    name: str, ulps: int
) -> None:
    rng = np.random.default_rng(0)
    for level in LEVELS:
        data = level + np.spacing(level) * rng.integers(0, ulps + 1, 40)
        found, truth = INTERVALS[name](data, level)
        low, high = found.interval
        for each in (low, found.value, high):
            assert each == pytest.approx(truth, rel=ROUNDING, abs=0 if truth else ROUNDING)
        assert low <= high


@pytest.mark.parametrize("name", INTERVALS)
def test_an_interval_of_data_with_one_that_differs_is_finite(name: str) -> None:
    for other in (1.0 + 1e-15, 1.0 + 1e-9, 1.5):
        data = np.ones(40)
        data[3] = other
        found, _ = INTERVALS[name](data, 1.0)
        assert found.interval[0] <= found.value <= found.interval[1]


def test_a_difference_that_is_the_same_but_for_rounding_is_found() -> None:
    for seed in range(20):
        b = np.random.default_rng(seed).normal(size=40)
        found = clustered_mean_interval((b + 1.0) - b, PAIRS)
        assert (found.value, *found.interval) == pytest.approx((1.0, 1.0, 1.0), abs=1e-15)


def test_an_estimate_that_is_not_finite_is_refused() -> None:
    for value, low, high in ((math.nan, 0, 1), (0.5, -math.inf, 1), (0.5, 0, math.nan)):
        with pytest.raises(ValueError, match="is no estimate: not finite"):
            Estimate(value, (low, high), 3)


def test_a_p_value_that_is_no_number_is_refused_and_not_a_test_that_passes() -> None:
    with pytest.raises(ValueError, match="1 of 3 p values are NaN"):
        holm([0.01, math.nan, 0.2])


def test_a_reading_that_is_no_number_is_refused() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"NVML device gave {value} W: no measurement"):
            Reading(value, "W", "NVML device")


def test_numbers_too_large_to_be_added_up_are_refused() -> None:
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="not finite"):
        mean_interval([1e308, 1.5e308, 1.6e308])
