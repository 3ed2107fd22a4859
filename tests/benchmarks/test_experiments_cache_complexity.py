"""Degrees are read off exactly, and are those of what was really computed."""

from __future__ import annotations

import pytest

from benchmarks.experiments.cache import complexity as experiments
from benchmarks.experiments.cache.complexity import (
    complexity,
    counted_flops,
    polynomial_degree,
    slope,
)
from benchmarks.experiments.experiment import Settings
from reference_model.config import GPTConfig
from reference_model.model import GPT

SMALL = GPTConfig(vocab_size=31, context_length=128, n_layer=2, n_head=2, n_embd=8)
LENGTHS = range(1, 9)


@pytest.fixture
def model() -> GPT:
    return GPT(SMALL).eval()


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
def test_a_known_polynomial_has_its_degree(degree: int) -> None:
    assert polynomial_degree([3 * T**degree + 5 * T ** (degree // 2) for T in LENGTHS]) == degree


def test_what_is_no_polynomial_has_none() -> None:
    with pytest.raises(ValueError, match="no difference is constant"):
        polynomial_degree([2**T for T in LENGTHS])
    one_off = [T**2 for T in LENGTHS]
    one_off[4] += 1
    with pytest.raises(ValueError, match="no difference is constant"):
        polynomial_degree(one_off)


def test_the_cache_lowers_each_degree_by_one() -> None:
    found = complexity(Settings("smoke", "cpu", 0))
    degrees = {
        (m.option, m.parameters["part"]): m.value for m in found if m.metric == "polynomial_degree"
    }
    assert degrees == {
        ("uncached", "projections"): 2,
        ("cached", "projections"): 1,
        ("uncached", "attention"): 3,
        ("cached", "attention"): 2,
    }
    assert all(m.interval is None for m in found)
    assert "time_exponent" not in {m.metric for m in found}


def test_counts_that_the_closed_form_does_not_know_are_an_error(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert counted_flops(model, 3, use_cache=True)["attention"] > 0
    monkeypatch.setattr(experiments, "closed_form", lambda *given: {"projections": 0})
    with pytest.raises(ValueError, match="the closed form says"):
        counted_flops(model, 3, use_cache=True)


def test_a_model_that_reads_everything_twice_is_seen(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    intact = model.h[0].mlp.forward
    monkeypatch.setattr(model.h[0].mlp, "forward", lambda x: intact(x) + 0 * intact(x))
    with pytest.raises(ValueError, match="the closed form says"):
        counted_flops(model, 3, use_cache=True)


def test_an_exponent_is_the_slope_on_log_axes() -> None:
    assert slope({T: 7.0 * T**1.5 for T in (8, 16, 64)}) == pytest.approx(1.5, abs=1e-12)


def test_exponents_of_time_are_one_observation_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings("quick", "cpu", 0)
    samples = iter([{"cached": 1.0 + 0.1 * i, "uncached": 2.0 + 0.1 * i} for i in range(3)])
    monkeypatch.setattr(experiments, "exponents_of_seconds", lambda device: next(samples))
    monkeypatch.setattr(experiments, "LONGER", ())  # the counts are another test's
    found = [m for m in complexity(settings) if m.metric == "time_exponent"]
    assert {(m.option, round(m.value, 6), m.n) for m in found} == {
        ("cached", 1.1, 3),
        ("uncached", 2.1, 3),
    }
    assert [cell.timed for cell in complexity.cells(settings)] == [False, True, True, True]


def test_a_process_times_both_arms_over_all_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(arms: dict, rounds: int) -> dict[str, list[float]]:
        assert [len(run()[0]) for run in arms.values()] == [9, 17, 33, 65, 129] * 2
        powers = {"cached": 1, "uncached": 2}
        return {name: [float(name.split()[1]) ** powers[name.split()[0]]] * rounds for name in arms}

    monkeypatch.setattr(experiments, "interleaved_durations", taken)
    monkeypatch.setattr(experiments, "preset", lambda name: SMALL)
    found = experiments.exponents_of_seconds("cpu")
    assert found == pytest.approx({"cached": 1, "uncached": 2})
