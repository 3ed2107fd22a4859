"""Intervals and tests for what the suite measures; scipy does the statistics.

A verdict on an equivalence ("no difference", "the exponent is -1") needs no p value: a 95 %
interval inside the region is the same as two one-sided tests at 2.5 %. The p values are for checks
whose error rates are measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value, its confidence interval, and the number of independent observations behind it.

    Raises ValueError where one of them is not finite.
    """

    value: float
    interval: tuple[float, float]
    n: int
    population: str | None = None  # what the interval speaks of, where its unit does not say so

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.value, *self.interval))):
            raise ValueError(f"{self.value} within {self.interval} is no estimate: not finite")

    def of(self, population: str) -> Estimate:
        return replace(self, population=population)


def mean_interval(samples: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of independent, roughly normal ``samples`` (n,), with Student's interval."""
    from scipy import stats

    values = _finite(samples, "samples", least=2)
    mean, n = float(values.mean()), len(values)
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * stats.sem(values))
    return Estimate(mean, (mean - half, mean + half), n)


def clustered_mean_interval(
    values: ArrayLike, clusters: ArrayLike, level: float = 0.95
) -> Estimate:
    """Mean of ``values``, (n,) or (n, values of each), that are alike within a cluster.

    ``clusters`` (n,) says which belong together; only clusters count as independent, so that they
    are ``n`` and, less one, the degrees of freedom of Student's interval. They may differ in size
    (the linearised variance of a ratio: Cameron and Miller 2015, A Practitioner's Guide to
    Cluster-Robust Inference, section II). What sets texts apart counts as scatter, too.
    """
    from scipy import stats

    table = np.asarray(values, dtype=np.float64)
    flat = _finite(table if table.ndim == 1 else table.mean(axis=1), "values", least=2)
    mean, (error, n) = float(flat.mean()), _clustered_error(flat, clusters)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    return Estimate(mean, (mean - half, mean + half), n)


def _clustered_error(values: Array, clusters: ArrayLike) -> tuple[float, int]:
    """Standard error of the mean of ``values`` (n,), and how many clusters there are."""
    labels, index = np.unique(clusters, return_inverse=True)
    n = len(labels)
    if index.shape != values.shape or n < 2:
        raise ValueError(f"need a cluster for each of {len(values)} values, and two at least")
    sums = np.bincount(index, values - values.mean())
    return math.sqrt(n / (n - 1) * (sums @ sums)) / len(values), n


def crossed_mean_interval(
    values: ArrayLike, clusters: ArrayLike | None = None, level: float = 0.95
) -> Estimate:
    """Mean of ``values`` (seeds, blocks), where every seed was drawn and every block of text too.

    Both scatter: the variance is the sum of that of the seeds' means and that of the blocks' means,
    which counts what is neither's twice and so errs on the wide side; the degrees of freedom are
    those of the fewer. ``clusters`` (blocks,) are as in `clustered_mean_interval`; None: each block
    is one. With a single seed the interval is over the blocks alone. ``n`` is the number of the
    fewer, of clusters where there is one seed.
    """
    from scipy import stats

    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2 or not np.isfinite(table).all():
        raise ValueError(f"need finite values (seeds, two blocks or more), got {table.shape}")
    blocks = np.arange(table.shape[1]) if clusters is None else clusters
    if len(table) == 1:
        return clustered_mean_interval(table[0], blocks, level)
    of_blocks, n_blocks = _clustered_error(table.mean(axis=0), blocks)
    of_seeds = table.mean(axis=1).std(ddof=1) / math.sqrt(len(table))
    error, n = math.hypot(of_seeds, of_blocks), min(len(table), n_blocks)
    mean, half = float(table.mean()), float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    return Estimate(mean, (mean - half, mean + half), n)


def geometric_mean_ratio_interval(ratios: ArrayLike, level: float = 0.95) -> Estimate:
    """Geometric mean of independent positive ``ratios`` (n,): Student's interval of their logs."""
    values = _finite(ratios, "ratios", least=2)
    if (values <= 0).any():
        raise ValueError("ratios must be positive")
    return exponential(mean_interval(np.log(values), level))


def exponential(logs: Estimate) -> Estimate:
    """What an estimate of a log says of the number itself."""
    low, high = logs.interval
    return replace(logs, value=math.exp(logs.value), interval=(math.exp(low), math.exp(high)))


def scaled(found: Estimate, factor: float) -> Estimate:
    """The same in another unit; ``factor`` is positive."""
    low, high = found.interval
    return replace(found, value=found.value * factor, interval=(low * factor, high * factor))


def power_law_exponent(
    x: ArrayLike,
    y: ArrayLike,
    standard_errors: ArrayLike,
    level: float = 0.95,
    family: int = 1,
) -> Estimate:
    """Exponent p of y = c x^p, by weighted least squares on the logs.

    ``x``, ``y`` and the known ``standard_errors`` of y are (points,), and the points independent;
    the error of log y is that of y over y (delta method). ``family`` is the number of exponents
    that shall hold together (Bonferroni). The interval takes the law for granted.
    """
    from scipy import stats

    xs, ys = _finite(x, "x", least=2), _finite(y, "y", least=2)
    errors = _finite(standard_errors, "standard_errors", least=2)
    if not len(xs) == len(ys) == len(errors):
        raise ValueError(f"got {len(xs)} x, {len(ys)} y and {len(errors)} standard errors")
    if (xs <= 0).any() or (ys <= 0).any() or (errors <= 0).any():
        raise ValueError("a power law needs positive x, y and standard errors")
    if np.ptp(xs) == 0:
        raise ValueError("all x are the same: an exponent needs two of them at least")
    slope, error = power_law_slopes(xs, ys, errors)
    exponent = float(slope)
    half = float(stats.norm.ppf(1 - (1 - level) / (2 * family)) * error)
    return Estimate(exponent, (exponent - half, exponent + half), len(xs))


def power_law_slopes(x: Array, y: Array, standard_errors: Array) -> tuple[Array, Array]:
    """Exponents and their standard errors of many power laws at once, as `power_law_exponent`.

    ``x`` is (points,), all positive; ``y`` and ``standard_errors`` are (..., points); both results
    are (...).
    """
    weights = (y / standard_errors) ** 2
    total = weights.sum(axis=-1, keepdims=True)
    log_x = np.log(x) - (weights * np.log(x)).sum(axis=-1, keepdims=True) / total
    spread = (weights * log_x**2).sum(axis=-1)
    return (weights * log_x * np.log(y)).sum(axis=-1) / spread, 1 / np.sqrt(spread)


def difference_p_value(value: Array, error: Array, expected: float) -> Array:
    """Two-sided, of normal ``value`` with the known standard ``error``; any shape."""
    from scipy import stats

    return np.asarray(2 * stats.norm.sf(np.abs(value - expected) / error))


def student_p_value(found: Estimate, expected: float = 0.0, level: float = 0.95) -> float:
    """Two-sided, of an estimate whose interval at ``level`` is Student's with n − 1 degrees.

    Without any scatter it is 1 where all values are the expected one, and otherwise 0.
    """
    from scipy import stats

    low, high = found.interval
    if low == high:
        return float(found.value == expected)
    error = (high - low) / 2 / stats.t.ppf((1 + level) / 2, found.n - 1)
    return float(2 * stats.t.sf(abs(found.value - expected) / error, found.n - 1))


def smallest_found(scatter: float, n: int, level: float = 0.95, power: float = 0.8) -> float:
    """The mean whose interval of ``n`` samples, which scatter so, leaves out 0 with this power."""
    from scipy import optimize, stats

    border, error = stats.t.ppf((1 + level) / 2, n - 1), scatter / math.sqrt(n)

    def missing(mean: float) -> float:
        return float(stats.nct.sf(border, n - 1, mean / error)) - power

    return float(optimize.brentq(missing, 0, 100 * border * error))


def equivalence_p_value(value: Array, error: Array, low: float, high: float) -> Array:
    """Two one-sided tests (Schuirmann 1987): small where ``value`` is shown to lie in (low, high).

    The larger p value of the two against a truth at ``low`` or below, and at ``high`` or above.
    A failed test of difference shows no equivalence; this one does.
    """
    from scipy import stats

    nearer = np.minimum(value - low, high - value)
    return np.asarray(stats.norm.sf(nearer / error))


def holm(p_values: ArrayLike) -> Array:
    """p values (..., tests) adjusted so that a whole family errs as seldom as one (Holm 1979).

    The tests may depend on each other. A family contains an error no more often than at the level
    to which the adjusted values are compared.
    """
    given = np.asarray(p_values, dtype=np.float64)
    if np.isnan(given).any():  # it would be a test that is not rejected
        raise ValueError(f"{int(np.isnan(given).sum())} of {given.size} p values are NaN")
    order = np.argsort(given, axis=-1)
    still_to_test = np.arange(given.shape[-1], 0, -1)
    ascending = np.take_along_axis(given, order, axis=-1) * still_to_test
    adjusted = np.minimum(np.maximum.accumulate(ascending, axis=-1), 1)
    result = np.empty_like(given)
    np.put_along_axis(result, order, adjusted, axis=-1)
    return result


def proportion_interval(successes: int, trials: int, level: float = 0.95) -> Estimate:
    """A share of independent trials, with the exact interval of Clopper and Pearson (1934)."""
    from scipy import stats

    found = stats.binomtest(successes, trials).proportion_ci(level, method="exact")
    return Estimate(successes / trials, (float(found.low), float(found.high)), trials)


def unweighted_slopes(x: ArrayLike, y: ArrayLike) -> Array:
    """Exponents p of y = c x^p in each row of ``y`` (rows, points), by least squares on the logs.

    Where rows are independent observations, their scatter says how sure the exponent is, whatever
    the law: `mean_interval` of these takes no standard errors for granted.
    """
    xs, ys = _finite(x, "x", least=2), np.asarray(y, dtype=np.float64)
    if ys.ndim != 2 or ys.shape[1] != len(xs) or not (ys > 0).all() or (xs <= 0).any():
        raise ValueError(f"need positive y (rows, {len(xs)}) and positive x, got {ys.shape}")
    log_x = np.log(xs) - np.log(xs).mean()
    if not log_x.any():
        raise ValueError("all x are the same: an exponent needs two of them at least")
    return np.asarray(np.log(ys) @ log_x / (log_x @ log_x))


def _finite(values: ArrayLike | Sequence[float], name: str, least: int) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < least:
        raise ValueError(f"{name}: need {least} values at least in one row, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: {int((~np.isfinite(array)).sum())} values are not finite")
    return array
