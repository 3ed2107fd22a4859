"""L1, LoRA: how its random update grows with the rank.

ΔW = s·BA with B (d, r), A (r, n) and s = α/r (LoRA, 2106.09685) or α/√r (rsLoRA, 2312.03732). The
laws are about B and A that are both random; a fresh adapter has B = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.experiments.experiment import (
    Cell,
    CellsFound,
    Found,
    Profile,
    Settings,
    as_found,
    experiment_of_cells,
    joined,
)
from benchmarks.experiments.lora.checks import operating_characteristics
from benchmarks.experiments.lora.product_moments import relative_variance
from benchmarks.experiments.lora.variance_checks import equivalence_check, exponent_check
from benchmarks.judging.stats import Estimate, holm, power_law_exponent
from benchmarks.record.results import Measurement, Parameter, measured

Matrix = NDArray[np.float32]

RANKS = [2**i for i in range(11)]  # 1 … 1024
WIDTH = 768  # d and n: GPT-2 small's
ALL_WIDTHS = (64, 256, WIDTH, 1024)
WIDTHS: dict[Profile, tuple[int, ...]] = {
    "smoke": (64, WIDTH),
    "quick": ALL_WIDTHS,
    "full": ALL_WIDTHS,
}
ALPHA = 16.0
# Relative standard error of the variance at each rank. 44 simultaneous intervals are 3.25 of them
# wide to either side: ±0.8 % in the quick profile, ±0.26 % in the full one, to fit into ±0.5 %.
PRECISION: dict[Profile, float] = {"smoke": 0.003, "quick": 0.0025, "full": 0.0008}
# Exponents are ten times as precise as the points, and have the wider region.
PRECISION_OF_UPDATES: dict[Profile, float] = {"smoke": 0.006, "quick": 0.005, "full": 0.001}
LEAST_REPLICAS = 4
MOST_NUMBERS = 1 << 21  # drawn at once


@dataclass(frozen=True)
class Entries:
    """How the entries of a matrix are drawn: independent, of mean 0."""

    unit: Callable[[np.random.Generator, tuple[int, ...]], Matrix]  # of variance 1
    deviation: Callable[[int, int], float]  # of an entry, by width and rank
    kurtosis: float


def gaussian(generator: np.random.Generator, shape: tuple[int, ...]) -> Matrix:
    return generator.standard_normal(shape, dtype=np.float32)


def uniform(generator: np.random.Generator, shape: tuple[int, ...]) -> Matrix:
    drawn = generator.random(shape, dtype=np.float32)
    drawn -= np.float32(0.5)
    drawn *= np.float32(math.sqrt(12))
    return drawn


RANDOM_B = Entries(gaussian, lambda width, rank: width**-0.5, kurtosis=3.0)
KINDS_OF_A = {
    "gaussian": Entries(gaussian, lambda width, rank: width**-0.5, kurtosis=3.0),
    # LoRA's own: Kaiming with a = √5, which is a bound of 1/√(fan-in).
    "kaiming_uniform": Entries(uniform, lambda width, rank: (3 * width) ** -0.5, kurtosis=1.8),
    # PEFT's init_lora_weights="gaussian". The deviation depends on the rank: not the claim's case.
    "peft_gaussian": Entries(gaussian, lambda width, rank: 1 / rank, kurtosis=3.0),
}
SCALINGS: dict[str, Callable[[int], float]] = {
    "alpha/r": lambda rank: ALPHA / rank,
    "alpha/sqrt(r)": lambda rank: ALPHA / math.sqrt(rank),
}
LAWS = {"alpha/r": -1, "alpha/sqrt(r)": 0}  # exponents of the variance; -2 more with σ_A = 1/r


def squared_norms_of_products(b: Matrix, a: Matrix) -> NDArray[np.float64]:
    """‖BA‖² (pairs,) of B (pairs, d, r) and A (pairs, r, n).

    As tr(BᵀB·AAᵀ), without a (d, n) matrix, unless that one is the smaller.
    """
    d, rank, n = b.shape[1], b.shape[2], a.shape[2]
    if d * n < (d + n) * rank:
        products = b @ a
        return np.einsum("pij,pij->p", products, products, dtype=np.float64)
    left, right = b.transpose(0, 2, 1) @ b, a @ a.transpose(0, 2, 1)
    return np.einsum("pij,pij->p", left, right, dtype=np.float64)


@dataclass(frozen=True)
class VarianceAtRank:
    """Mean square of the entries of BA at one rank, with its closed form and that one's error."""

    rank: int
    value: float
    law: float  # r·σ_A²·σ_B²
    relative_error: float  # standard error of value / law, if the law holds
    replicas: int

    def scaled(self, factor: float) -> VarianceAtRank:
        """The same for s·BA, with factor s²."""
        return replace(self, value=factor * self.value, law=factor * self.law)

    def ratio(self, family: int) -> Estimate:
        """Value over law; 95 % for all of ``family`` intervals together (Bonferroni)."""
        half = float(stats.norm.ppf(1 - 0.025 / family)) * self.relative_error
        ratio = self.value / self.law
        return Estimate(ratio, (ratio - half, ratio + half), self.replicas)

    def variance(self, family: int) -> Estimate:
        ratio = self.ratio(family)
        low, high = ratio.interval
        return Estimate(self.value, (self.law * low, self.law * high), self.replicas)


def variances(kind: str, precision: float, seed: int, width: int = WIDTH) -> list[VarianceAtRank]:
    """Var(BA) at every rank. One pair of matrices is one observation, whatever its size.

    There are as many as the closed-form variance asks for; the standard error is that of the law.
    """
    a_entries = KINDS_OF_A[kind]
    measured = []
    for rank in RANKS:
        generator = np.random.default_rng([seed, list(KINDS_OF_A).index(kind), width, rank])
        spread = relative_variance(width, width, rank, a_entries.kurtosis, RANDOM_B.kurtosis)
        replicas = max(LEAST_REPLICAS, math.ceil(spread / precision**2))
        step = max(1, MOST_NUMBERS // (rank * width))
        total = 0.0
        for first in range(0, replicas, step):
            pairs = min(step, replicas - first)
            b = RANDOM_B.unit(generator, (pairs, width, rank))
            a = a_entries.unit(generator, (pairs, rank, width))
            total += float(squared_norms_of_products(b, a).sum())
        entry = (a_entries.deviation(width, rank) * RANDOM_B.deviation(width, rank)) ** 2
        value, error = entry * total / (replicas * width**2), math.sqrt(spread / replicas)
        measured.append(VarianceAtRank(rank, value, rank * entry, error, replicas))
    return measured


def exponent(points: list[VarianceAtRank], family: int = 1) -> Estimate:
    """p of Var ∝ r^p. The errors are relative: a factor that all ranks share changes nothing."""
    errors = [point.relative_error * point.value for point in points]
    values = [point.value for point in points]
    return power_law_exponent([p.rank for p in points], values, errors, family=family)


def exponent_deviations(precision: float) -> dict[str, float]:
    """|fitted exponent - its law|, GPT-2 small's width, by scaling and distribution of A.

    ``precision`` is the relative standard error of the variance at each rank.
    """
    deviations = {}
    for kind in KINDS_OF_A:
        points = variances(kind, precision, seed=0)
        for scaling, factor in SCALINGS.items():
            slope = exponent([point.scaled(factor(point.rank) ** 2) for point in points])
            law = LAWS[scaling] + (-2 if kind == "peft_gaussian" else 0)
            deviations[f"{scaling}, {kind}"] = abs(slope.value - law)
    return deviations


def of_variances(settings: Settings, a: str, width: int, precision: float) -> Found:
    """The fields of `VarianceAtRank` at each rank."""
    points = variances(a, precision, settings.seed, width)
    return [asdict(point) for point in points]


def cells_of_products(settings: Settings) -> list[Cell]:
    precision = PRECISION[settings.profile]
    return [_cell("gaussian", width, precision) for width in WIDTHS[settings.profile]]


def _cell(a: str, width: int, precision: float) -> Cell:
    return Cell({"a": a, "width": width, "precision": precision}, share=100 + width)


def _points(found: Found) -> list[VarianceAtRank]:
    return [VarianceAtRank(**fields) for fields in found]


@experiment_of_cells(
    "lora.product-variance",
    cells=cells_of_products,
    measure=of_variances,
    smoke=1,
    quick=3,
    full=30,
)
def product_variance(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Var(BA) against r·σ_A²·σ_B² at each rank and width, and its exponent in the rank.

    The intervals of all ranks and widths hold together at 95 %, and those of the exponents.
    """
    claim, measurements = "lora.product-variance", []
    for parameters, of_cell in found:
        points = _points(of_cell)
        labels: dict[str, Parameter] = {"a": "gaussian", "width": parameters["width"]}
        measurements += _at_ranks(
            claim, "unscaled", labels, points, "product_variance_ratio", len(RANKS) * len(found)
        )
        slope, metric = exponent(points, family=len(found)), "product_variance_exponent"
        measurements.append(_estimated(claim, metric, "unscaled", labels, slope))
    return measurements


def cells_of_updates(settings: Settings) -> list[Cell]:
    """A cell for each distribution of A and width, and of how often the checks err."""
    cases = [
        (kind, w) for kind in ("gaussian", "kaiming_uniform") for w in WIDTHS[settings.profile]
    ]
    precision = PRECISION_OF_UPDATES[settings.profile]
    found = [_cell(*case, precision) for case in (*cases, ("peft_gaussian", WIDTH))]
    return found + [
        Cell({"checked": kind}, share=share)
        for kind, share in (("gaussian", 500), ("kaiming_uniform", 3000))
    ]


def of_an_update(settings: Settings, checked: str = "", **case: Any) -> Found:
    if checked:
        return as_found(operating_characteristics(settings.profile, settings.seed, checked))
    return of_variances(settings, **case)


@experiment_of_cells(
    "lora.update-variance",
    cells=cells_of_updates,
    measure=of_an_update,
    smoke=4.5,
    quick=8,
    full=75,
)
def update_variance(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Exponent of Var(s·BA) in the rank, by scaling, width and distribution of A.

    PEFT's `gaussian`, whose deviation is 1/r, has a metric of its own: it is shown, not judged.
    Both scalings look at the same products, since they only multiply them. Beside the intervals
    stand p values of the checks, Holm's over all exponents, and how often these checks err.
    """
    claim = "lora.update-variance"
    cases = [each for each in found if "width" in each[0]]
    family = len(SCALINGS) * len(cases)
    measurements, judged = [], []
    for parameters, of_cell in cases:
        points = _points(of_cell)
        kind, width = parameters["a"], parameters["width"]
        own_case = kind == "peft_gaussian"
        metric = "exponent_with_rank_dependent_init" if own_case else "update_variance_exponent"
        labels: dict[str, Parameter] = {"a": kind, "width": width}
        for scaling, factor in SCALINGS.items():
            scaled = [point.scaled(factor(point.rank) ** 2) for point in points]
            slope = exponent(scaled, family)
            measurements.append(_estimated(claim, metric, scaling, labels, slope))
            if not own_case:
                judged.append((scaling, labels, scaled))
            if width == WIDTH:
                measurements += _at_ranks(
                    claim, scaling, labels, scaled, "variance_over_law", len(RANKS)
                )
    measurements += _p_values(claim, judged, PRECISION_OF_UPDATES[settings.profile])
    return measurements + joined(settings, found[len(cases) :])


def _p_values(
    claim: str,
    judged: list[tuple[str, dict[str, Parameter], list[VarianceAtRank]]],
    precision: float,
) -> list[Measurement]:
    """Of a difference of each exponent from its law, and of its equivalence to it.

    A p value speaks of one sample of one size, so the precision that it had is a label.
    """
    checks = {"difference_p_value": exponent_check, "equivalence_p_value": equivalence_check}
    measurements = []
    for metric, check in checks.items():
        found = [
            check(
                np.array([float(point.rank) for point in points]),
                np.array([point.value for point in points]),
                np.array([point.relative_error for point in points]),
                LAWS[scaling],
            )
            for scaling, _, points in judged
        ]
        for (scaling, labels, _), p_value in zip(judged, holm(found), strict=True):
            named = {**labels, "precision": precision}
            measurements.append(_estimated(claim, metric, scaling, named, float(p_value)))
    return measurements


def _at_ranks(
    claim: str,
    option: str,
    labels: Mapping[str, Parameter],
    points: list[VarianceAtRank],
    ratio_metric: str,
    family: int,
) -> list[Measurement]:
    """The variance at each rank, and what it is of the law's; the intervals hold together."""
    return [
        _estimated(claim, metric, option, {"rank": point.rank, **labels}, estimate)
        for point in points
        for metric, estimate in (
            ("variance", point.variance(family)),
            (ratio_metric, point.ratio(family)),
        )
    ]


def _estimated(
    claim: str,
    metric: str,
    option: str,
    labels: Mapping[str, Parameter],
    estimate: Estimate | float,
) -> Measurement:
    return measured(
        estimate,
        claim=claim,
        metric=metric,
        unit="1",
        direction="none",
        choice="scaling",
        option=option,
        parameters=labels,
        source="simulation",
    )
