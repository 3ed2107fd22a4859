"""The floating-point format of weights and cache: time, time over the ideal, and bytes."""

from benchmarks.suite import workloads
from benchmarks.suite.benchmark import Benchmark
from benchmarks.suite.workloads import PROMPT_TOKENS, SIZE

MODELS, DTYPES = (SIZE.model,), ("float32", "bfloat16", "float16")
timeout = 120


class Decode(Benchmark):
    version = "1"
    rounds, repeat, warmup_time = 2, (3, 30, 1.0), 0.1
    params = (MODELS, DTYPES)
    param_names = ("model", "dtype")

    def setup(self, model: str, dtype: str) -> None:
        self.step = workloads.decode_step(workloads.model_of(model, dtype), PROMPT_TOKENS)

    def time_step(self, model: str, dtype: str) -> None:
        self.step()


class DecodeOverIdeal(Benchmark):
    """1: as fast as the machine reads weights and cache in this format."""

    version = "1"
    unit = "× ideal"
    params = (MODELS, DTYPES)
    param_names = ("model", "dtype")

    def setup(self, model: str, dtype: str) -> None:
        built = workloads.model_of(model, dtype)
        self.bound = workloads.decode_bound(built, PROMPT_TOKENS, dtype)
        self.step = workloads.decode_step(built, PROMPT_TOKENS, calls=SIZE.rounds + 1)

    def track_time_over_ideal(self, model: str, dtype: str) -> float:
        return workloads.over_ideal(self.step, self.bound, dtype)


class Bytes(Benchmark):
    version = "1"
    unit = "bytes"
    params = (MODELS, DTYPES)
    param_names = ("model", "dtype")

    def setup(self, model: str, dtype: str) -> None:
        self.model = workloads.model_of(model, dtype)
        self.kv = workloads.filled_cache(self.model, PROMPT_TOKENS)

    def track_weight_bytes(self, model: str, dtype: str) -> float:
        return workloads.weight_bytes(self.model)

    def track_cache_bytes(self, model: str, dtype: str) -> float:
        return workloads.cache_bytes(self.kv)
