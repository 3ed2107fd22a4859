"""Which of the toy's benchmarks are compared, and what makes one worse."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exactness:
    better: str = "lower"
    tolerance: float = 0.0


TIMED = ("bench_toy.Step.time_step",)
EXACT = {
    "bench_toy.Result.track_result": Exactness("same"),
    "bench_toy.Memory.track_bytes": Exactness(),
    "bench_toy.Work.track_comparisons": Exactness(),
}
