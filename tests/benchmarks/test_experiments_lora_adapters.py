"""Our update beside PEFT's, and the clock beside the plain linear: right ones and wrong ones."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch

from benchmarks.experiments.experiment import Settings, Unavailable
from benchmarks.experiments.lora import adapters as lora_adapters
from benchmarks.experiments.lora import share as lora_share
from benchmarks.experiments.lora import speed as lora_speed
from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import Measurement
from reference_model.lora import LoRALinear

QUICK = Settings("quick", "cpu", seed=0)


@pytest.fixture(scope="module")
def peft() -> Any:
    try:
        return lora_adapters.import_peft()
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def measurements(peft: Any) -> list[Measurement]:
    return lora_adapters.peft_agrees(QUICK)


def verdict(measurements: list[Measurement]) -> str:
    claim = next(entry for entry in load_claims() if entry.id == lora_adapters.CLAIM)
    return judge_claim(claim, measurements)[0].verdict


def of(measurements: list[Measurement], metric: str) -> list[Measurement]:
    return [m for m in measurements if m.metric == metric]


def test_both_libraries_make_the_same_update(measurements: list[Measurement]) -> None:
    found = of(measurements, "update_deviation")
    cases = len(lora_adapters.RANKS) * len(lora_adapters.WIDTHS)
    assert {m.option for m in found} == {"alpha/r", "alpha/sqrt(r)"}
    assert len(found) == 2 * cases
    assert all(m.interval is None for m in found)
    assert verdict(measurements) == "confirmed"


def test_the_updates_that_agree_are_not_nothing(measurements: list[Measurement]) -> None:
    sizes = of(measurements, "largest_update")
    assert min(m.value for m in sizes) > 1000 * 1e-6


def test_logits_agree_after_a_file_took_either_way(measurements: list[Measurement]) -> None:
    found = of(measurements, "logit_deviation")
    assert {m.parameters["way"] for m in found} == {"here to PEFT", "PEFT to here"}
    assert all(m.value < 1e-10 for m in found)


@pytest.mark.parametrize(
    ("wrong", "found"), [(lambda r: 1.0, "confirmed"), (lambda r: r**-0.1, "refuted")]
)
def test_another_exponent_of_the_rank_would_be_seen(
    monkeypatch: pytest.MonkeyPatch, peft: Any, wrong: Any, found: str
) -> None:
    monkeypatch.setattr(lora_adapters, "RANKS", [8, 64])
    right = LoRALinear.delta_weight
    monkeypatch.setattr(
        LoRALinear, "delta_weight", lambda self: right(self) * wrong(self.config.rank)
    )
    generator = torch.Generator().manual_seed(0)
    assert verdict(list(lora_adapters._updates(peft, generator, {"64": (64, 64)}))) == found


def test_without_peft_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(Unavailable, match=r"^PEFT cannot be imported \(.*\); pip install peft$"):
        lora_adapters.peft_agrees(QUICK)


# ---- by the clock


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_speed, "WIDTH", 32)
    monkeypatch.setattr(lora_speed, "TOKENS", 4)
    monkeypatch.setattr(lora_speed, "ROUNDS", 2)
    linears = {"whole": (32, (slice(0, 32),)), "parts": (96, (slice(0, 32), slice(64, 96)))}
    monkeypatch.setattr(lora_speed, "LINEARS", linears)


@pytest.mark.usefixtures("small")
def test_one_process_times_the_plain_the_adapted_and_the_merged_linear() -> None:
    found = lora_speed.seconds()
    assert {name: set(taken) for name, taken in found.items()} == {
        "whole": {"plain", "adapted", "merged"},
        "parts": {"plain", "adapted", "merged"},
    }
    assert min(value for taken in found.values() for value in taken.values()) > 0


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["whole", "parts"])
def test_the_arms_are_what_they_are_called(name: str) -> None:
    x = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(0))
    arms = lora_speed.arms(name, x)
    adapted, merged = arms["adapted"].func, arms["merged"].func  # type: ignore[attr-defined]
    assert isinstance(adapted, LoRALinear)
    assert not adapted.merged
    assert merged.merged
    assert bool(adapted.delta_weight().any())
    assert arms["plain"]().shape == arms["adapted"]().shape == arms["merged"]().shape


def made_up() -> dict[str, Any]:
    taken = {"plain": 2.0, "adapted": 3.0, "merged": 2.0}
    return {"threads": 1, "seconds": dict.fromkeys(lora_speed.LINEARS, taken)}


def test_ratios_are_over_the_plain_linear() -> None:
    found = list(lora_speed.forward_ratios("lora.trainable-share", [made_up()] * 3))
    values = {m.metric: m.value for m in found}
    assert values["adapted_forward_ratio"] == pytest.approx(1.5)
    assert values["merged_forward_ratio"] == pytest.approx(1.0)
    assert all(m.n == 3 for m in found)


@pytest.mark.parametrize(("profile", "timed"), [("smoke", False), ("quick", False), ("full", True)])
def test_only_a_full_run_takes_the_time(
    monkeypatch: pytest.MonkeyPatch, profile: Any, timed: bool
) -> None:
    monkeypatch.setattr(lora_speed, "one_sample", made_up)
    settings = Settings(profile, "cpu", seed=0)
    assert any(cell.timed for cell in lora_share.trainable_share.cells(settings)) == timed
    found = lora_share.trainable_share(settings)
    assert bool(of(found, "adapted_forward_ratio")) == timed
    assert math.isfinite(sum(m.value for m in found))
