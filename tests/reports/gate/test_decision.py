"""The rule: arithmetic on log-ratios, its levels exact, its power where it was chosen to be."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import wilcoxon

from reports.gate.decision import (
    UNSTABLE,
    Rule,
    critical_sums,
    decide,
    outcomes_of_runs,
    rank_sum,
    survival,
)
from reports.gate.simulate import by_means, pairs_of, rates

RULE = Rule()


def log_ratios(
    pairs: int = RULE.most_pairs, benchmarks: int = 3, scatter: float = 0.01, seed: int = 0
) -> np.ndarray:
    return pairs_of(np.random.default_rng(seed), (1, pairs, benchmarks), scatter)[0]


def test_equal_arms_pass_and_the_pairs_after_the_decision_are_not_looked_at() -> None:
    x = log_ratios()
    decision = decide(x, RULE)
    assert (decision.outcome, decision.final, decision.reason) == ("pass", True, "")
    assert decision.pairs < RULE.most_pairs
    x[decision.pairs :] = 1.0
    assert decide(x, RULE) == decision


@pytest.mark.parametrize("slowdown", [0.03, 0.05, 0.5])
def test_one_slow_benchmark_is_a_regression_of_the_run_and_of_itself_alone(
    slowdown: float,
) -> None:
    x = log_ratios()
    x[:, 1] += math.log1p(slowdown)
    decision = decide(x, RULE)
    assert decision.outcome == "regression"
    assert [b.outcome == "regression" for b in decision.benchmarks] == [False, True, False]
    low, high = decision.benchmarks[1].interval
    assert low < 1 + slowdown < high
    assert low > 1


def test_what_is_faster_passes_and_its_interval_says_so() -> None:
    decision = decide(log_ratios() - math.log(1.2), RULE)
    assert decision.outcome == "pass"
    assert all(b.interval[1] < 1 for b in decision.benchmarks)


def test_before_the_first_look_nothing_is_decided_and_intervals_are_unbounded() -> None:
    decision = decide(log_ratios(RULE.looks[0] - 1) + 1, RULE)
    assert (decision.outcome, decision.final) == ("inconclusive", False)
    assert "too few" in decision.reason
    assert decision.benchmarks[0].interval == (0, math.inf)


def test_between_two_looks_the_earlier_one_stands() -> None:
    x = log_ratios(scatter=0.05)
    at, between = (decide(x[:pairs], RULE) for pairs in (RULE.looks[1], RULE.looks[1] + 1))
    assert between == at
    assert not at.final


def test_pairs_that_scatter_too_much_stay_inconclusive_until_the_last() -> None:
    x = log_ratios(scatter=0.2)
    assert not decide(x[:-1], RULE).final
    decision = decide(x, RULE)
    assert (decision.outcome, decision.final) == ("inconclusive", True)
    assert "3 of the benchmarks undecided after 50 pairs" in decision.reason


@pytest.mark.parametrize("sign", [1, -1])
def test_a_control_that_differs_makes_the_machine_unstable_whatever_else_was_found(
    sign: int,
) -> None:
    x = log_ratios()
    x[:, 0] += 0.1
    x[:, 2] += 0.1 * sign
    decision = decide(x, RULE, control=2)
    assert (decision.outcome, decision.reason, decision.final) == ("inconclusive", UNSTABLE, True)


def test_a_control_is_not_asked_to_pass() -> None:
    x = log_ratios()
    x[:, 2] = log_ratios(scatter=0.3)[:, 2]
    assert decide(x, RULE, control=2).outcome == "pass"


def test_a_benchmark_that_is_decided_need_not_be_measured_any_more() -> None:
    x = log_ratios(scatter=0.004)
    x[:, 1] = log_ratios(scatter=0.08)[:, 1]
    x[RULE.looks[2] :, [0, 2]] = np.nan
    decision = decide(x, RULE)
    assert [b.outcome for b in decision.benchmarks[::2]] == ["pass", "pass"]
    assert decision.benchmarks[1].pairs > RULE.looks[2]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_pair_without_a_number_is_an_error_and_never_unchanged(bad: float) -> None:
    x = log_ratios()
    x[3, 1] = bad
    with pytest.raises(ValueError, match="benchmark 1 has no number"):
        decide(x, RULE)


@pytest.mark.parametrize("shape", [(5,), (5, 0)])
def test_no_benchmark_at_all_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="need"):
        decide(np.zeros(shape), RULE)


def test_rank_sums_and_their_law_are_those_of_scipy() -> None:
    x = log_ratios(17, 1)[:, 0]
    expected = wilcoxon(x, alternative="greater", method="exact")
    found = rank_sum(x[None, :, None])[0, 0]
    assert found == expected.statistic
    assert survival(17)[int(found)] == pytest.approx(expected.pvalue, rel=1e-12)


@pytest.mark.parametrize("level", [0.01 / 13, 0.025])
def test_the_levels_spent_at_all_looks_add_up_to_no_more_than_the_level(level: float) -> None:
    sums = critical_sums(RULE.looks, level)
    spent = [
        survival(pairs)[int(least)] if math.isfinite(least) else 0.0
        for pairs, least in zip(RULE.looks, sums, strict=True)
    ]
    assert 0.9 * level < sum(spent) <= level


def test_an_interval_ends_where_the_test_of_a_pass_begins_to_reject() -> None:
    x = log_ratios(RULE.looks[2], 1, scatter=0.02)
    judged = decide(x, RULE).benchmarks[0]
    x, high = x[: judged.pairs], math.log(judged.interval[1])
    for step, passes in ((-1e-9, False), (1e-9, True)):
        rule = replace(RULE, slowdown=math.expm1(high + step), margin=1e-6)
        sums = critical_sums(rule.looks, rule.false_pass)
        found = rank_sum(math.log1p(rule.slowdown) - x[None])[0, 0]
        assert bool(found >= sums[RULE.looks.index(judged.pairs)]) == passes


def test_many_runs_at_once_are_decided_as_each_alone() -> None:
    x = pairs_of(np.random.default_rng(1), (60, RULE.most_pairs, 4), 0.03)
    x[:, :, 0] += np.linspace(-0.02, 0.08, 60)[:, None]
    x[::9, :, 3] += 0.05
    outcomes, pairs = outcomes_of_runs(x, RULE, control=3)
    alone = [decide(run, RULE, control=3) for run in x]
    assert list(outcomes) == [decision.outcome for decision in alone]
    assert list(pairs) == [decision.pairs for decision in alone]
    assert set(outcomes) == {"regression", "pass", "inconclusive"}


def test_a_budget_is_asked_with_the_benchmarks_that_each_pair_of_a_run_measures() -> None:
    """Those that no look before it has passed; what a look needs must be affordable."""
    rng = np.random.default_rng(1)
    x = pairs_of(rng, (60, RULE.most_pairs, 4), 0.03) + np.linspace(-0.02, 0.08, 60)[:, None, None]
    asked = []

    def fourteen(measured: np.ndarray) -> np.ndarray:
        asked.append(measured)
        return np.full(60, 14)

    outcomes, pairs = outcomes_of_runs(x, RULE, control=3, affordable=fourteen)
    assert asked[0].shape == (60, RULE.most_pairs)
    for run, measured, outcome, taken in zip(x, asked[0], outcomes, pairs, strict=True):
        decision = decide(run[:14], RULE, control=3)
        assert outcome == decision.outcome
        assert taken == (decision.pairs if decision.final else 14)
        for pair in range(taken):
            judged = decide(run[:pair], RULE, control=3).benchmarks[:3]
            assert measured[pair] == sum(each.outcome != "pass" for each in judged)
    assert len(np.unique(asked[0][:, :14])) == 4


@pytest.mark.parametrize(
    "wrong", [{"margin": 0.0}, {"margin": 0.05}, {"looks": (12, 8)}, {"looks": (1, 8)}]
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must"):
        replace(RULE, **wrong)


# ---- what the rule was chosen by, coarsely


@pytest.mark.parametrize(
    ("scatter", "found", "most_pairs"), [(0.01, 0.96, 16), (0.014, 0.95, 20), (0.02, 0.95, 30)]
)
def test_three_percent_is_found_among_independent_pairs(
    scatter: float, found: float, most_pairs: int
) -> None:
    slow = rates(RULE, scatter, slowdown=0.03, runs=200)
    assert slow.regression >= found
    assert slow.passed <= 0.05
    assert slow.median_pairs <= most_pairs


def test_equal_arms_are_no_regression_even_if_each_pair_is_like_the_one_before() -> None:
    assert rates(RULE, 0.02, runs=200).regression == 0
    assert rates(RULE, 0.014, correlation=0.6, runs=200).regression <= 0.02


def test_a_rule_on_means_cries_wolf_more_often_where_pairs_are_alike() -> None:
    ranks, means = (
        rates(RULE, 0.02, correlation=0.6, runs=300, **judge) for judge in ({}, {"judge": by_means})
    )
    assert ranks.regression < means.regression


def test_simulated_pairs_have_the_scatter_and_the_correlation_that_was_asked_for() -> None:
    x = pairs_of(np.random.default_rng(0), (200, 50, 4), 0.02, 0.6)
    assert x.std() == pytest.approx(0.02, rel=0.03)
    before, after = x[:, :-1].ravel(), x[:, 1:].ravel()
    assert np.corrcoef(before, after)[0, 1] == pytest.approx(0.6, abs=0.03)
