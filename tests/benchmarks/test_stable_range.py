"""The largest rate that trains: how it is looked for, and what the experiments make of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.norms import stable_range as experiment
from benchmarks.experiments.norms.quality import COMPARED as PLACEMENTS
from benchmarks.experiments.norms.variants import COMPARED as VARIANTS
from benchmarks.experiments.norms.variants import cells as cells_of_variants
from benchmarks.instruments import stable_range
from benchmarks.instruments.stable_range import RATES, largest_stable

HERE = Settings("full", "cpu", 0)


@pytest.mark.parametrize("border", [*RATES, 0.0])
def test_the_border_is_found_wherever_it_is(border: float) -> None:
    asked: set[float] = set()

    def loss(rate: float) -> float:
        asked.add(rate)
        return 5.0 if rate <= border else 5.8

    assert largest_stable(loss, 5.5) == (border or RATES[0] / 2)
    assert len(asked) <= 5


def test_small_rates_that_are_too_slow_do_not_hide_a_larger_one_that_trains() -> None:
    losses = dict.fromkeys(RATES, 5.8) | dict(zip(RATES, [5.75, 5.65, 5.4, 5.8], strict=False))
    assert largest_stable(lambda rate: losses[rate], 5.5) == RATES[2]
    losses[RATES[2]] = 5.55
    assert largest_stable(lambda rate: losses[rate], 5.5) == RATES[0] / 2


def test_a_cell_tells_the_largest_rate_and_all_that_it_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = {rate: 5.0 if rate < 0.03 else math.inf for rate in RATES}
    monkeypatch.setattr(stable_range, "loss_at", lambda *of: losses[of[-1]])
    monkeypatch.setattr(stable_range, "unigram_entropy", lambda: 5.3)
    found = stable_range.measure(HERE, "baseline", 4, 0, 120)
    assert found["largest"] == 2.0**-6
    assert dict(map(tuple, found["tried"])) == {
        rate: 5.0 if rate < 0.03 else None for rate, _ in found["tried"]
    }
    monkeypatch.setattr(stable_range, "unigram_entropy", lambda: 5.1)
    assert stable_range.measure(HERE, "baseline", 4, 0, 120)["largest"] == RATES[0] / 2


def test_a_run_ends_at_its_rate_and_one_that_diverges_has_no_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows = stable_range.some_held_out()[np.arange(8)]
    monkeypatch.setattr(stable_range, "some_held_out", lambda: windows)
    monkeypatch.setattr(stable_range, "STEPS", {4: 6})
    slow, fast = (stable_range.loss_at(HERE, "baseline", 4, 0, 120, rate) for rate in (1e-5, 1e-2))
    assert fast < slow - 0.1
    assert slow == pytest.approx(math.log(1024), abs=0.1)
    assert stable_range.loss_at(HERE, "baseline", 4, 0, 120, math.inf) == math.inf


def test_the_ratio_is_paired_by_seed_and_each_depth_and_warm_up_is_a_case() -> None:
    cells = experiment.cells_of(("baseline", "post"))
    found: list[tuple[dict[str, Any], Any]] = [
        (
            cell.parameters,
            {"largest": 2.0 ** (cell.parameters["seed"] - 125)
             * (8 if cell.parameters["option"] == "baseline" else 1)},
        )
        for cell in cells
    ]  # fmt: skip
    measured = list(
        experiment.ratios("norm.stable-range", found, "baseline", "post", "pre", "post")
    )
    assert [m.value for m in measured] == pytest.approx([8.0] * 4)
    assert all(m.interval == pytest.approx((8.0, 8.0)) for m in measured)
    cases = {(m.parameters["depth"], m.parameters["warmup_steps"]) for m in measured}
    assert cases == {(4, 0), (4, 100), (12, 0), (12, 100)}
    (rate, *_) = experiment.rates("norm.stable-range", found, {"post": "post"})
    assert rate.value == pytest.approx(2.0**-4)


def test_variants_share_the_cells_of_placements_and_their_stable_rates() -> None:
    def keys(cells: list) -> set[tuple[Any, ...]]:
        return {(cell.shared, *sorted(cell.parameters.items())) for cell in cells}

    of_variants = keys(cells_of_variants(HERE))
    assert keys(PLACEMENTS.cells(HERE)) < of_variants
    assert keys(experiment.cells_of(("baseline",))) < of_variants
    assert VARIANTS.seeds_of == {"pre": 10, "rmsnorm": 10}
