"""A known step is found, a known absence of one too, and the penalty is the measured one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ruptures import KernelCPD

from benchmarks.gate_suite import EXACT_BUT_LONG, NOT_COMPARED, Exactness
from reports.history.calibrate import BAR, LENGTHS, LONG, NOISES, false_step_rates, main
from reports.history.steps import (
    LEAST_SEGMENT,
    LEAST_VALUES,
    MOST_STEPS,
    PENALTY,
    VALUES_PER_FALSE_STEP,
    exact_steps,
    expected_false_steps,
    fits,
    noisy_steps,
)


def scatter(n: int, deviation: float = 0.01, seed: int = 0) -> np.ndarray:
    return np.exp(deviation * np.random.default_rng(seed).standard_normal(n))


@pytest.mark.parametrize("factor", [1.1, 0.9])
def test_a_step_is_found_at_its_commit_with_its_size(factor: float) -> None:
    values = 3e-3 * scatter(20)
    values[12:] *= factor
    (step,) = noisy_steps(values.tolist())
    assert step.at == 12
    assert step.after / step.before == pytest.approx(factor, rel=0.02)
    assert step.before == pytest.approx(3e-3, rel=0.02)


def test_a_step_there_and_back_is_two() -> None:
    values = scatter(30)
    values[10:20] *= 1.2
    assert [step.at for step in noisy_steps(values.tolist())] == [10, 20]


@pytest.mark.parametrize("n", [5, 11, 40, 150])
def test_each_number_of_steps_has_the_fit_that_a_search_for_it_alone_finds(n: int) -> None:
    values = scatter(n, seed=n)
    values[n // 3 :] *= 1.01
    found = list(fits(values.tolist()))
    assert len(found) == min(n // LEAST_VALUES, MOST_STEPS)
    signal = np.log(values) - np.log(np.median(values))
    for count, (_, starts) in enumerate(found, start=1):
        search = KernelCPD(kernel="linear", min_size=LEAST_SEGMENT).fit(signal[:, None])
        assert [*starts[1:], n] == search.predict(n_bkps=count)


@pytest.mark.K8
def test_values_whose_ratio_is_beyond_all_numbers_are_told_apart() -> None:
    values = [5e-324] * 6 + [1e300] * 6
    assert [(s.at, s.before, s.after) for s in noisy_steps(values)] == [(6, 5e-324, 1e300)]
    assert [s.at for s in noisy_steps([-1e300] * 6 + [1e300] * 6)] == [6]


def test_noise_alone_seldom_gives_a_step() -> None:
    rates = false_step_rates(np.random.default_rng(5), PENALTY, n=20)
    assert {(rate["noise"], rate["length"]) for rate in rates} == {
        (noise, length) for noise in NOISES for length in LENGTHS
    }
    assert sum(rate["count"] for rate in rates) <= 8  # of 600; 1 % would be 6


def test_a_penalty_that_is_too_small_is_seen_to_be() -> None:
    rates = false_step_rates(np.random.default_rng(5), PENALTY / 3, n=20)
    assert sum(rate["count"] for rate in rates) > 60


def test_one_slow_run_is_no_step() -> None:
    values = scatter(20)
    values[7] *= 1.5
    assert noisy_steps(values.tolist()) == []


def test_the_newest_commit_alone_is_no_step() -> None:
    values = [*scatter(19).tolist(), 1.5]
    assert noisy_steps(values) == []
    assert [step.at for step in noisy_steps([*values, 1.5])] == [19]


def test_differences_below_what_is_resolved_are_no_step() -> None:
    assert noisy_steps([1.0] * 10 + [1.00001] * 10) == []
    assert [step.at for step in noisy_steps([1.0] * 10 + [1.01] * 10)] == [10]


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 20, [1.0, 1.0, 2.0, 2.0], [0.0] * 9])
def test_too_few_values_or_equal_ones_have_no_step(values: list[float]) -> None:
    assert noisy_steps(values) == []
    assert LEAST_VALUES == 5


def test_a_step_from_zero_and_one_below_it_are_found() -> None:
    assert [step.at for step in noisy_steps([0.0] * 6 + [1.0] * 6)] == [6]
    values = (scatter(20, 0.5) - 1).tolist()
    assert [s.at for s in noisy_steps([*values[:10], *(v - 9 for v in values[10:])])] == [10]


def test_each_difference_of_an_exact_number_is_a_step_the_newest_too() -> None:
    found = exact_steps([5, 5, 6, 6, 5, 4], Exactness())
    assert [(step.at, step.before, step.after) for step in found] == [
        (2, 5, 6),
        (4, 6, 5),
        (5, 5, 4),
    ]
    assert exact_steps([], Exactness()) == exact_steps([7.0], Exactness()) == []


def test_an_exact_number_that_creeps_is_a_step_once_it_left_the_tolerance() -> None:
    found = exact_steps([0.0, 0.6, 1.2, 1.4], Exactness(tolerance=1.0))
    assert [(step.at, step.before, step.after) for step in found] == [(2, 0.0, 1.2)]


def test_what_is_exact_but_not_compared_is_named_in_both_lists() -> None:
    assert EXACT_BUT_LONG.keys() <= NOT_COMPARED.keys()


def test_the_penalty_is_the_one_that_was_measured_and_holds_its_bar(root: Path) -> None:
    path = root / "reports" / "published" / "history_steps.json"
    measured = json.loads(path.read_text(encoding="utf-8"))
    assert measured["penalty"] == PENALTY
    for part in ("false_steps_by_noise", "false_steps_by_length"):
        assert all(rate["interval"][1] <= BAR for rate in measured[part].values())
    for length in LONG:
        rates = [r for r in measured["false_steps_of_long_series"] if r["length"] == length]
        assert {rate["noise"] for rate in rates} == set(NOISES)
        assert all(rate["steps"] / rate["n"] <= expected_false_steps(length) for rate in rates)


def test_the_guide_says_how_often_a_long_series_has_a_false_step(root: Path) -> None:
    path = root / "reports" / "published" / "history_steps.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["false_steps_of_long_series"]
    worst = max(row["steps"] / (row["n"] * row["length"]) for row in rows)
    usual = [row for row in rows if row["noise"] == "white" or row["noise"].startswith("AR")]
    commits = sum(row["n"] * row["length"] for row in usual)
    assert sum(row["steps"] for row in usual) == 1
    text = " ".join(
        (root / "reports" / "history" / "README.md").read_text(encoding="utf-8").split()
    )
    assert f"at most one in {int(1 / worst) // 100 * 100:,} values" in text
    assert f"in white and correlated noise one in {commits / 1e6:.1f} million" in text
    assert f"The page counts on one in {VALUES_PER_FALSE_STEP:,}." in text


def test_false_steps_are_expected_by_the_number_of_values() -> None:
    lengths = (LEAST_VALUES - 1, LEAST_VALUES, 4 * VALUES_PER_FALSE_STEP)
    assert [expected_false_steps(n) for n in lengths] == [0, BAR, 4]


def test_the_calibration_says_what_it_chose_and_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reports.history.calibrate.LONG", (200,))
    out = tmp_path / "new" / "steps.json"
    assert main(["--series", "75", "--seed", "3", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert capsys.readouterr().out.startswith(f"penalty {found['penalty']:g}: a false step in ")
    assert PENALTY - 1 <= found["penalty"] <= PENALTY + 4  # few series: a wider margin
    assert len(found["false_steps"]) == len(NOISES) * len(LENGTHS)
    assert len(found["false_steps_of_long_series"]) == len(NOISES)


@pytest.mark.parametrize(
    ("series", "reason"), [("0", "whole number from 1 on"), ("20", "cannot show a share of 1%")]
)
def test_too_few_series_are_refused(
    capsys: pytest.CaptureFixture[str], series: str, reason: str
) -> None:
    assert main(["--series", series]) == 2
    assert reason in capsys.readouterr().err
