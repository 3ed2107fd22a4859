"""The clock: every sample is kept, and a new process is a new observation."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch

import reference_model
from benchmarks.instruments import clock
from benchmarks.instruments.clock import (
    GenerationTiming,
    durations,
    fresh_process_samples,
    generation_timing,
    interleaved_durations,
)
from tests.benchmarks.stand_in_cuda import Cuda

THIS = "test_clock"


class Time:
    """A clock that stands still until someone spends seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def spend(self, seconds: float) -> Callable[[], None]:
        def function() -> None:
            self.now += seconds

        return function


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(clock, "perf_counter", lambda: time.now)
    return time


# ---- durations


def test_the_warm_up_is_run_but_not_kept() -> None:
    calls: list[int] = []
    samples = durations(lambda: calls.append(len(calls)), repeats=5, warmup=3)
    assert len(calls) == 8
    assert len(samples) == 5
    assert all(sample > 0 for sample in samples)


def test_a_duration_is_what_its_own_call_took(time: Time) -> None:
    takes = iter([8.0, 0.5, 2.0, 0.25])
    found = durations(lambda: time.spend(next(takes))(), repeats=3, warmup=1)
    assert found == [0.5, 2.0, 0.25]


def test_the_clock_goes_on_while_the_process_waits() -> None:
    """Processor time would not: a call that waits for a device or a disk would cost nothing."""
    assert clock.perf_counter is perf_counter


def test_a_measurement_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing would be measured"):
        durations(lambda: None, repeats=0)
    with pytest.raises(ValueError, match="nothing would be measured"):
        fresh_process_samples("os:getpid", {}, processes=0, threads=1)


def test_each_arm_has_its_own_seconds(time: Time) -> None:
    arms = {"slow": time.spend(2.0), "fast": time.spend(0.5), "free": time.spend(0.0)}
    found = interleaved_durations(arms, rounds=3)
    assert found == {"slow": [2.0] * 3, "fast": [0.5] * 3, "free": [0.0] * 3}


def test_arms_take_turns_and_every_second_round_goes_backwards() -> None:
    calls: list[str] = []
    arms = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    interleaved_durations(arms, rounds=3, warmup=2)
    assert "".join(calls) == "aabbcc" + "abc" + "cba" + "abc"


@pytest.mark.parametrize(("arms", "rounds"), [({}, 3), ({"one": bool}, 0)])
def test_turns_of_nobody_are_an_error(arms: dict[str, Any], rounds: int) -> None:
    with pytest.raises(ValueError, match="nothing would be measured"):
        interleaved_durations(arms, rounds)


# ---- CUDA, by a stand-in whose kernels run on after their call returned


def test_on_cuda_a_duration_ends_when_the_kernel_does(cuda: Cuda) -> None:
    assert durations(cuda.launch(0.5), repeats=3, warmup=2) == pytest.approx([0.501] * 3)


def test_on_cuda_work_from_before_is_not_part_of_a_duration(cuda: Cuda) -> None:
    cuda.launch(60.0)()
    assert durations(cuda.launch(0.5), repeats=1, warmup=0) == pytest.approx([0.501])


def test_on_cuda_no_token_is_waited_for_but_the_last(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(*arguments: Any, **options: Any) -> Any:
        for _ in range(20):
            cuda.launch(0.25)()
            yield None

    monkeypatch.setattr("reference_model.generate.stream", stream)
    timing = generation_timing(None, [0], 20)  # type: ignore[arg-type]
    assert timing.first_token == pytest.approx(0.251)
    assert timing.steps == pytest.approx([0.25] * 19)
    assert cuda.waits == 2  # before the first and after the last


# ---- generations


def test_prefill_and_decode_are_timed_apart(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def stream(*arguments: Any, **options: Any) -> Any:
        asked.append((arguments, options))
        for seconds in (3.0, 0.5, 0.25, 0.25):
            time.now += seconds
            yield None

    monkeypatch.setattr("reference_model.generate.stream", stream)
    timing = generation_timing("model", "ab", 4, use_cache=False)  # type: ignore[arg-type]
    assert asked == [(("model", "ab", 4), {"use_cache": False})]
    assert timing == GenerationTiming(3.0, [0.5, 0.25, 0.25], batch_size=2)
    assert timing.total == 4.0
    assert timing.seconds_per_token == 0.25
    assert timing.tokens_per_second == 2 * 4 / 4.0


def test_a_real_generation_has_a_time_for_each_token() -> None:
    # Not at the top: the processes below import this file, one of them with an empty model.
    from reference_model.config import preset
    from reference_model.model import GPT

    model = GPT(preset("toy")).eval()
    timing = generation_timing(model, torch.zeros(3, 5, dtype=torch.int64), 4)
    assert len(timing.steps) == 3
    assert timing.batch_size == 3
    assert min(timing.first_token, *timing.steps) > 0


def test_seconds_per_token_need_a_step() -> None:
    timing = GenerationTiming(2.0, [])
    assert timing.tokens_per_second == 0.5
    with pytest.raises(ValueError, match="one new token is all prefill"):
        _ = timing.seconds_per_token


# ---- processes


def report_process(word: str) -> dict[str, Any]:
    print("whatever the target prints is not the answer")
    asked = [os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]]
    return {
        "process": os.getpid(),
        "word": word,
        "asked": asked,
        "threads": torch.get_num_threads(),
    }


def test_each_observation_has_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    samples = fresh_process_samples(
        f"{THIS}:report_process", {"word": "naïve"}, processes=2, threads=1
    )
    assert len({sample["process"] for sample in samples} | {os.getpid()}) == 3
    assert [sample["word"] for sample in samples] == ["naïve"] * 2


def test_a_process_computes_on_the_threads_it_is_told_and_not_on_its_parents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    (sample,) = fresh_process_samples(
        f"{THIS}:report_process", {"word": ""}, processes=1, threads=3
    )
    assert (sample["asked"], sample["threads"]) == (["3", "3"], 3)


def test_threads_that_are_not_taken_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    clock._set_threads(1)  # the tests' own number
    with pytest.raises(RuntimeError, match="7 threads were asked for and PyTorch computes on 1"):
        clock._set_threads(7)


def test_no_threads_at_all_are_an_error() -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        fresh_process_samples("os:getpid", {}, processes=1, threads=0)


def which_model() -> dict[str, Any]:
    import reference_model

    return {"file": reference_model.__file__}


def test_a_new_process_measures_the_model_that_its_parent_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub = tmp_path / "reference_model" / "__init__.py"
    stub.parent.mkdir()
    stub.touch()
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    target = f"{THIS}:which_model"
    assert fresh_process_samples(target, {}, 1, 1) == [{"file": reference_model.__file__}]
    monkeypatch.setattr(reference_model, "__file__", str(stub))
    monkeypatch.chdir(clock.ROOT)  # the working directory does not come first either
    assert fresh_process_samples(target, {}, 1, 1) == [{"file": str(stub)}]


def divide(by: int) -> dict[str, Any]:
    return {"quotient": 1 / by}


def not_a_number() -> dict[str, Any]:
    return {"value": float("nan")}


@pytest.mark.parametrize(
    ("target", "arguments", "told"),
    [
        ("divide", {"by": 0}, "ZeroDivisionError"),
        ("not_a_number", {}, "ValueError: Out of range float"),
    ],
)
def test_a_process_that_fails_is_an_error_with_its_last_line(
    monkeypatch: pytest.MonkeyPatch, target: str, arguments: dict[str, Any], told: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    with pytest.raises(RuntimeError, match=f"{target} failed in its own process: {told}"):
        fresh_process_samples(f"{THIS}:{target}", arguments, processes=1, threads=1)
