"""INT8 weights, as far as the model has them: simulated rounding, its time and its error."""

from benchmarks import workloads
from benchmarks.workloads import SIZE

MODELS, GRANULARITIES = (SIZE.small_model,), ("per tensor", "per channel")
timeout = 120


class Rounding:
    version = "1"
    rounds, repeat, warmup_time = 2, (3, 8, 1.0), 0.1
    params = (MODELS, GRANULARITIES)
    param_names = ("model", "granularity")

    def setup(self, model: str, granularity: str) -> None:
        self.round = workloads.rounding(workloads.model_of(model), granularity)

    def time_rounding(self, model: str, granularity: str) -> None:
        self.round()


class RoundingError:
    version = "1"
    unit = "of the weights' root mean square"
    params = (MODELS, GRANULARITIES)
    param_names = ("model", "granularity")

    def setup(self, model: str, granularity: str) -> None:
        self.model = workloads.model_of(model)
        self.round = workloads.rounding(self.model, granularity)

    def track_rounding_error(self, model: str, granularity: str) -> float:
        return workloads.relative_error(self.model, self.round())
