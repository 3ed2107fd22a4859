"""L1: how often the checks of the variance laws err, under the true law and under wrong ones.

The claim's own experiment draws one set of samples; here thousands are simulated, each judged by
every check of `variance_checks.py`. What is true of s·BA is true of BA: a scaling multiplies the
samples and their law alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.experiments.experiment import Profile
from benchmarks.experiments.lora.product_moments import (
    relative_variance,
    relative_variance_of_cross_terms,
)
from benchmarks.experiments.lora.variance_checks import (
    CHECKS,
    MARGIN,
    NOMINAL,
    Check,
    dependence_check,
    equivalence_check,
    exponent_check,
    value_check,
)
from benchmarks.judging.stats import Array, proportion_interval
from benchmarks.record.results import Direction, Measurement, measured

Factors = NDArray[np.float32]

CLAIM = "lora.update-variance"
RANKS = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
REPLICAS = 4  # pairs of matrices behind each mean: leaves the exponent a standard error of 0.0045
D = 3072  # outputs of GPT-2 small's first MLP matrix, and its 768 inputs
# Uniform entries must be drawn one by one, Gaussian ones need not: the former have a narrower A.
N = {"gaussian": 768, "kaiming_uniform": 320}
KURTOSIS = {"gaussian": 3.0, "kaiming_uniform": 1.8}
RHO = 0.1
MOST_NUMBERS = 1 << 21  # drawn at once

TRUE_LAW = "alpha/sqrt(r)"
# By what each law multiplies the variance at a rank, over the true law's.
FACTORS: dict[str, Array] = {
    TRUE_LAW: np.ones_like(RANKS),
    "alpha/r^0.6": RANKS**-0.2,
    "init off by sqrt(2)": np.full_like(RANKS, 2.0),
    f"rho = {RHO}": np.ones_like(RANKS),  # of equicorrelated factors
    f"exponent off by -{MARGIN}": RANKS**-MARGIN,
    f"exponent off by {MARGIN}": RANKS**MARGIN,
}
BORDERS = tuple(name for name in FACTORS if name.startswith("exponent off"))
# The wrong laws that a check is there to see. To the others it may be blind.
SEES: dict[Check, tuple[str, ...]] = {
    "value": ("alpha/r^0.6", "init off by sqrt(2)", f"rho = {RHO}"),
    "exponent": ("alpha/r^0.6", f"rho = {RHO}"),
    "equivalence": ("alpha/r^0.6", f"rho = {RHO}"),
    "dependence": (f"rho = {RHO}",),
}
DIRECTIONS: dict[str, Direction] = {
    "false_alarm_rate": "lower",
    "false_equivalence_rate": "lower",
    "power": "higher",
    "rejection_rate": "none",
}
# Under the true law: what an alarm's rate of 5 % needs to be told from 7.5 %. Under dependent
# factors half of them.
REPETITIONS: dict[Profile, int] = {"smoke": 2500, "quick": 4000, "full": 20_000}


@dataclass(frozen=True)
class Simulated:
    """Means over replicas in units of the law, (repetitions, ranks)."""

    total: Array  # of ‖BA‖²
    cross: Array  # of its cross terms between ranks

    def scaled(self, factors: Array) -> Simulated:
        return Simulated(factors * self.total, factors * self.cross)


def operating_characteristics(profile: Profile, seed: int, kind: str) -> Iterator[Measurement]:
    """Share of repetitions in which each check raises an alarm, by law, with one kind of A.

    An alarm of `equivalence` is that equality is not shown. Its own error is the other one: to show
    it where the exponent is off by the whole margin, `false_equivalence_rate`.
    """
    repetitions = REPETITIONS[profile]
    independent = simulate(kind, 0.0, repetitions, seed)
    dependent = simulate(kind, RHO, repetitions // 2, seed)
    for law, factors in FACTORS.items():
        samples = (dependent if law in SEES["dependence"] else independent).scaled(factors)
        for check in CHECKS if law not in BORDERS else ("equivalence",):
            raised = alarms(check, kind, samples)
            yield _rate(check, kind, law, raised)


def alarms(check: Check, kind: str, samples: Simulated) -> NDArray[np.bool_]:
    """(repetitions,): is the law doubted at the nominal level?"""
    errors = _errors(relative_variance(D, N[kind], int(r), KURTOSIS[kind], 3.0) for r in RANKS)
    match check:
        case "value":
            return value_check(samples.total, np.ones_like(RANKS), errors) <= NOMINAL
        case "exponent":
            return exponent_check(RANKS, samples.total, errors, 0.0) <= NOMINAL
        case "equivalence":
            return equivalence_check(RANKS, samples.total, errors, 0.0) > NOMINAL
        case "dependence":
            of_cross = _errors(relative_variance_of_cross_terms(D, N[kind], int(r)) for r in RANKS)
            diagonal = samples.total - samples.cross
            return dependence_check(RANKS, samples.cross, diagonal, of_cross) <= NOMINAL


def _errors(relative_variances: Iterable[float]) -> Array:
    return np.sqrt(np.fromiter(relative_variances, dtype=np.float64) / REPLICAS)


def simulate(kind: str, rho: float, repetitions: int, seed: int) -> Simulated:
    """Independent repetitions of Gaussian B and any A, both equicorrelated across the rank.

    Of a Gaussian (d, r) matrix only BᵀB matters, which is a Wishart matrix: it is drawn as such.
    """
    total, cross = np.empty((2, repetitions, len(RANKS)))
    for column, rank in enumerate(RANKS.astype(int)):
        generator = np.random.default_rng([seed, list(N).index(kind), round(1000 * rho), rank])
        wide = N[kind] if kind == "kaiming_uniform" else rank
        step = max(1, MOST_NUMBERS // (REPLICAS * rank * wide))
        for first in range(0, repetitions, step):
            count = min(step, repetitions - first)
            b = equicorrelated(wishart_root(generator, count * REPLICAS, D, rank), rho)
            a = equicorrelated(_rows_of_a(generator, kind, count * REPLICAS, rank), rho)
            both = np.square(np.matmul(b.transpose(0, 2, 1), a)).sum(axis=(1, 2))
            diagonal = (np.square(b).sum(axis=2) * np.square(a).sum(axis=2)).sum(axis=1)
            law = rank * D * N[kind]
            means = both.reshape(count, REPLICAS).mean(axis=1, dtype=np.float64) / law
            alone = diagonal.reshape(count, REPLICAS).mean(axis=1, dtype=np.float64) / law
            total[first : first + count, column] = means
            cross[first : first + count, column] = means - alone
    return Simulated(total, cross)


def _rows_of_a(generator: np.random.Generator, kind: str, count: int, rank: int) -> Factors:
    """(count, rank, columns) whose products with each other are A's, entries of variance 1."""
    if kind == "gaussian":
        return wishart_root(generator, count, N[kind], rank)
    drawn = generator.random((count, rank, N[kind]), dtype=np.float32)
    drawn -= np.float32(0.5)
    drawn *= np.float32(math.sqrt(12))
    return drawn


def wishart_root(generator: np.random.Generator, count: int, degrees: int, rank: int) -> Factors:
    """L (count, rank, rank) with LLᵀ distributed as XᵀX of a standard normal X (degrees, rank).

    Bartlett's decomposition (Proc. R. Soc. Edinburgh 53, 1933): normal below the diagonal, on it
    the roots of χ² with degrees, degrees - 1, ...; needs degrees ≥ rank.
    """
    if degrees < rank:
        raise ValueError(f"{degrees} degrees of freedom are fewer than the rank, {rank}")
    root = np.zeros((count, rank, rank), dtype=np.float32)
    rows, columns = np.tril_indices(rank, -1)
    root[:, rows, columns] = generator.standard_normal((count, len(rows)), dtype=np.float32)
    diagonal = np.arange(rank)
    root[:, diagonal, diagonal] = np.sqrt(generator.chisquare(degrees - diagonal, (count, rank)))
    return root


def equicorrelated(rows: Factors, rho: float) -> Factors:
    """R^½ X of X (count, rank, columns); R has ones on its diagonal and ``rho`` everywhere else."""
    rank = rows.shape[1]
    apart, common = math.sqrt(1 - rho), math.sqrt(1 + (rank - 1) * rho)
    return np.float32(apart) * rows + np.float32(common - apart) * rows.mean(axis=1, keepdims=True)


def _rate(check: Check, kind: str, law: str, raised: NDArray[np.bool_]) -> Measurement:
    metric = "rejection_rate"  # of a law to which the check may be blind
    if law == TRUE_LAW:
        metric = "false_alarm_rate"
    elif law in BORDERS:
        metric, raised = "false_equivalence_rate", ~raised
    elif law in SEES[check]:
        metric = "power"
    return measured(
        proportion_interval(int(raised.sum()), len(raised)),
        claim=CLAIM,
        metric=metric,
        unit="ratio",
        direction=DIRECTIONS[metric],
        choice="law",
        option=law,
        parameters={"check": check, "a": kind},
        source="simulation",
    )
