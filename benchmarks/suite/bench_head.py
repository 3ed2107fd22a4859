"""The head: tied to the embedding or a matrix of its own."""

from benchmarks.suite import workloads
from benchmarks.suite.benchmark import Benchmark
from benchmarks.suite.workloads import PROMPT_TOKENS, SIZE

MODELS, HEADS = (SIZE.model,), ("tied", "untied")
timeout = 120


class Decode(Benchmark):
    version = "1"
    rounds, repeat, warmup_time = 2, (3, 30, 1.0), 0.1
    params = (MODELS, HEADS)
    param_names = ("model", "head")

    def setup(self, model: str, head: str) -> None:
        self.step = workloads.decode_step(workloads.model_of(model, head=head), PROMPT_TOKENS)

    def time_step(self, model: str, head: str) -> None:
        self.step()


class Weights(Benchmark):
    version = "1"
    unit = "bytes"
    params = (MODELS, HEADS)
    param_names = ("model", "head")

    def setup(self, model: str, head: str) -> None:
        self.model = workloads.model_of(model, head=head)

    def track_weight_bytes(self, model: str, head: str) -> float:
        return workloads.weight_bytes(self.model)
