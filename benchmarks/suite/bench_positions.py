"""The position encoding: what each one costs a decode step, and how many weights it holds."""

from benchmarks.suite import workloads
from benchmarks.suite.benchmark import Benchmark
from benchmarks.suite.workloads import PROMPT_TOKENS, SIZE

MODELS, POSITIONS = (SIZE.small_model,), ("learned", "sinusoidal", "rope", "alibi", "none")
timeout = 120


class Decode(Benchmark):
    version = "1"
    rounds, repeat, warmup_time = 1, (5, 20, 0.5), 0.1
    params = (MODELS, POSITIONS)
    param_names = ("model", "position")

    def setup(self, model: str, position: str) -> None:
        built = workloads.model_of(model, position=position)
        self.step = workloads.decode_step(built, PROMPT_TOKENS)

    def time_step(self, model: str, position: str) -> None:
        self.step()


class Work(Benchmark):
    version = "1"
    params = (MODELS, POSITIONS)
    param_names = ("model", "position")

    def setup(self, model: str, position: str) -> None:
        self.model = workloads.model_of(model, position=position)
        self.counts = workloads.counts(workloads.decode_step(self.model, PROMPT_TOKENS))

    def track_operators_per_token(self, model: str, position: str) -> int:
        return self.counts.operators

    def track_weight_bytes(self, model: str, position: str) -> float:
        return workloads.weight_bytes(self.model)

    track_operators_per_token.unit = "operators"  # type: ignore[attr-defined]
    track_weight_bytes.unit = "bytes"  # type: ignore[attr-defined]
