"""Short steps that touch every choice: what `python -m reports.gate` compares two commits by."""

from typing import Any

from benchmarks.suite import gate_workloads, int8_workloads, workloads
from benchmarks.suite.benchmark import Benchmark
from benchmarks.suite.gate_workloads import OUTPUTS, STEPS

timeout = 120


class Step(Benchmark):
    version = "2"  # encoding: four times the tokens
    rounds, repeat, warmup_time = 2, (3, 30, 1.0), 0.1
    params = (tuple(STEPS),)
    param_names = ("step",)

    def setup(self, step: str) -> None:
        self.step = gate_workloads.gate_step(step)

    def time_step(self, step: str) -> None:
        self.step()


class Work(Benchmark):
    """What one call makes the machine do."""

    version = "1"
    params = (tuple(STEPS),)
    param_names = ("step",)

    def setup_cache(self) -> dict[str, Any]:
        return workloads.measured_for(STEPS, gate_workloads.counts_of)

    def setup(self, found: dict[str, Any], step: str) -> None:
        workloads.skip_without(found[step])

    def track_flops(self, found: dict[str, Any], step: str) -> int:
        return found[step]["flops"]

    def track_operators(self, found: dict[str, Any], step: str) -> int:
        return found[step]["operators"]

    def track_bytes_moved(self, found: dict[str, Any], step: str) -> int:
        return found[step]["bytes_moved"]

    track_flops.unit = "FLOP"  # type: ignore[attr-defined]
    track_operators.unit = "operators"  # type: ignore[attr-defined]
    track_bytes_moved.unit = "bytes"  # type: ignore[attr-defined]


class Launches(Benchmark):
    """Kernels of one call on the GPU; skipped where there is none."""

    version = "1"
    unit = "launches"
    params = (tuple(STEPS),)
    param_names = ("step",)

    def setup(self, step: str) -> None:
        self.launches = workloads.launches(gate_workloads.gate_step(step))

    def track_launches(self, step: str) -> float:
        return self.launches


class Outputs(Benchmark):
    """Logits of fixed weights: that they are still the same, and the same through a cache."""

    version = "2"  # adapters that do not outweigh the model
    params = (tuple(OUTPUTS),)
    param_names = ("choice",)

    def setup(self, choice: str) -> None:
        self.at_once, self.cached = gate_workloads.outputs_of(choice)

    def track_fingerprint(self, choice: str) -> float:
        return gate_workloads.fingerprint(self.at_once)

    def track_cached_deviation(self, choice: str) -> float:
        return gate_workloads.cached_deviation(self.at_once, self.cached)

    track_fingerprint.unit = "1"  # type: ignore[attr-defined]
    track_cached_deviation.unit = "of the logits' root mean square"  # type: ignore[attr-defined]


class Int8Quality(Benchmark):
    """How far int8 moves the checkpoint's predictions, never by luck downwards, and its loss."""

    version = "2"  # fewer tokens
    unit = "nats/token"
    params = (int8_workloads.WAYS,)
    param_names = ("way",)

    def setup(self, way: str) -> None:
        self.quality = int8_workloads.quality_of(way)

    def track_prediction_kl(self, way: str) -> float:
        return self.quality["prediction_kl"]

    def track_loss_increase(self, way: str) -> float:
        return self.quality["loss_increase"]
