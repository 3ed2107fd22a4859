"""The checks of the variance laws: what each sees, what it is blind to, and how often it errs."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.experiments.lora import checks as lora_checks
from benchmarks.experiments.lora.checks import (
    BORDERS,
    FACTORS,
    RANKS,
    REPLICAS,
    RHO,
    SEES,
    TRUE_LAW,
    D,
    N,
    Simulated,
    alarms,
    equicorrelated,
    operating_characteristics,
    simulate,
    wishart_root,
)
from benchmarks.experiments.lora.product_moments import (
    correlated_over_independent,
    relative_variance,
    relative_variance_of_cross_terms,
)
from benchmarks.experiments.lora.variance_checks import CHECKS, NOMINAL, Check
from benchmarks.record.results import Measurement

REPETITIONS = 600


@pytest.fixture(scope="module", params=list(N))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def independent(kind: str) -> Simulated:
    return simulate(kind, 0.0, REPETITIONS, seed=3)


@pytest.fixture(scope="module")
def dependent(kind: str) -> Simulated:
    return simulate(kind, RHO, 200, seed=3)


@pytest.fixture(scope="module")
def measured() -> list[Measurement]:
    return [m for kind in N for m in operating_characteristics("smoke", 0, kind)]


# ---- the simulation


def test_a_wishart_root_gives_the_moments_of_drawn_matrices() -> None:
    generator, count, degrees, rank = np.random.default_rng(0), 60_000, 7, 3
    root = wishart_root(generator, count, degrees, rank).astype(np.float64)
    drawn = generator.standard_normal((count, degrees, rank))
    for moment in (1, 2):
        of_root = ((root @ root.transpose(0, 2, 1)) ** moment).mean(axis=0)
        of_drawn = ((drawn.transpose(0, 2, 1) @ drawn) ** moment).mean(axis=0)
        assert of_root == pytest.approx(of_drawn, rel=0.05, abs=0.06)


def test_a_wishart_root_needs_as_many_degrees_of_freedom_as_ranks() -> None:
    with pytest.raises(ValueError, match="3 degrees of freedom are fewer than the rank, 4"):
        wishart_root(np.random.default_rng(0), 1, degrees=3, rank=4)


def test_equicorrelated_rows_correlate_by_rho_and_keep_their_variance() -> None:
    drawn = np.random.default_rng(1).standard_normal((1, 5, 200_000)).astype(np.float32)
    found = np.cov(equicorrelated(drawn, 0.3)[0])
    assert found == pytest.approx(np.full((5, 5), 0.3) + 0.7 * np.eye(5), abs=0.02)
    assert np.allclose(equicorrelated(drawn, 0.0), drawn, atol=1e-6)


def test_simulated_means_have_the_moments_of_the_closed_forms(
    kind: str, independent: Simulated
) -> None:
    for column, rank in enumerate(RANKS.astype(int)):
        total, cross = independent.total[:, column], independent.cross[:, column]
        spread = relative_variance(D, N[kind], rank, lora_checks.KURTOSIS[kind], 3.0) / REPLICAS
        of_cross = relative_variance_of_cross_terms(D, N[kind], rank) / REPLICAS
        standard_error = np.sqrt(spread / REPETITIONS)
        assert total.mean() == pytest.approx(1, abs=4 * standard_error)
        assert total.std() == pytest.approx(np.sqrt(spread), rel=0.15)
        assert cross.std() == pytest.approx(np.sqrt(of_cross), rel=0.15, abs=1e-6)


def test_correlated_factors_move_the_mean_as_derived(dependent: Simulated) -> None:
    expected = [correlated_over_independent(int(rank), RHO, RHO) for rank in RANKS]
    assert dependent.total.mean(axis=0) == pytest.approx(expected, rel=0.01)
    # And all of it is in the cross terms.
    assert dependent.cross.mean(axis=0) == pytest.approx(np.array(expected) - 1, abs=0.002)


# ---- the checks


@pytest.mark.parametrize("check", CHECKS)
def test_the_true_law_is_doubted_as_seldom_as_the_level_says(
    kind: str, independent: Simulated, check: Check
) -> None:
    # 600 repetitions: standard error 0.9 %.
    assert alarms(check, kind, independent).mean() <= NOMINAL + 4 * 0.009


@pytest.mark.parametrize(
    ("check", "law"), [(check, law) for check, laws in SEES.items() for law in laws]
)
def test_each_wrong_law_is_seen_by_the_checks_meant_for_it(
    kind: str, independent: Simulated, dependent: Simulated, check: Check, law: str
) -> None:
    samples = dependent if law == f"rho = {RHO}" else independent
    assert alarms(check, kind, samples.scaled(FACTORS[law])).all()


@pytest.mark.parametrize("check", ["exponent", "equivalence", "dependence"])
def test_what_speaks_of_no_size_is_blind_to_it(
    kind: str, independent: Simulated, check: Check
) -> None:
    twice = independent.scaled(FACTORS["init off by sqrt(2)"])
    assert (alarms(check, kind, twice) == alarms(check, kind, independent)).all()


def test_one_correlated_factor_alone_is_no_dependence_of_both() -> None:
    generator, rank = np.random.default_rng(5), 8
    b = equicorrelated(wishart_root(generator, 2000, 64, rank), 0.5)
    a = wishart_root(generator, 2000, 64, rank)
    whole = ((b.transpose(0, 2, 1) @ a) ** 2).sum(axis=(1, 2))
    alone = ((b**2).sum(axis=2) * (a**2).sum(axis=2)).sum(axis=1)
    cross = (whole - alone) / (rank * 64 * 64)
    assert abs(cross.mean()) < 4 * cross.std() / np.sqrt(2000)
    both = equicorrelated(a, 0.5)
    cross = ((b.transpose(0, 2, 1) @ both) ** 2).sum(axis=(1, 2)) / (rank * 64 * 64) - 1
    assert cross.mean() > 1


def test_equivalence_is_shown_at_the_border_as_seldom_as_the_level_says(
    kind: str, independent: Simulated
) -> None:
    for border in BORDERS:
        shown = ~alarms("equivalence", kind, independent.scaled(FACTORS[border]))
        assert 0.01 < shown.mean() < NOMINAL + 4 * 0.009


# ---- the measurements


def test_every_check_meets_every_law_and_borders_meet_the_equivalence_only(
    measured: list[Measurement],
) -> None:
    met = {(m.option, m.parameters["check"], m.parameters["a"]) for m in measured}
    laws = [law for law in FACTORS if law not in BORDERS]
    expected = {(law, check, a) for law in laws for check in CHECKS for a in N}
    assert met == expected | {(law, "equivalence", a) for law in BORDERS for a in N}
    assert len(met) == len(measured)


def test_rates_are_named_for_what_they_are_and_rest_on_a_thousand_repetitions(
    measured: list[Measurement],
) -> None:
    assert min(m.n or 0 for m in measured) >= 1000
    for m in measured:
        if m.option == TRUE_LAW:
            assert m.metric == "false_alarm_rate"
        elif m.option in BORDERS:
            assert m.metric == "false_equivalence_rate"
        else:
            seen = m.option in SEES[m.parameters["check"]]  # type: ignore[index]
            assert m.metric == ("power" if seen else "rejection_rate")


def test_error_rates_keep_their_level_and_every_wrong_law_is_seen(
    measured: list[Measurement],
) -> None:
    for m in measured:
        low, high = m.interval or (np.nan, np.nan)
        if m.metric == "power":
            assert low >= 0.99
        elif m.metric != "rejection_rate":
            assert low <= NOMINAL
            assert high <= 1.5 * NOMINAL
