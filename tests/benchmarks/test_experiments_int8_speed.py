"""The INT8 models are a quarter or a third as large, and each is timed against the same float32."""

from __future__ import annotations

import pytest

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.int8 import speed as int8_speed
from benchmarks.judging.claims import load_claims
from reference_model.config import preset
from reference_model.model import GPT


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_speed, "PAST", 8)
    monkeypatch.setattr(int8_speed, "PROMPT", 16)
    monkeypatch.setattr(int8_speed, "ROUNDS", 2)


def test_gpt2_takes_a_quarter_of_its_bytes_or_two_fifths_where_weights_are_packed() -> None:
    found = list(int8_speed._sizes(int8_speed.sizes(GPT(preset("gpt2")))))
    claim = next(claim for claim in load_claims() if claim.id == "int8.size-speed")
    (requirement,) = (r for r in claim.requirements if r.metric == "bytes_ratio")
    ratios = {m.option: m.value for m in found if m.metric == "bytes_ratio"}
    assert set(ratios) == set(int8_speed.products())
    sides = {option: requirement.region.side(value, value) for option, value in ratios.items()}
    assert sides.pop("int_mm") == "within"
    # FBGEMM allocates 1,024 inputs for 768, and look-ups have rows of their own.
    assert set(sides.values()) <= {"without"}
    assert 0.25 < ratios["int_mm"] < 0.27
    assert ratios.get("packed", 0.34) <= 0.41
    (float_bytes,) = (m.value for m in found if m.option == "float32")
    assert float_bytes == 4 * 124_439_808


@pytest.mark.usefixtures("toy")
def test_one_process_times_all_formats_in_both_parts() -> None:
    found = int8_speed.seconds(GPT(preset("toy")).eval())
    formats = {"float32", "bfloat16", *int8_speed.products()}
    assert {part: set(taken) for part, taken in found.items()} == {
        "decode": formats,
        "prefill": formats,
    }
    assert min(value for taken in found.values() for value in taken.values()) > 0


def test_ratios_are_float32_over_int8() -> None:
    taken = {
        part: {"float32": 6.0, "bfloat16": 4.0, "int_mm": 2.0} for part in ("decode", "prefill")
    }
    found = list(int8_speed._speeds([{"threads": 2, "seconds": taken}] * 3))
    values = {(m.metric, m.parameters["part"]): m.value for m in found}
    assert values["speedup", "decode"] == pytest.approx(3.0)
    assert values["speedup_over_bfloat16", "prefill"] == pytest.approx(2.0)
    assert {m.option for m in found} == {"int_mm"}


def test_a_float_copy_would_show_in_the_resident_memory() -> None:
    held = {"float32": 900e6, "int_mm": 800e6, "packed": None}
    in_buffers = {"float32": 90_000_000, "int_mm": 20_000_000, "packed": 20_000_000}
    (found,) = int8_speed._resident(held, in_buffers)
    assert (found.option, found.value) == ("int_mm", 30e6)


def test_on_a_gpu_only_bytes_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_speed, "sizes", lambda model: {"float32": 4})
    monkeypatch.setattr(int8_speed, "model_of", lambda settings: None)
    found = int8_speed.size_speed(Settings("quick", "cuda", 0))
    assert [m.metric for m in found] == ["weight_bytes"]


def test_a_run_on_a_cpu_joins_bytes_seconds_and_what_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = dict.fromkeys(("float32", "bfloat16", "int_mm"), 1.0)
    monkeypatch.setattr(int8_speed, "sizes", lambda model: {"float32": 4, "int_mm": 1})
    monkeypatch.setattr(int8_speed, "seconds", lambda model: {"decode": taken, "prefill": taken})
    monkeypatch.setattr(int8_speed, "resident", lambda: {"float32": 9.0, "int_mm": 6.0})
    monkeypatch.setattr(int8_speed, "model_of", lambda settings: None)
    found = int8_speed.size_speed(Settings("full", "cpu", 0))
    assert {m.n for m in found if m.metric == "speedup"} == {int8_speed.PROCESSES}
    assert found[-1].metric == "resident_bytes_saved_beyond_buffers"
