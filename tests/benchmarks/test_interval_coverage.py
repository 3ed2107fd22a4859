"""Intervals over some windows hold the mean over all, on differences that were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.experiments.interval_coverage import DRAWS, PROFILES, Coverage, coverages
from benchmarks.instruments.texts import play_windows
from benchmarks.judging.claims import Region
from benchmarks.judging.stats import mean_interval

pytestmark = pytest.mark.K10

KEPT = Path("reports/published/window_differences.json")
# Of a side that errs in 2.5 % of the draws: what is above is chance in one of a thousand.
ERRORS_AT_MOST = int(binom.ppf(0.999, DRAWS, 0.025))


@pytest.fixture(scope="module")
def kept(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / KEPT).read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def found(kept: dict[str, Any]) -> list[Coverage]:
    return list(coverages(kept))


def test_every_window_of_the_test_plays_is_kept_for_every_quantity(kept: dict[str, Any]) -> None:
    windows = play_windows("test", kept["tokens of a window"])
    assert kept["stretches"] == windows.stretches.tolist()
    assert kept["population"] == windows.population
    assert {name: np.shape(rows) for name, rows in kept["nats/token"].items()} == {
        "INT8 weights per tensor": (1, len(windows)),
        "INT8 weights per channel": (1, len(windows)),
        "INT8 gamma and beta per tensor": (1, len(windows)),
        "3-bit keys and values": (5, len(windows)),
    }


def test_intervals_hold_the_mean_over_all_windows_in_nine_of_ten_draws(
    found: list[Coverage],
) -> None:
    assert len(found) == 4 * len(PROFILES)
    assert {each.quantity: each.held / DRAWS for each in found if each.held < 0.9 * DRAWS} == {}


def test_a_difference_at_a_border_is_called_no_more_often_than_the_level_says(
    found: list[Coverage],
) -> None:
    assert all(each.held + each.confirmed + each.refuted == DRAWS for each in found)
    assert max(each.confirmed for each in found) <= ERRORS_AT_MOST
    assert max(each.refuted for each in found) <= ERRORS_AT_MOST


def test_windows_in_a_row_taken_as_independent_hold_it_seldom(kept: dict[str, Any]) -> None:
    """What was done before: the known absence of coverage."""
    rows = np.array(kept["nats/token"]["INT8 weights per tensor"][0])
    region = Region("at_most", (rows.mean(),))
    sides = [
        region.side(*mean_interval(rows[at : at + 40]).interval) for at in range(len(rows) - 40)
    ]
    assert sides.count("across") < 0.6 * len(sides)
