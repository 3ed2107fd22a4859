"""The moments of ‖BA‖² against every outcome of small matrices, and against simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.experiments.lora.product_moments import (
    correlated_over_independent,
    expectation,
    relative_variance,
    relative_variance_of_cross_terms,
)

SIGNS, THREE = (-1.0, 1.0), (-1.0, 0.0, 1.0)  # equally likely values
VARIANCE = {SIGNS: 1.0, THREE: 2 / 3}
KURTOSIS = {SIGNS: 1.0, THREE: 1.5}
CASES = [
    (2, 2, 2, SIGNS, SIGNS),
    (1, 3, 2, THREE, SIGNS),
    (3, 1, 2, SIGNS, THREE),
    (2, 1, 2, THREE, THREE),
    (2, 3, 1, THREE, THREE),
]


def every_outcome(
    d: int, n: int, rank: int, values_a: tuple[float, ...], values_b: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """‖BA‖² and its cross terms between ranks, for all matrices that can be drawn."""
    b = np.array(list(itertools.product(values_b, repeat=d * rank))).reshape(-1, 1, d, rank)
    a = np.array(list(itertools.product(values_a, repeat=rank * n))).reshape(1, -1, rank, n)
    whole = ((b @ a) ** 2).sum(axis=(2, 3))
    alone = ((b**2).sum(axis=2) * (a**2).sum(axis=3)).sum(axis=-1)
    return whole.ravel(), (whole - alone).ravel()


@pytest.mark.parametrize(("d", "n", "rank", "values_a", "values_b"), CASES)
def test_mean_and_variance_are_those_over_all_outcomes(
    d: int, n: int, rank: int, values_a: tuple[float, ...], values_b: tuple[float, ...]
) -> None:
    whole, cross = every_outcome(d, n, rank, values_a, values_b)
    mean = expectation(d, n, rank, VARIANCE[values_a], VARIANCE[values_b])
    variance = mean**2 * relative_variance(d, n, rank, KURTOSIS[values_a], KURTOSIS[values_b])
    assert whole.mean() == pytest.approx(mean, rel=1e-12)
    assert whole.var() == pytest.approx(variance, rel=1e-12)
    assert cross.mean() == pytest.approx(0, abs=1e-12)
    of_cross = mean**2 * relative_variance_of_cross_terms(d, n, rank)
    assert cross.var() == pytest.approx(of_cross, rel=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 20])
@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_the_variance_is_what_replicas_of_gaussian_and_uniform_factors_show(
    rank: int, kind: str
) -> None:
    d, n, replicas = 6, 9, 40_000
    generator = np.random.default_rng(1)
    b = generator.standard_normal((replicas, d, rank))
    shape = (replicas, rank, n)
    uniform = kind == "uniform"
    a = generator.uniform(-1, 1, shape) if uniform else generator.standard_normal(shape)
    squares = ((b @ a) ** 2).sum(axis=(1, 2))
    assert squares.mean() == pytest.approx(
        expectation(d, n, rank, 1 / 3 if uniform else 1.0, 1.0), rel=0.02
    )
    observed = squares.var() / squares.mean() ** 2
    closed = relative_variance(d, n, rank, kurtosis_a=1.8 if uniform else 3.0, kurtosis_b=3.0)
    # Some four standard errors: these sums have longer tails than a Gaussian.
    assert observed == pytest.approx(closed, rel=0.06)


@pytest.mark.parametrize(("rho_a", "rho_b"), [(0.3, 0.3), (0.3, 0.0), (0.0, 0.3), (0.2, 0.5)])
def test_correlation_across_the_rank_moves_the_mean_only_where_both_factors_have_it(
    rho_a: float, rho_b: float
) -> None:
    d, n, rank, replicas = 5, 4, 6, 40_000
    generator = np.random.default_rng(2)

    def rows(rho: float, columns: int) -> np.ndarray:  # (replicas, rank, columns)
        shared = generator.standard_normal((replicas, 1, columns))
        own = generator.standard_normal((replicas, rank, columns))
        return np.sqrt(rho) * shared + np.sqrt(1 - rho) * own

    products = rows(rho_b, d).transpose(0, 2, 1) @ rows(rho_a, n)
    ratio = (products**2).sum(axis=(1, 2)).mean() / expectation(d, n, rank, 1.0, 1.0)
    expected = correlated_over_independent(rank, rho_a, rho_b)
    assert ratio == pytest.approx(expected, rel=0.02)
    assert (expected == 1) == (rho_a * rho_b == 0)


def test_entries_of_a_product_are_not_independent() -> None:
    # Taking the d·n entries for independent observations would claim a far too narrow interval.
    assert relative_variance(768, 768, 1, 3.0, 3.0) > 1000 * 2 / 768**2
