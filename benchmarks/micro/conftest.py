"""Where and in which dtype every micro benchmark runs, and what it says beside its seconds.

`--device` and `--dtype` are those of all commands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.instruments.environment import usable_cores
from benchmarks.instruments.limits import MachineLimit, machine_limit
from reference_model.devices import add_device_and_dtype, resolve_device
from reference_model.errors import UserError

# Far above any last-level cache: what is read once per token in a model comes from memory.
BEYOND_THE_CACHES = 256 * 2**20
FEW = 4001  # outputs
DEVICE = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    add_device_and_dtype(parser.addoption)


def pytest_configure(config: pytest.Config) -> None:
    try:
        config.stash[DEVICE] = resolve_device(config.getoption("device"))
    except UserError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    return request.config.stash[DEVICE]


@pytest.fixture(scope="session")
def dtype(request: pytest.FixtureRequest) -> str:
    return request.config.getoption("dtype")


@pytest.fixture
def put(device: str, dtype: str) -> Callable[[Any], Any]:
    """put(x) → a tensor or module in the run's dtype, on its device."""
    return lambda x: x.to(device=device, dtype=getattr(torch, dtype))


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


@pytest.fixture
def enough(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """enough(outputs) → as many of a weight's as are needed: where nothing is timed, an odd few.

    The head's 50,257 take a second to round, and are as right as its first.
    """
    return lambda outputs: outputs if measuring(request.config) else min(outputs, FEW)


@pytest.fixture(scope="session")
def limit(request: pytest.FixtureRequest, device: str) -> MachineLimit | None:
    """The machine's limit, measured once; None where nothing is timed."""
    if not measuring(request.config):
        return None
    torch.set_num_threads(usable_cores())
    return machine_limit(device, rounds=3)


@pytest.fixture
def timed(
    benchmark: BenchmarkFixture, limit: MachineLimit | None, device: str, dtype: str
) -> Callable[..., Any]:
    """timed(function, nbytes=…, flops=…) → what the last call of ``function`` returned.

    nbytes are those a call has to read and write, flops those it has to compute. The limit is that
    of memory: a share above 1 says that a cache answered. ``dtype``: of the numbers, where that is
    not the run's; ``product``: in which they are multiplied, where not in their own; ``setup``: is
    called before each call, and not timed.
    """
    return partial(timed_on, device, benchmark, limit, dtype)


def timed_on(
    device: str,
    benchmark: BenchmarkFixture,
    limit: MachineLimit | None,
    of_run: str,
    function: Callable[[], Any],
    *,
    nbytes: int,
    flops: int = 0,
    dtype: str | None = None,
    product: str | None = None,
    setup: Callable[[], object] | None = None,
) -> Any:
    call = until_done(device, function)
    if setup is None:
        result = benchmark(call)
    else:
        result = benchmark.pedantic(call, setup=until_done(device, setup), rounds=20)
    dtype = dtype or of_run
    benchmark.extra_info.update(device=device, dtype=dtype, bytes=nbytes, flops=flops)
    benchmark.extra_info["threads"] = torch.get_num_threads()
    if nbytes and limit is not None and benchmark.stats is not None:
        ideal = nbytes / limit.read_bytes_per_second
        if flops and (product or dtype) in limit.flops_per_second:
            ideal = max(ideal, flops / limit.flops_per_second[product or dtype])
        benchmark.extra_info["share_of_limit"] = ideal / benchmark.stats.stats.median
    return result


def until_done(device: str, function: Callable[[], Any]) -> Callable[[], Any]:
    """``function``, which on CUDA returns when its kernels have run, not when they are launched."""
    if device != "cuda":
        return function

    def call() -> Any:
        result = function()
        torch.cuda.synchronize()
        return result

    return call


@pytest.fixture
def copies(request: pytest.FixtureRequest) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    """copies(weight): so many of it that none is in a cache when its turn comes again."""

    def make(weight: torch.Tensor) -> list[torch.Tensor]:
        count = math.ceil(BEYOND_THE_CACHES / weight.nbytes) if measuring(request.config) else 1
        return [weight, *(weight.clone() for _ in range(count - 1))]

    return make
