"""What is timed elsewhere is counted: a benchmark that times something else has other numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks.exact_cases import timed
from benchmarks.micro import test_norms
from benchmarks.suite import lora_workloads

FORWARD = "bench_lora.Forward.time_forward(plain, 16)"
ADAPTED = "bench_lora.Forward.time_forward(adapted, 16)"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    timed._measured.cache_clear()
    yield
    timed._measured.cache_clear()


def test_a_benchmark_of_the_history_that_times_less_has_another_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work, moved = timed.work_of(FORWARD), timed.bytes_of(FORWARD)
    timed._measured.cache_clear()
    monkeypatch.setattr(lora_workloads, "linear_forward", lambda linear, rank: lambda: None)
    assert timed.work_of(FORWARD) == timed.bytes_of(FORWARD) == 0 < min(work, moved)


def test_each_choice_has_a_number_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(8, 8)
    calls = {"plain": lambda: x @ x, "adapted": lambda: x @ x @ x}
    monkeypatch.setattr(lora_workloads, "linear_forward", lambda linear, rank: calls[linear])
    assert timed.work_of(ADAPTED) == 2 * timed.work_of(FORWARD) > 0
    assert len(set(timed.WAYS)) == len(timed.WAYS)


def test_what_a_micro_benchmark_says_of_its_bytes_is_part_of_its_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = timed._micro("test_norms")
    monkeypatch.setattr(test_norms, "preset", lambda name, norm: _half_as_wide(norm))
    assert timed._micro("test_norms") != before


def _half_as_wide(norm: str):
    from reference_model.config import preset

    return preset("gpt2", norm=norm, n_embd=384, n_head=6)
