"""The law of the best learning rate: how its rule reads a valley, and how surely it tells a law."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.lora import rate_law as experiment
from benchmarks.experiments.lora.rate_law import SEEDS, cells
from benchmarks.instruments.rank_sweep import LAWS, RANKS
from benchmarks.instruments.rate_law import RULES, best_rate, exponents, resampled

HERE = Settings("full", "cpu", 0)
RATES = 2e-3 * 2.0 ** np.arange(-3, 4)


def valleys(exponent: float, noise: float, seeds: int = 8) -> NDArray[np.float64]:
    """(seeds, ranks, rates): slopes of 0.1 nats below the best rate and a wall above it."""
    best = np.log(2e-3) + exponent * (np.log(RANKS) - np.log(RANKS).mean())
    off = np.log(RATES)[None] - best[:, None]
    shape = np.where(off < 0, 0.1 * off**2, 0.5 * off**2)
    draws = np.random.default_rng(0)
    return 4 + shape + draws.normal(0, noise, (seeds, *shape.shape))


@pytest.mark.parametrize("points", RULES.values())
def test_the_lowest_point_of_a_parabola_is_found(points: int) -> None:
    losses = 3 + 0.7 * (np.log(RATES) - math.log(3e-3)) ** 2
    assert best_rate(RATES, losses, points) == pytest.approx(3e-3)


@pytest.mark.parametrize(
    ("losses", "least", "most"),
    [
        ([1.0, 2, 3, 4, 5, 6, 7], 0, 0),  # the valley lies below all that were tried
        ([5.0, 4, 3.5, 3, 3.2, math.inf, math.inf], 2, 4),
        ([1.0, 9, 9, 3, 9, 9, 1.1], 0, 0),  # a hill: the lowest of them
    ],
)
def test_a_valley_at_an_end_or_with_runs_that_diverged_is_read_within_what_was_tried(
    losses: list[float], least: int, most: int
) -> None:
    found = best_rate(RATES, np.array(losses), 3)
    assert RATES[least] * (1 - 1e-9) <= found <= RATES[most] * (1 + 1e-9)


def test_too_few_runs_are_no_valley() -> None:
    with pytest.raises(ValueError, match="2 of 3 losses are finite: no valley"):
        best_rate(RATES[:3], np.array([1.0, math.inf, 2.0]), 3)


@pytest.mark.parametrize("exponent", [0.0, -0.25, -0.5])
def test_an_exponent_is_that_of_the_valleys(exponent: float) -> None:
    found = exponents(np.array(RANKS), RATES, valleys(exponent, 0.0), RULES["three lowest"])
    assert found == pytest.approx([exponent] * 8, abs=0.1)


def test_a_law_is_told_and_one_that_is_off_by_a_quarter_is_not_taken_for_it() -> None:
    losses = valleys(-0.25, 0.005)
    right, wrong = (
        resampled(np.array(RANKS), RATES, losses, -0.25, planted, 3, designs=100)
        for planted in (-0.25, -0.5)
    )
    assert right.within > 0.9
    assert right.mean == pytest.approx(-0.25, abs=0.06)
    assert wrong.within < 0.05
    noisy = resampled(np.array(RANKS), RATES, valleys(-0.25, 0.3), -0.25, -0.25, 3, designs=50)
    assert noisy.within < 0.5


def test_the_cells_make_exponents_and_the_power_of_the_design() -> None:
    found: list[tuple[dict[str, Any], Any]] = []
    for cell in cells(HERE):
        labels = cell.parameters
        law = LAWS[str(labels["scaling"])]
        best = math.log(law.middle) + law.exponent * math.log(int(labels["rank"]) / 32)
        loss = 4 + 0.3 * (math.log(float(labels["rate"])) - best) ** 2
        loss += 1e-3 * math.sin(100 * loss + int(labels["seed"]))
        counts = dict.fromkeys(("trained_parameters", "frozen_parameters", "optimizer_bytes"), 1)
        found.append((labels, {"validation": [loss], "held_out": [loss], **counts}))
    assert len(found) == len(LAWS) * len(RANKS) * 7 * len(SEEDS)
    measured = experiment.learning_rate_law.combine(HERE, found)
    by_name = {(m.metric, *m.labels.values()): m.value for m in measured}
    for name, law in LAWS.items():
        found_exponent = by_name["exponent", name, "three lowest"]
        assert found_exponent == pytest.approx(law.exponent, abs=0.03), name
        assert by_name["told_as_the_law", name, "the law", "three lowest"] > 0.95
        assert by_name["told_as_the_law", name, "off by a quarter", "three lowest"] < 0.05
