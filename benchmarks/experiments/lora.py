"""L1, LoRA: how few weights it trains, and how its random update grows with the rank.

ΔW = s·BA with B (d, r), A (r, n) and s = α/r (LoRA, 2106.09685) or α/√r (rsLoRA, 2312.03732). The
laws are about B and A that are both random; a fresh adapter has B = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.experiment import Profile, Settings, experiment
from benchmarks.results import Measurement, Parameter, measured
from benchmarks.stats import Estimate, power_law_exponent
from reference_model.config import preset
from reference_model.costs import LoRATarget, lora_parameters, parameter_count

Matrix = NDArray[np.float64]

SHARE_RANKS = [2**i for i in range(9)]  # 1 … 256
TARGETS: dict[str, tuple[LoRATarget, ...]] = {
    "query,value": ("query", "value"),
    "all attention": ("query", "key", "value", "attention_output"),
    "all linears": ("query", "key", "value", "attention_output", "mlp_in", "mlp_out"),
}

RANKS = [2**i for i in range(11)]  # 1 … 1024
WIDTH = 768  # d and n: GPT-2 small's
ALPHA = 16.0
DEVIATION = WIDTH**-0.5  # of B's entries, and of a Gaussian A's
# Relative standard error of the variance at each rank. Eleven simultaneous intervals are 2.84 of
# them wide to either side, which leaves a margin within ±2 %.
PRECISION: dict[Profile, float] = {"smoke": 0.003, "quick": 0.0025, "full": 0.001}
LEAST_REPLICAS = 4


@experiment("lora.trainable-share", smoke=0.1, quick=0.1, full=90)
def trainable_share(settings: Settings) -> list[Measurement]:
    """Trained weights in percent of all frozen ones, GPT-2 small, by rank, targets and head.

    The full profile has beside it how long an adapted linear takes.
    """
    measurements = []
    for head in ("untied", "tied"):
        config = preset("gpt2", head=head)
        for targets, names in TARGETS.items():
            for rank in SHARE_RANKS:
                share = 100 * lora_parameters(config, rank, names) / parameter_count(config)
                measurements.append(
                    measured(
                        share,
                        claim="lora.trainable-share",
                        metric="trainable_share",
                        unit="percent",
                        direction="lower",
                        choice="adapters",
                        option="LoRA",
                        parameters={"rank": rank, "targets": targets, "head": head},
                        source="closed form",
                    )
                )
    if settings.profile == "full" and settings.device == "cpu":
        # Not above: the share is in the history of commits that have no adapters yet.
        from benchmarks.experiments.lora_speed import forward_ratios

        measurements += forward_ratios("lora.trainable-share")
    return measurements


@dataclass(frozen=True)
class Entries:
    """How the entries of a matrix are drawn: independent, of mean 0."""

    draw: Callable[[np.random.Generator, int, int, int], Matrix]  # generator, rank, rows, columns
    deviation: Callable[[int], float]  # of an entry, by rank
    kurtosis: float  # 3 for a Gaussian, 1.8 for a uniform distribution


def gaussian_entries(deviation: Callable[[int], float]) -> Entries:
    """Normal entries, whose deviation may depend on the rank."""
    return Entries(
        lambda generator, rank, rows, columns: (
            deviation(rank) * generator.standard_normal((rows, columns))
        ),
        deviation,
        kurtosis=3.0,
    )


def uniform_entries(bound: float) -> Entries:
    """Entries uniform in [−bound, bound], at any rank."""
    return Entries(
        lambda generator, rank, rows, columns: generator.uniform(-bound, bound, (rows, columns)),
        lambda rank: bound / math.sqrt(3),
        kurtosis=1.8,
    )


RANDOM_B = gaussian_entries(lambda rank: DEVIATION)
KINDS_OF_A = {
    "gaussian": gaussian_entries(lambda rank: DEVIATION),
    # LoRA's own: Kaiming with a = √5, which is a bound of 1/√(fan-in).
    "kaiming_uniform": uniform_entries(WIDTH**-0.5),
    # PEFT's init_lora_weights="gaussian". The deviation depends on the rank: not the claim's case.
    "peft_gaussian": gaussian_entries(lambda rank: 1 / rank),
}
SCALINGS: dict[str, Callable[[int], float]] = {
    "alpha/r": lambda rank: ALPHA / rank,
    "alpha/sqrt(r)": lambda rank: ALPHA / math.sqrt(rank),
}


def mean_square_of_product(b: Matrix, a: Matrix) -> float:
    """‖BA‖²/(dn) of B (d, r) and A (r, n), as tr(BᵀB·AAᵀ): no (d, n) matrix is formed."""
    return float(((b.T @ b) * (a @ a.T)).sum()) / (b.shape[0] * a.shape[1])


def relative_variance(d: int, n: int, rank: int, kurtosis_a: float, kurtosis_b: float) -> float:
    """Var(‖BA‖²) / E(‖BA‖²)² for independent entries of mean 0.

    The entries of BA depend on each other, so that this is not 2/(dn). With S = BᵀB, ‖BA‖² is a sum
    of aᵀSa over the n columns a of A, and Var(aᵀSa | S) = σ⁴(2 tr S² + (κ_A − 3) Σ S_kk²); take the
    moments of S, and add n²σ⁴ Var(tr S).
    """
    excess_a, excess_b = kurtosis_a - 1, kurtosis_b - 1  # Var(x²)/E(x²)²
    terms = excess_a * d + excess_b * n + excess_a * excess_b + 2 * (rank - 1)
    return terms / (rank * d * n)


@dataclass(frozen=True)
class VarianceAtRank:
    """Mean square of the entries of BA at one rank, with its standard error and its closed form."""

    rank: int
    value: float
    error: float
    law: float  # r·σ_A²·σ_B²
    replicas: int

    def scaled(self, factor: float) -> VarianceAtRank:
        """The same for s·BA, with factor s²."""
        return VarianceAtRank(
            self.rank, factor * self.value, factor * self.error, factor * self.law, self.replicas
        )

    def interval(self, family: int) -> tuple[float, float]:
        """95 % for all of ``family`` intervals together (Bonferroni)."""
        half = float(stats.norm.ppf(1 - 0.025 / family)) * self.error
        return self.value - half, self.value + half


def variances(kind: str, precision: float, seed: int) -> list[VarianceAtRank]:
    """Var(BA) at every rank. One pair of matrices is one observation, whatever its size.

    There are as many as the closed-form variance asks for; the standard error is that of the law.
    """
    a_entries = KINDS_OF_A[kind]
    measured = []
    for rank in RANKS:
        generator = np.random.default_rng([seed, list(KINDS_OF_A).index(kind), rank])
        spread = relative_variance(WIDTH, WIDTH, rank, a_entries.kurtosis, RANDOM_B.kurtosis)
        replicas = max(LEAST_REPLICAS, math.ceil(spread / precision**2))
        squares = [
            mean_square_of_product(
                RANDOM_B.draw(generator, rank, WIDTH, rank),
                a_entries.draw(generator, rank, rank, WIDTH),
            )
            for _ in range(replicas)
        ]
        law = rank * (a_entries.deviation(rank) * RANDOM_B.deviation(rank)) ** 2
        error = law * math.sqrt(spread / replicas)
        measured.append(VarianceAtRank(rank, float(np.mean(squares)), error, law, replicas))
    return measured


def exponent(points: list[VarianceAtRank], family: int = 1) -> Estimate:
    """p of Var ∝ r^p."""
    ranks, values, errors = zip(*((p.rank, p.value, p.error) for p in points), strict=True)
    return power_law_exponent(ranks, values, errors, family=family)


@experiment("lora.product-variance", smoke=1.5, quick=2, full=10)
def product_variance(settings: Settings) -> list[Measurement]:
    """Var(BA) against r·σ_A²·σ_B² at each rank, and its exponent in the rank.

    The intervals of the ranks hold together at 95 %.
    """
    points = variances("gaussian", PRECISION[settings.profile], settings.seed)
    claim, kind = "lora.product-variance", {"a": "gaussian"}
    measurements = _variance_points(claim, "unscaled", kind, points)
    for point in points:
        low, high = point.interval(len(RANKS))
        ratio = Estimate(
            point.value / point.law, (low / point.law, high / point.law), point.replicas
        )
        labels: dict[str, Parameter] = {"rank": point.rank, **kind}
        measurements.append(_estimated(claim, "product_variance_ratio", "unscaled", labels, ratio))
    slope = exponent(points)
    measurements.append(_estimated(claim, "product_variance_exponent", "unscaled", kind, slope))
    return measurements


@experiment("lora.update-variance", smoke=3, quick=4, full=25)
def update_variance(settings: Settings) -> list[Measurement]:
    """Exponent of Var(s·BA) in the rank, by scaling and by the distribution of A.

    PEFT's `gaussian`, whose deviation is 1/r, has a metric of its own: it is shown, not judged.
    Both scalings look at the same products, since they only multiply them.
    """
    claim = "lora.update-variance"
    measurements = []
    for kind in KINDS_OF_A:
        points = variances(kind, PRECISION[settings.profile], settings.seed)
        own_case = kind == "peft_gaussian"
        metric = "exponent_with_rank_dependent_init" if own_case else "update_variance_exponent"
        for scaling, factor in SCALINGS.items():
            scaled = [point.scaled(factor(point.rank) ** 2) for point in points]
            slope = exponent(scaled, family=2 * len(SCALINGS))
            measurements.append(_estimated(claim, metric, scaling, {"a": kind}, slope))
            measurements += _variance_points(claim, scaling, {"a": kind}, scaled)
    return measurements


def _variance_points(
    claim: str, option: str, labels: Mapping[str, Parameter], points: list[VarianceAtRank]
) -> list[Measurement]:
    """The variance at each rank; the intervals hold together."""
    return [
        _estimated(
            claim,
            "variance",
            option,
            {"rank": point.rank, **labels},
            Estimate(point.value, point.interval(len(points)), point.replicas),
        )
        for point in points
    ]


def _estimated(
    claim: str, metric: str, option: str, labels: Mapping[str, Parameter], estimate: Estimate
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
