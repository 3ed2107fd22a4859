"""For pytest -p: the micro suite on a device without numbers, which stands for a GPU.

Whatever is timed has to compute there, and there alone. A test ends well where it first reads a
number, which is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from reference_model import devices
from tests.benchmarks.places import Places


def there_alone(timed: Callable[..., Any]) -> Callable[..., Any]:
    def call(benchmark: BenchmarkFixture, *given: Any, **named: Any) -> Any:
        with Places() as places:
            result = timed(benchmark, *given, **named)
        assert places.devices <= {"meta"}, places.devices
        return result

    return call


devices.resolve_device = lambda wanted: "meta"
BenchmarkFixture._raw = there_alone(BenchmarkFixture._raw)
BenchmarkFixture._raw_pedantic = there_alone(BenchmarkFixture._raw_pedantic)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Iterator[None]:
    try:
        return (yield)
    except RuntimeError as error:
        if "meta tensors" not in str(error).lower():
            raise
        return True
