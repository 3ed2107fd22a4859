"""Options side by side: which arm is judged, by which seeds, and what a difference says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.norms.quality import COMPARED as NORMS
from benchmarks.experiments.positions.quality import COMPARED as POSITIONS
from benchmarks.experiments.tying.quality import COMPARED as TYING
from benchmarks.instruments.comparison import (
    FIRST_SEED,
    TUNING_SEEDS,
    Arm,
    Comparison,
    arms,
)
from benchmarks.instruments.trained_models import HALF, WHOLE, held_out
from benchmarks.record.results import Measurement

HERE = Settings("full", "cpu", 0)
SMALL = Comparison(
    "norm.quality",
    {"pre": arms("baseline", (1e-3, 2e-3)), "post": arms("post", (1e-3, 2e-3), (100, 400))},
    seeds=5,
    comparisons=1,
    scatter=0.018,
)
Losses = Callable[[Arm, int], NDArray[np.float64]]  # of a run, by its seed: (windows,)


def found_of(compared: Comparison, losses: Losses, diverged: tuple[str, int] = ("", 0)) -> list:
    """What cells would have found whose losses these are, first stage and second."""
    found: list[tuple[dict[str, Any], Any]] = []
    while cells := (compared.further(HERE, found) if found else compared.cells(HERE)):
        for cell in cells:
            labels = cell.parameters
            arm = Arm(str(labels["option"]), float(labels["rate"]), int(labels["warmup"]))
            gone = (arm.trained, labels["seed"]) == diverged
            told = [] if gone else losses(arm, int(labels["seed"])).tolist()
            outcome = {
                "losses": told,
                "outcome": "diverged" if gone else "trained",
                "reason": "",
            }
            tokens = (HALF, WHOLE) if labels["tokens"] == WHOLE else (HALF,)
            found.append((labels, {"by_tokens": {str(n): outcome for n in tokens}, "curve": []}))
    return found


def scattered(effect: float, draws: np.random.Generator) -> Losses:
    """Post-LN is better by the effect; seeds scatter by 0.01, runs by 0.01, windows by 0.3."""
    windows = draws.normal(4, 0.3, len(held_out()))
    of_seeds: dict[int, float] = {}

    def losses(arm: Arm, seed: int) -> NDArray[np.float64]:
        own = of_seeds.setdefault(seed, draws.normal(0, 0.01)) + draws.normal(0, 0.01)
        text = windows + draws.normal(0, 0.02, len(windows))
        return text + own - effect * (arm.trained == "post") + 0.1 * (arm.rate != 2e-3)

    return losses


def by_metric(found: list, metric: str) -> list[Measurement]:
    return [m for m in SMALL.told(found) if m.metric == metric]


# ---- which cells


def test_every_arm_is_tried_and_the_best_is_judged_on_other_seeds() -> None:
    found = found_of(SMALL, scattered(0.1, np.random.default_rng(0)))
    tried = {(c["option"], c["rate"], c["warmup"]) for c, _ in found if c["tokens"] == HALF}
    assert len(tried) == 6
    judged = [c for c, _ in found if c["tokens"] == WHOLE]
    assert {c["rate"] for c in judged} == {2e-3}
    assert {c["seed"] for c in judged} == {*range(FIRST_SEED, FIRST_SEED + 5)}
    assert {c["seed"] for c in judged}.isdisjoint(TUNING_SEEDS)
    assert len(judged) == 10
    assert SMALL.further(HERE, found) == []


def test_a_rate_at_which_a_run_diverges_is_not_the_best() -> None:
    losses = scattered(0.0, np.random.default_rng(0))
    found = found_of(SMALL, losses, diverged=("baseline", TUNING_SEEDS[0]))
    assert SMALL.best(found, "post").rate == 2e-3
    told = by_metric(found, "tuning_loss")
    assert {m.parameters["rate"] for m in told if m.option == "pre"} == set()


def test_claims_share_the_cells_of_the_baseline() -> None:
    def cells(compared: Comparison) -> set[tuple[Any, ...]]:
        return {
            (cell.shared, *sorted(cell.parameters.items()))
            for cell in compared.cells(HERE)
            if cell.parameters["option"] == "baseline"
        }

    assert cells(POSITIONS) == cells(NORMS) < cells(TYING)
    assert all(cell.shared for cell in POSITIONS.cells(HERE))


def test_a_design_says_what_it_can_tell() -> None:
    assert SMALL.design == (
        "5 seeds find a difference of 0.03 nats in 80 of 100 runs, if pairs scatter by 0.018 as "
        "in a pilot"
    )
    assert "0.05 nats" in replace(SMALL, comparisons=6).design


# ---- what is found


def test_an_advantage_is_the_paired_difference_and_has_its_sign() -> None:
    found = found_of(SMALL, scattered(0.1, np.random.default_rng(0)))
    (forth,) = SMALL.advantage(found, "post", "pre", WHOLE, {"equal": "tokens"})
    (back,) = SMALL.advantage(found, "pre", "post", WHOLE)
    assert forth.value == pytest.approx(0.1, abs=0.03)
    assert forth.value == pytest.approx(-back.value)
    assert forth.parameters == {"equal": "tokens", "tokens": WHOLE, "seeds": 5}
    assert (forth.n, forth.population) == (5, "the text of 5 plays")
    (wider,) = replace(SMALL, comparisons=10).advantage(found, "post", "pre", WHOLE)
    assert forth.interval is not None
    assert wider.interval is not None
    assert wider.interval[0] < forth.interval[0] < forth.interval[1] < wider.interval[1]


def test_an_option_is_not_told_apart_from_itself() -> None:
    tied = {"tied": arms("baseline", (2e-3,))}
    twice = Comparison("tying.quality", tied, seeds=10, comparisons=1, scatter=0.006)
    losses = scattered(0.0, np.random.default_rng(3))
    (same,) = twice.same_twice(found_of(twice, losses), "tied", WHOLE)
    assert (same.value, same.parameters["comparisons"], same.parameters["seeds"]) == (0, 20, 5)

    diverged = found_of(twice, losses, ("baseline", FIRST_SEED))
    assert twice.same_twice(diverged, "tied", WHOLE) == []


def test_a_run_that_diverged_is_told_and_leaves_no_advantage() -> None:
    losses = scattered(0.0, np.random.default_rng(0))
    found = found_of(SMALL, losses, diverged=("post", FIRST_SEED))
    assert SMALL.advantage(found, "post", "pre", WHOLE) == []
    lost = {m.option: m.value for m in by_metric(found, "runs_not_trained")}
    assert lost == {"pre": 0, "post": 1}
    assert {m.option for m in by_metric(found, "held_out_loss")} == {"pre"}


@pytest.mark.parametrize(
    ("effect", "fewest", "most"), [(0.0, 0, 17), (0.05, 190, 200)], ids=["same", "planted"]
)
def test_the_same_option_twice_is_seldom_told_apart_and_a_planted_effect_is_found(
    effect: float, fewest: int, most: int
) -> None:
    told = 0
    for draw in range(200):
        found = found_of(SMALL, scattered(effect, np.random.default_rng(draw)))
        (saved,) = SMALL.advantage(found, "post", "pre", WHOLE)
        assert saved.interval is not None
        told += saved.interval[0] > 0 or saved.interval[1] < 0
    assert fewest <= told <= most
