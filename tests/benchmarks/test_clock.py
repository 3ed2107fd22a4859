"""The clock: every sample is kept, and a new process is a new observation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import reference_model
from benchmarks.instruments import clock
from benchmarks.instruments.clock import durations, fresh_process_samples

THIS = "test_clock"


def test_the_warm_up_is_run_but_not_kept() -> None:
    calls: list[int] = []
    samples = durations(lambda: calls.append(len(calls)), repeats=5, warmup=3)
    assert len(calls) == 8
    assert len(samples) == 5
    assert all(sample > 0 for sample in samples)


def test_twice_the_work_takes_about_twice_as_long() -> None:
    """The least of several, since other programs can only add; the bounds leave room for those."""

    def work(rounds: int) -> float:
        return min(durations(lambda: sum(range(rounds)), repeats=50))

    assert 1.3 < work(60_000) / work(30_000) < 3


def test_a_measurement_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing would be measured"):
        durations(lambda: None, repeats=0)
    with pytest.raises(ValueError, match="nothing would be measured"):
        fresh_process_samples("os:getpid", {}, processes=0)


def report_process(word: str) -> dict[str, Any]:
    print("whatever the target prints is not the answer")
    return {"process": os.getpid(), "word": word, "threads": os.environ["OMP_NUM_THREADS"]}


def test_each_observation_has_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    samples = fresh_process_samples(
        f"{THIS}:report_process", {"word": "naïve"}, processes=2, threads=1
    )
    assert len({sample["process"] for sample in samples} | {os.getpid()}) == 3
    assert [(s["word"], s["threads"]) for s in samples] == [("naïve", "1")] * 2


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
    assert fresh_process_samples(target, {}, processes=1) == [{"file": reference_model.__file__}]
    monkeypatch.setattr(reference_model, "__file__", str(stub))
    monkeypatch.chdir(clock.ROOT)  # the working directory does not come first either
    assert fresh_process_samples(target, {}, processes=1) == [{"file": str(stub)}]


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
        fresh_process_samples(f"{THIS}:{target}", arguments, processes=1)
