"""The variance laws of s·BA by a bound, not an approximation: a true law fails once in 10⁶ seeds.

Given the A of K pairs, Σ‖BA‖² is σ_B² times a sum of χ² with d degrees of freedom each, weighted by
the eigenvalues of the H = AAᵀ. With probability 1 - 2 e⁻ˣ it lies (Laurent & Massart, Ann. Statist.
28, 2000, lemma 1) between

    σ_B² (d Σ tr H - 2 √(d x Σ tr H²))   and   σ_B² (d Σ tr H + 2 √(d x Σ tr H²) + 2 λ x)

with λ the largest eigenvalue. Σ tr H itself is Σ‖A‖²: for Gaussian entries σ_A² times a χ² with
K r n degrees of freedom, whose quantiles are exact; for entries bounded by c, Hoeffding's
inequality keeps it within c² √(K r n x / 2) of its mean but for a probability of 2 e⁻ˣ. Four events
at each rank and distribution, each with x = ln(their number / 10⁻⁶): by the union bound all of them
hold together, but for a probability of 10⁻⁶.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from benchmarks.experiments.lora import lesson as lora
from benchmarks.experiments.lora.checks import equicorrelated

WIDTH = 256
RANKS = [2**i for i in range(9)]  # 1 … 256
VARIANCE_OF_A = {"gaussian": 1 / WIDTH, "kaiming_uniform": 1 / (3 * WIDTH)}
VARIANCE_OF_B = 1 / WIDTH
KINDS = list(VARIANCE_OF_A)
ROWS = 1024  # K·r, the same at every rank
FALSE_ALARM = 1e-6
X = math.log(4 * len(RANKS) * len(KINDS) / FALSE_ALARM)

Factor = Callable[[int], float]


@dataclass(frozen=True)
class Bounded:
    """s²‖BA‖² over what it shall be, α² σ_A² σ_B² d n, and where the bound says that this lies."""

    ratio: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        return self.low <= self.ratio <= self.high


def bounded(
    kind: str,
    rank: int,
    scaling: Factor,
    exponent: int,
    factor_of_a: float = 1.0,
    rho: float = 0.0,
) -> Bounded:
    """One rank of one law; ``factor_of_a`` and ``rho`` make it a wrong one."""
    generator = np.random.default_rng([7, KINDS.index(kind), rank])
    pairs = ROWS // rank
    entries = lora.KINDS_OF_A[kind]
    b = lora.RANDOM_B.unit(generator, (pairs, WIDTH, rank))
    a = entries.unit(generator, (pairs, rank, WIDTH)) * np.float32(factor_of_a)
    if rho:
        a = equicorrelated(a, rho)
        b = equicorrelated(b.transpose(0, 2, 1), rho).transpose(0, 2, 1)
    whole = float(lora.squared_norms_of_products(b, a).sum())  # of entries of variance 1
    eigenvalues = np.linalg.eigvalsh((a @ a.transpose(0, 2, 1)).astype(np.float64))
    expected_trace = ROWS * WIDTH
    if kind == "gaussian":
        least, most = stats.chi2.isf([1 - math.exp(-X), math.exp(-X)], expected_trace)
    else:
        half = 3 * math.sqrt(expected_trace * X / 2)  # c² is three variances
        least, most = expected_trace - half, expected_trace + half
    spread = 2 * math.sqrt(WIDTH * X * float((eigenvalues**2).sum()))
    furthest = spread + 2 * float(eigenvalues.max()) * X
    law = WIDTH * expected_trace
    is_drawn = (entries.deviation(WIDTH, rank) * lora.RANDOM_B.deviation(WIDTH, rank)) ** 2
    shall_be = VARIANCE_OF_A[kind] * VARIANCE_OF_B * lora.ALPHA**2 * float(rank) ** exponent
    return Bounded(
        scaling(rank) ** 2 * rank * is_drawn / shall_be * whole / law,
        (WIDTH * least - spread) / law,
        (WIDTH * most + furthest) / law,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaling", lora.SCALINGS)
def test_the_scaled_update_has_its_laws_variance_at_every_rank(kind: str, scaling: str) -> None:
    found = [bounded(kind, r, lora.SCALINGS[scaling], lora.LAWS[scaling]) for r in RANKS]
    assert all(at_rank.holds for at_rank in found), found
    # A bound that allows everything would prove nothing.
    assert all(1 - at_rank.low < 0.05 and at_rank.high - 1 < 0.05 for at_rank in found), found


@pytest.mark.parametrize("kind", KINDS)
def test_the_product_grows_as_the_rank(kind: str) -> None:
    found = [bounded(kind, r, lambda rank: lora.ALPHA, exponent=1) for r in RANKS]
    assert all(at_rank.holds for at_rank in found), found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("scaling", "wrong"),
    [
        (lambda rank: lora.ALPHA / rank**0.6, {}),
        (lora.SCALINGS["alpha/r"], {}),
        (lora.SCALINGS["alpha/sqrt(r)"], {"factor_of_a": math.sqrt(2)}),
        (lora.SCALINGS["alpha/sqrt(r)"], {"factor_of_a": 1.05}),
        (lora.SCALINGS["alpha/sqrt(r)"], {"rho": 0.1}),
    ],
)
def test_a_wrong_law_breaks_the_bound(kind: str, scaling: Factor, wrong: dict[str, float]) -> None:
    found = [bounded(kind, r, scaling, exponent=0, **wrong) for r in RANKS]
    assert not all(at_rank.holds for at_rank in found)
