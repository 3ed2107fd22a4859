"""What every micro benchmark says beside its seconds: bytes, FLOPs, threads, share of the limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.instruments.environment import usable_cores
from benchmarks.instruments.limits import MachineLimit, machine_limit

# Far above any last-level cache: what is read once per token in a model comes from memory.
BEYOND_THE_CACHES = 256 * 2**20


@pytest.fixture(autouse=True)
def _stated(request: pytest.FixtureRequest) -> Iterator[None]:
    """One seed; all cores when measuring, one thread when only the results are checked."""
    before = torch.get_num_threads()
    torch.set_num_threads(usable_cores() if measuring(request.config) else 1)
    torch.manual_seed(0)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


def measuring(config: pytest.Config) -> bool:
    return not config.getoption("benchmark_disable") or config.getoption("benchmark_enable")


@pytest.fixture(scope="session")
def limit(request: pytest.FixtureRequest) -> MachineLimit | None:
    """The machine's limit, measured once; None where nothing is timed."""
    if not measuring(request.config):
        return None
    torch.set_num_threads(usable_cores())
    return machine_limit("cpu", rounds=3)


@pytest.fixture
def timed(benchmark: BenchmarkFixture, limit: MachineLimit | None) -> Callable[..., Any]:
    """timed(function, nbytes=…, flops=…, dtype=…) → what the last call of ``function`` returned.

    nbytes are those a call has to read and write, flops those it has to compute. The limit is that
    of memory: a share above 1 says that a cache answered.
    """

    def run(
        function: Callable[[], Any], *, nbytes: int, flops: int = 0, dtype: str = "float32"
    ) -> Any:
        result = benchmark(function)
        benchmark.extra_info.update(bytes=nbytes, flops=flops, threads=torch.get_num_threads())
        if limit is not None and benchmark.stats is not None:
            ideal = nbytes / limit.read_bytes_per_second
            if flops and dtype in limit.flops_per_second:
                ideal = max(ideal, flops / limit.flops_per_second[dtype])
            benchmark.extra_info["share_of_limit"] = ideal / benchmark.stats.stats.median
        return result

    return run


@pytest.fixture
def copies(request: pytest.FixtureRequest) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    """copies(weight): so many of it that none is in a cache when its turn comes again."""

    def make(weight: torch.Tensor) -> list[torch.Tensor]:
        count = math.ceil(BEYOND_THE_CACHES / weight.nbytes) if measuring(request.config) else 1
        return [weight, *(weight.clone() for _ in range(count - 1))]

    return make
