"""rsLoRA beside LoRA: at one rate, and at the best rate of each."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.lora.one_rate import RATES, SEEDS, WAYS, cells, rslora_is_a_rate
from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import judge_claim
from reference_model.lora import LoRAConfig

HERE = Settings("full", "cpu", 0)


def found_with(gap: float) -> list[tuple[dict[str, Any], Any]]:
    """Valleys around rates a factor of 2 apart; at its best rsLoRA is better by the gap."""
    found = []
    counts = dict.fromkeys(("trained_parameters", "frozen_parameters", "optimizer_bytes"), 1)
    for cell in cells(HERE):
        name, rate = str(cell.parameters["scaling"]), float(cell.parameters["rate"])
        loss = 4 + 0.2 * math.log(rate / WAYS[name].middle) ** 2
        loss -= gap * (name == "alpha/sqrt(r)")
        seed = int(cell.parameters["seed"])
        text = [loss + 0.1 * math.sin(window) + 0.001 * math.sin(seed) for window in range(9)]
        found.append((cell.parameters, {"validation": text, "held_out": text, **counts}))
    return found


def test_the_scales_are_those_of_the_comparison_and_most_rates_are_shared() -> None:
    scales = [LoRAConfig(64, way.alpha, way.scaling).scale for way in WAYS.values()]
    assert scales == [2.0, 8.0]
    lora, rslora = RATES.values()
    assert len({*lora} & {*rslora}) == 5
    assert [len(lora), len(rslora)] == [7, 7]
    assert [lora[3], rslora[3]] == [way.middle for way in WAYS.values()]
    assert len(cells(HERE)) == 2 * 7 * len(SEEDS)


@pytest.mark.parametrize(("gap", "verdict"), [(0.0, "confirmed"), (0.05, "refuted")])
def test_at_one_rate_the_larger_scale_may_win_and_at_the_best_of_each_it_does_not(
    gap: float, verdict: str
) -> None:
    measured = rslora_is_a_rate.combine(HERE, found_with(gap))
    saved = {m.labels["rates"]: m.value for m in measured if m.metric == "loss_saved"}
    assert saved["the best of each"] == pytest.approx(gap, abs=1e-6)
    lowest = min(
        (m for m in measured if m.labels.get("rates") == "one"), key=lambda m: m.labels["rate"]
    )
    # There LoRA is 1½ factors of 2 below its middle, and rsLoRA a half.
    assert lowest.value == pytest.approx(gap + 0.2 * math.log(2) ** 2 * (1.5**2 - 0.5**2))
    (claim,) = (each for each in load_claims() if each.id == "lora.rslora-is-a-rate")
    assert judge_claim(claim, measured)[0].verdict == verdict


def test_a_rate_at_which_a_run_diverged_has_no_loss_and_is_not_the_best() -> None:
    found = found_with(0.0)
    middle = WAYS["alpha/r"].middle
    gone = {"validation": [], "held_out": []}
    found = [
        (labels, {**of_cell, **gone})
        if labels["scaling"] == "alpha/r" and labels["rate"] == middle and labels["seed"] == 30
        else (labels, of_cell)
        for labels, of_cell in found
    ]
    measured = rslora_is_a_rate.combine(HERE, found)
    rates = {m.labels["rate"] for m in measured
             if m.metric == "held_out_loss" and m.option == "alpha/r"}  # fmt: skip
    assert len(rates) == 6
    (best,) = (m for m in measured if m.labels.get("rates") == "the best of each")
    assert best.value > 0.02
