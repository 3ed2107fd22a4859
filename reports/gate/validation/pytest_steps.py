"""The gate's steps, timed by pytest-benchmark at its defaults; not part of `make test`."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.suite.gate_workloads import STEPS, gate_step


@pytest.mark.parametrize("step", STEPS)
def test_step(benchmark: BenchmarkFixture, step: str) -> None:
    benchmark(gate_step(step))
