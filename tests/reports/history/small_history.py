"""What a small made-up history holds: two benchmarks, a step, and a message that means harm."""

import copy
from typing import Any

from reports.history.result_files import Benchmark

TIMED = "bench_cache.Decode.time_step"
COUNTED = "bench_cache.CacheBytes.track_cache_bytes"
STEP = [1.0e-3, 1.01e-3, 0.99e-3, 1.0e-3, 1.005e-3, 1.0e-3, 1.3e-3, 1.31e-3, 1.29e-3, 1.3e-3]
HOSTILE = "</table><script>window.hacked = true</script><img src=x onerror=alert(1)>"


def benchmark_of_asv(name: str, unit: str = "seconds") -> Benchmark:
    """As its suite describes it."""
    file, _, title = name.partition(".")
    return Benchmark(name, "1", unit, [], file, title)


def with_another(run: dict[str, Any], *where: Any, to: Any = None) -> dict[str, Any]:
    """``run`` with another value at a path of keys; without a value, lacking it."""
    content = copy.deepcopy(run)
    inner: Any = content
    for key in where[:-1]:
        inner = inner[key]
    if to is None:
        del inner[where[-1]]
    else:
        inner[where[-1]] = to
    return content
