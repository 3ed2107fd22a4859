"""What a chart is drawn from: enough that each of its pixels looks the same, and no more."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.gate_suite import Exactness
from reports.history.plotted import (
    COLUMNS,
    MOST_INTERVALS,
    MOST_MARKS,
    packed,
    plotted,
    plotted_commits,
    thinned,
)
from reports.history.series import FAILED, NOT_MEASURED, SKIPPED, Commit, Point, Series, Setting
from reports.history.steps import Step
from reports.history.view import steps_of
from tests.reports.history.small_history import benchmark_of_asv


def a_series(values: Sequence[float | Point], exactness: Exactness | None = None) -> Series:
    points = [v if isinstance(v, Point) else Point("measured", v, (v - 1, v + 1)) for v in values]
    return Series(benchmark_of_asv("bench.time_step"), (), exactness, points)


def scattered(n: int) -> list[float]:
    return np.exp(0.02 * np.random.default_rng(n).standard_normal(n)).tolist()


def test_each_pixel_keeps_its_least_its_greatest_and_its_last_value() -> None:
    values: list[float | Point] = [*scattered(2000)]
    values[700:720] = [FAILED] * 20
    series = a_series(values)
    columns = defaultdict(list)
    for at, value in series.measured:
        columns[at * COLUMNS // 2000].append((at, value))
    kept = set(thinned(series))
    assert len(kept) < 3 * COLUMNS
    for column in columns.values():
        inside = [value for at, value in column if at in kept]
        assert min(inside) == min(value for _, value in column)
        assert max(inside) == max(value for _, value in column)
        assert column[-1][0] in kept
        assert len(inside) <= 3
    assert kept <= {at for at, _ in series.measured}


@pytest.mark.parametrize("n", [1, 50, COLUMNS, 3 * COLUMNS])
def test_nothing_is_left_out_of_what_fits(n: int) -> None:
    assert thinned(a_series(scattered(n))) == list(range(n))


def test_places_come_back_from_their_distances_with_the_gaps_between() -> None:
    values = [NOT_MEASURED, 1.0, 2.0, FAILED, 3.0, 4.0, SKIPPED, NOT_MEASURED, FAILED, 5.0]
    found = plotted(a_series(values), [])
    assert found["at"] == [-1, 1, -2, 1, -4]
    assert np.cumsum(np.abs(found["at"])).tolist() == [1, 2, 4, 5, 9]
    assert (found["failed"], found["skipped"]) == ([3, 5], [6])
    assert found["commits"] == 10


def test_values_left_out_between_two_pixels_are_no_gap() -> None:
    found = plotted(a_series(scattered(3000)), [])
    assert max(found["at"]) > 1
    assert min(found["at"]) > 0


def test_what_scatters_is_kept_to_four_digits_and_a_count_in_full() -> None:
    values = [1.23456789e-3, 98765.4321, 12.0]
    assert plotted(a_series(values), [])["value"] == [1.235e-3, 98765.0, 12.0]
    assert plotted(a_series([123456789.0], Exactness()), [])["value"] == [123456789.0]


def test_intervals_are_drawn_as_long_as_they_can_be_told_apart() -> None:
    few = plotted(a_series(scattered(MOST_INTERVALS)), [])
    assert len(few["low"]) == len(few["high"]) == MOST_INTERVALS
    assert "low" not in plotted(a_series(scattered(MOST_INTERVALS + 1)), [])
    assert "low" not in plotted(a_series([1.0], Exactness()), [])
    assert plotted(a_series([Point("measured", 5.0), 7.0]), [])["low"] == [None, 6.0]


def test_steps_that_would_hide_the_line_are_not_marked() -> None:
    series = a_series([float(n) for n in range(MOST_MARKS + 2)], Exactness())
    found = steps_of(series)
    assert plotted(series, found)["steps"] == []
    marked = plotted(series, [Step(3, 2.0, 3.0)])["steps"]
    assert marked == [[3, 2.0, 3.0, "+50.0 %"]]


def test_the_commit_of_a_step_is_among_those_that_are_kept() -> None:
    series = a_series(scattered(2000))
    (left_out, *_) = set(range(2000)) - set(thinned(series))
    found = plotted(series, [Step(left_out, 1.0, 1.1)])
    assert left_out in np.cumsum(np.abs(found["at"]))


def test_failures_without_end_are_one_a_pixel() -> None:
    found = plotted(a_series([1.0, *[FAILED] * 5000]), [])
    assert len(found["failed"]) == COLUMNS
    assert sum(found["failed"]) == 5000
    few = plotted(a_series([1.0, *[FAILED] * 20, *[2.0] * 5000]), [])
    assert len(few["failed"]) == 20


def test_commits_are_listed_once_for_all_settings_with_what_was_tried_there() -> None:
    line = [Commit(f"{n}" * 40, "2026-01-01", f"Commit\t {n} \u202e", n) for n in range(6)]
    one = Setting("one", {}, line[1:4], [a_series([1.0, NOT_MEASURED, FAILED])])
    two = Setting("two", {}, line[3:6], [a_series([1.0, NOT_MEASURED, 2.0])])
    commits, settings = plotted_commits([one, two])
    assert commits == [[n, f"{n}" * 8, "2026-01-01", f"Commit {n} \\u202e"] for n in (1, 3, 5)]
    assert settings == [
        {"first": 1, "ends": ["11111111", "33333333"], "commits": [[0, 1], [1, 0]]},
        {"first": 3, "ends": ["33333333", "55555555"], "commits": [[1, 1], [2, 1]]},
    ]


def test_data_are_packed_into_letters_and_are_the_same_each_time() -> None:
    data = {"a": [1, 2.5, "</script>"]}
    text = packed(data)
    assert text.replace("+", "").replace("/", "").replace("=", "").isalnum()
    assert json.loads(gzip.decompress(base64.b64decode(text))) == data
    assert packed(data) == text
    with pytest.raises(ValueError, match="not JSON compliant"):
        packed([math.nan])
