"""INT8 weights: simulated rounding and its error; models that hold int8, their bytes and speed."""

from benchmarks.suite import int8_workloads, workloads
from benchmarks.suite.benchmark import Benchmark
from benchmarks.suite.workloads import PROMPT_TOKENS, SIZE

MODELS, GRANULARITIES = (SIZE.small_model,), ("per tensor", "per channel")
PRODUCTS = ("int_mm", "packed")
timeout = 120


class Rounding(Benchmark):
    version = "1"
    rounds, repeat, warmup_time = 2, (3, 8, 1.0), 0.1
    params = (MODELS, GRANULARITIES)
    param_names = ("model", "granularity")

    def setup(self, model: str, granularity: str) -> None:
        self.round = int8_workloads.rounding(workloads.model_of(model), granularity)

    def time_rounding(self, model: str, granularity: str) -> None:
        self.round()


class RoundingError(Benchmark):
    version = "1"
    unit = "of the weights' root mean square"
    params = (MODELS, GRANULARITIES)
    param_names = ("model", "granularity")

    def setup(self, model: str, granularity: str) -> None:
        self.model = workloads.model_of(model)
        self.round = int8_workloads.rounding(self.model, granularity)

    def track_rounding_error(self, model: str, granularity: str) -> float:
        return int8_workloads.relative_error(self.model, self.round())


class Bytes(Benchmark):
    """Of weights that are really held in int8."""

    version = "1"
    unit = "of float32's"
    params = ((SIZE.model,), PRODUCTS)
    param_names = ("model", "product")

    def setup(self, model: str, product: str) -> None:
        int8_workloads.int8_model(model, product)

    def track_bytes_over_float32(self, model: str, product: str) -> float:
        return int8_workloads.bytes_over_float32(model, product)


class Decode(Benchmark):
    """One token after so many others."""

    version = "2"
    rounds, repeat, warmup_time = 2, (3, 30, 1.0), 0.1
    params = ((SIZE.model,), PRODUCTS)
    param_names = ("model", "product")

    def setup(self, model: str, product: str) -> None:
        self.step = int8_workloads.int8_decode_step(model, product, PROMPT_TOKENS)

    def time_step(self, model: str, product: str) -> None:
        self.step()


class Prefill(Benchmark):
    """A prompt at once."""

    version = "1"
    rounds, repeat, warmup_time = 2, (3, 8, 1.5), 0.1
    params = ((SIZE.model,), PRODUCTS, SIZE.lengths)
    param_names = ("model", "product", "prompt")

    def setup(self, model: str, product: str, prompt: int) -> None:
        self.step = workloads.prefill_step(int8_workloads.int8_model(model, product), prompt)

    def time_step(self, model: str, product: str, prompt: int) -> None:
        self.step()


class Loss(Benchmark):
    """What the checkpoint loses on a piece of held-out text, with norms left alone and not."""

    version = "1"
    unit = "nats/token"
    params = (int8_workloads.WAYS,)
    param_names = ("way",)

    def setup(self, way: str) -> None:
        self.increase = int8_workloads.loss_measurement(way)

    def track_loss_increase(self, way: str) -> float:
        return self.increase()
