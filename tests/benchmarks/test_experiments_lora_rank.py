"""What a rank pays: verdicts on made-up losses with known answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.lora import rank as pays
from benchmarks.experiments.lora import rate_law
from benchmarks.instruments import rank_sweep
from benchmarks.instruments.finetuning import Outcome
from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import Measurement

FULL = Settings("full", "cpu", seed=0)


def verdict(claim: str, measurements: list[Measurement]) -> str:
    (found,) = (entry for entry in load_claims() if entry.id == claim)
    return judge_claim(found, measurements)[0].verdict


def the(measurements: list[Measurement], metric: str, **wanted: object) -> Measurement:
    (found,) = (
        m
        for m in measurements
        if m.metric == metric and all(m.labels[key] == value for key, value in wanted.items())
    )
    return found


def made_sweep(loss: Callable[[str, int, float], float | None]) -> pays.Sweep:
    """Losses by scaling, rank and rate, with scatter of seeds and windows that pairs take out."""
    windows = np.random.default_rng(0).normal(5, 0.5, 12)
    noise = np.random.default_rng(1)
    found = {}
    for option in pays.SCALINGS:
        for rank in pays.RANKS:
            for rate in pays.rates_of(option):
                mean, outcomes = loss(option, rank, rate), []
                for seed in pays.SEEDS:
                    if mean is None:
                        outcomes.append(Outcome([], [], rank, 100, 8 * rank))
                        continue
                    held = windows + mean + 0.1 * seed + 1e-4 * noise.standard_normal(12)
                    outcomes.append(Outcome([mean], held.tolist(), rank, 100, 8 * rank))
                found[option, rank, rate] = outcomes
    return found


def judged(loss: Callable[[str, int, float], float | None]) -> tuple[str, list[Measurement]]:
    measurements = list(pays.findings(made_sweep(loss)))
    assert len({m.id for m in measurements}) == len(measurements)
    return verdict("lora.rank-pays", measurements), measurements


def off_best(rate: float, best: float) -> float:
    return 0.05 * abs(float(np.log(rate / best)))


def test_a_rank_that_pays_with_one_scaling_only_confirms() -> None:
    def loss(option: str, rank: int, rate: float) -> float:
        saved = 0.01 * np.log2(rank) if option == "alpha/sqrt(r)" else 0.0
        return off_best(rate, pays.EQUAL_RATE) - saved

    found, measurements = judged(loss)
    assert found == "confirmed"
    gain = the(measurements, "loss_gain", option="alpha/sqrt(r)", learning_rate="tuned")
    assert gain.value == pytest.approx(0.06, abs=1e-3)
    assert gain.n == len(pays.SEEDS)
    over = the(measurements, "gain_over_alpha_r", rank=64, learning_rate="equal")
    assert over.value == pytest.approx(0.06, abs=1e-3)


def test_a_rank_that_pays_by_nothing_refutes() -> None:
    found, _ = judged(lambda option, rank, rate: off_best(rate, pays.EQUAL_RATE))
    assert found == "refuted"


def test_a_gain_that_the_learning_rate_explains_depends() -> None:
    # α/r needs a rate that grows with the rank; once it has it, the rank pays there too.
    rates = dict(zip(pays.RANKS, pays.rates_of("alpha/r")[1::2], strict=True))

    def loss(option: str, rank: int, rate: float) -> float:
        best = rates[rank] if option == "alpha/r" else pays.EQUAL_RATE
        return off_best(rate, best) - 0.01 * np.log2(rank)

    found, measurements = judged(loss)
    assert found == "depends"
    equal, tuned = (
        the(measurements, "loss_gain", option="alpha/r", learning_rate=name).value
        for name in ("equal", "tuned")
    )
    assert equal < 0.005 < tuned
    best = [
        the(measurements, "best_learning_rate", option="alpha/r", rank=rank).value
        for rank in pays.RANKS
    ]
    assert best == list(rates.values())


def test_the_best_rate_is_that_of_validation_text_whatever_held_out_text_says() -> None:
    lowest, *_, best, _ = pays.rates_of("alpha/r")
    found = dict(made_sweep(lambda option, rank, rate: off_best(rate, best)))
    lucky = [Outcome([9.0], [0.0] * 12, 1, 1, 1)] * len(pays.SEEDS)
    found["alpha/r", 4, lowest] = lucky
    assert pays.best_rate(found, "alpha/r", 4) == best


def test_what_diverged_is_left_out_unless_it_is_judged() -> None:
    tried = {rate for option in pays.SCALINGS for rate in pays.rates_of(option)}
    top = max(tried)
    _, measurements = judged(lambda option, rank, rate: None if rate == top else rate)
    shown = {m.labels["rate"] for m in measurements if m.metric == "loss_at_rate"}
    assert shown == tried - {top}
    with pytest.raises(ValueError, match="diverged"):
        judged(lambda option, rank, rate: None if rate == pays.EQUAL_RATE else rate)


def test_fine_tunes_are_those_of_the_rate_law_with_more_seeds_and_none_of_them_is_timed() -> None:
    cells = pays.rank_pays.cells(FULL)
    tuned = [each.parameters for each in cells if not each.timed]
    assert len(tuned) == len({tuple(each.values()) for each in tuned}) == 2 * 4 * 8 * 10
    of_the_law = [
        each.parameters
        for each in rate_law.cells(FULL)
        if each.parameters["scaling"] in pays.SCALINGS
    ]
    assert all(each in tuned for each in of_the_law)
    assert len(of_the_law) == 2 * 4 * 7 * 8


def test_losses_and_seconds_come_from_cells_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pays, "RANKS", (4, 16))
    monkeypatch.setattr(pays, "rates_of", lambda option: [1e-3, pays.EQUAL_RATE])
    monkeypatch.setattr(pays, "SEEDS", range(2))
    monkeypatch.setattr(
        rank_sweep,
        "run",
        lambda spec, device: Outcome(
            [spec.learning_rate], [1.0 / spec.rank, 1.0 + spec.seed], 4, 100, 32
        ),
    )
    monkeypatch.setattr(pays, "step_seconds", lambda specs, device: [s.rank / 10 for s in specs])
    found = pays.rank_pays(FULL)
    assert the(found, "best_learning_rate", option="alpha/r", rank=4).value == 1e-3
    seconds = the(found, "seconds_per_step", rank=16)
    assert seconds.value == pytest.approx(1.6)
    assert seconds.n == pays.PROCESSES
    assert the(found, "trained_share", rank=16).value == 4
