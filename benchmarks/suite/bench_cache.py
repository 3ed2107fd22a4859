"""The KV cache: what a token costs with it and without, in time, work and memory."""

from benchmarks.suite import workloads
from benchmarks.suite.benchmark import Benchmark
from benchmarks.suite.workloads import NEW_TOKENS, SIZE

MODELS, LENGTHS, CACHES = (SIZE.model,), SIZE.lengths, ("cached", "uncached")
timeout = 180


class Decode(Benchmark):
    """One token after so many others."""

    version = "1"
    rounds, repeat, warmup_time = 2, (3, 30, 1.5), 0.1
    params = (MODELS, CACHES, LENGTHS)
    param_names = ("model", "cache", "past")

    def setup(self, model: str, cache: str, past: int) -> None:
        self.step = workloads.decode_step(workloads.model_of(model), past, cache == "cached")

    def time_step(self, model: str, cache: str, past: int) -> None:
        self.step()


class Prefill(Benchmark):
    """A prompt at once, with the scores of its last position alone."""

    version = "1"
    rounds, repeat, warmup_time = 2, (3, 8, 1.5), 0.1
    params = (MODELS, CACHES, LENGTHS)
    param_names = ("model", "cache", "prompt")

    def setup(self, model: str, cache: str, prompt: int) -> None:
        self.step = workloads.prefill_step(workloads.model_of(model), prompt, cache == "cached")

    def time_step(self, model: str, cache: str, prompt: int) -> None:
        self.step()


class Generation(Benchmark):
    """Tokens as a user gets them, the choice of each included."""

    version = "1"
    unit = "s"
    params = (MODELS, CACHES)
    param_names = ("model", "cache")

    def setup(self, model: str, cache: str) -> None:
        self.model = workloads.model_of(model)

    def track_seconds_per_token(self, model: str, cache: str) -> float:
        return workloads.seconds_per_token(self.model, cache == "cached")


class DecodeOverIdeal(Benchmark):
    """1: as fast as the machine reads what has to be read."""

    version = "1"
    unit = "× ideal"
    params = (MODELS, LENGTHS)
    param_names = ("model", "past")

    def setup(self, model: str, past: int) -> None:
        built = workloads.model_of(model)
        self.bound = workloads.decode_bound(built, past)
        self.step = workloads.decode_step(built, past, calls=SIZE.rounds + 1)  # 1 to warm up

    def track_time_over_ideal(self, model: str, past: int) -> float:
        return workloads.over_ideal(self.step, self.bound)


class PrefillOverIdeal(Benchmark):
    """1: as fast as the machine multiplies."""

    version = "1"
    unit = "× ideal"
    params = (MODELS, LENGTHS)
    param_names = ("model", "prompt")

    def setup(self, model: str, prompt: int) -> None:
        built = workloads.model_of(model)
        self.bound = workloads.prefill_bound(built, prompt)
        self.step = workloads.prefill_step(built, prompt)

    def track_time_over_ideal(self, model: str, prompt: int) -> float:
        return workloads.over_ideal(self.step, self.bound)


class Work(Benchmark):
    """What one token makes the machine do."""

    version = "1"
    params = (MODELS, CACHES, LENGTHS)
    param_names = ("model", "cache", "past")

    def setup(self, model: str, cache: str, past: int) -> None:
        step = workloads.decode_step(workloads.model_of(model), past, cache == "cached")
        self.counts = workloads.counts(step)

    def track_flops_per_token(self, model: str, cache: str, past: int) -> int:
        return self.counts.flops

    def track_operators_per_token(self, model: str, cache: str, past: int) -> int:
        return self.counts.operators

    track_flops_per_token.unit = "FLOP"  # type: ignore[attr-defined]
    track_operators_per_token.unit = "operators"  # type: ignore[attr-defined]


class CacheBytes(Benchmark):
    """What the cache itself takes."""

    version = "1"
    unit = "bytes"
    params = (MODELS, LENGTHS)
    param_names = ("model", "tokens")

    def setup(self, model: str, tokens: int) -> None:
        self.kv = workloads.filled_cache(workloads.model_of(model), tokens)

    def track_cache_bytes(self, model: str, tokens: int) -> float:
        return workloads.cache_bytes(self.kv)


class PeakMemory(Benchmark):
    """What a generation adds to a fresh process at most, the model included."""

    version = "1"
    unit = "bytes"
    params = (MODELS, CACHES)
    param_names = ("model", "cache")

    def setup(self, model: str, cache: str) -> None:
        workloads.generation(workloads.model_of(model), NEW_TOKENS)  # skips where one cannot

    def track_peak_memory(self, model: str, cache: str) -> float:
        return workloads.peak_bytes(model, cache == "cached")


class DeviceMemory(Benchmark):
    """What the driver sees in use on the GPU after a generation; skipped where there is none."""

    version = "1"
    unit = "bytes"
    params = (MODELS, CACHES)
    param_names = ("model", "cache")

    def setup(self, model: str, cache: str) -> None:
        workloads.device_bytes()
        self.generate = workloads.generation(
            workloads.model_of(model), NEW_TOKENS, cache == "cached"
        )

    def track_nvml_memory(self, model: str, cache: str) -> float:
        self.generate()
        return workloads.device_bytes()
