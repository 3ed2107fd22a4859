"""The power that is planned is the share of runs that decide, and a pilot tells what scatters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.judging.power import Design, Scatter, crossed_power, scatter_of
from benchmarks.judging.stats import crossed_mean_interval

DESIGN = Design(seeds=8, blocks=60, stretches=20)
CLUSTERS = np.arange(DESIGN.blocks) // 3
RUNS = 600


def drawn(
    scatter: Scatter, mean: float, rng: np.random.Generator, seeds: int = DESIGN.seeds
) -> NDArray[np.float64]:
    """One run, (seeds, blocks)."""
    deviations = np.sqrt([scatter.of_seeds, scatter.of_stretches, scatter.of_blocks])
    of_seeds, of_stretches, of_blocks = (
        rng.normal(0, deviation, n)
        for deviation, n in zip(deviations, (seeds, DESIGN.stretches, DESIGN.blocks), strict=True)
    )
    of_both = rng.normal(0, np.sqrt(scatter.of_both), (seeds, DESIGN.blocks))
    return mean + of_seeds[:, None] + of_stretches[CLUSTERS] + of_blocks + of_both


@pytest.mark.parametrize(
    ("scatter", "distance"),
    [
        (Scatter(0.5, 0.02, 0.1, 0.2), 0.9),  # seeds are what scatters
        (Scatter(0.01, 1.0, 0.5, 0.2), 0.7),  # the text is
    ],
)
def test_so_many_runs_decide_as_were_planned(scatter: Scatter, distance: float) -> None:
    rng = np.random.default_rng(5)
    runs = [crossed_mean_interval(drawn(scatter, distance, rng), CLUSTERS) for _ in range(RUNS)]
    share = np.mean([run.interval[0] > 0 for run in runs])
    planned = crossed_power(distance, scatter, DESIGN)
    assert 0.5 < planned < 0.95
    # The interval is wide, and says so: what decides is planned somewhat too low.
    assert planned - 0.03 < share < planned + 0.12


def test_what_scatters_is_found_again_in_pilots_of_stretches_of_any_size() -> None:
    rng, true = np.random.default_rng(6), Scatter(0.4, 0.3, 0.2, 0.6)
    kept = np.flatnonzero(np.arange(DESIGN.blocks) % 7)  # so that stretches differ in size
    pilots = [scatter_of(drawn(true, 0, rng)[:, kept], CLUSTERS[kept]) for _ in repeat(0, RUNS)]
    for name, expected in vars(true).items():
        found = [vars(pilot)[name] for pilot in pilots]
        assert np.mean(found) == pytest.approx(expected, rel=0.06), name


def test_nothing_that_scatters_is_less_than_none() -> None:
    table = np.array([[1.0, -1.0, -1.0, 1.0], [-1.0, 1.0, 1.0, -1.0]])
    found = scatter_of(table, [0, 0, 1, 1])
    assert (found.of_seeds, found.of_stretches, found.of_blocks) == (0, 0, 0)
    assert found.of_both == pytest.approx(8 / 3)


@pytest.mark.parametrize(("seeds", "clusters"), [(1, [0, 0, 1, 1]), (3, range(4)), (3, [0] * 4)])
def test_a_pilot_needs_two_seeds_two_stretches_and_more_blocks(
    seeds: int, clusters: Sequence[int]
) -> None:
    with pytest.raises(ValueError, match="two seeds, two stretches and more blocks"):
        scatter_of(np.ones((seeds, 4)), clusters)


def test_power_is_the_level_on_the_border_and_grows_with_the_distance_the_seeds_and_the_text() -> (
    None
):
    scatter = Scatter(0.5, 0.5, 0.2, 0.2)
    assert crossed_power(0, scatter, DESIGN) == pytest.approx(0.025)
    least = crossed_power(0.5, scatter, DESIGN)
    assert crossed_power(-0.5, scatter, DESIGN) == least
    more = (Design(16, 60, 20), Design(8, 120, 20), Design(8, 60, 40))
    assert min(crossed_power(0.5, scatter, each) for each in more) > least
    assert crossed_power(1.0, scatter, DESIGN) > least
