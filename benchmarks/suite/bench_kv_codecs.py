"""The KV cache in few bits: what it holds, what it loses, and what it costs in time."""

from typing import Any

from benchmarks.suite import codec_workloads, workloads
from benchmarks.suite.benchmark import Benchmark
from benchmarks.suite.workloads import SIZE

CODECS = ("turboquant 2", "turboquant 3", "turboquant 4", "prod 3", "rotated blocks 3", "token 3")
TURBOQUANT = CODECS[:3]
timeout = 180


class Bytes(Benchmark):
    """Of a full cache, everything included."""

    version = "1"
    unit = "bits/value"
    params = ((SIZE.model,), CODECS, SIZE.lengths)
    param_names = ("model", "codec", "tokens")

    def setup(self, model: str, codec: str, tokens: int) -> None:
        self.model = workloads.model_of(model)
        self.kv = codec_workloads.filled_quantized_cache(self.model, codec, tokens)

    def track_bits_per_value(self, model: str, codec: str, tokens: int) -> float:
        return codec_workloads.bits_per_value(self.model, self.kv, tokens)


class Distortion(Benchmark):
    """Of random unit vectors, as wide as GPT-2's heads."""

    version = "1"
    unit = "of ‖x‖²"
    params = (CODECS,)
    param_names = ("codec",)

    def setup(self, codec: str) -> None:
        self.codec = codec_workloads.kv_codec(codec)

    def track_distortion(self, codec: str) -> float:
        return codec_workloads.distortion(self.codec)


class Loss(Benchmark):
    """What the checkpoint loses on a piece of held-out text that it reads through the cache."""

    version = "1"
    unit = "nats/token"
    params = (TURBOQUANT,)
    param_names = ("codec",)

    def setup_cache(self) -> dict[str, Any]:
        return workloads.measured_for(TURBOQUANT, codec_workloads.quality_through_cache)

    def setup(self, found: dict[str, Any], codec: str) -> None:
        workloads.skip_without(found[codec])

    def track_prediction_kl(self, found: dict[str, Any], codec: str) -> float:
        return found[codec]["prediction_kl"]

    def track_loss_increase(self, found: dict[str, Any], codec: str) -> float:
        return found[codec]["loss_increase"]


class Codec(Benchmark):
    """All keys of a cache to bytes and back."""

    version = "1"
    rounds, repeat, warmup_time = 2, (3, 12, 1.0), 0.1
    params = (CODECS,)
    param_names = ("codec",)

    def setup(self, codec: str) -> None:
        self.encode, self.decode = codec_workloads.codec_steps(codec)

    def time_encode(self, codec: str) -> None:
        self.encode()

    def time_decode(self, codec: str) -> None:
        self.decode()


class Decode(Benchmark):
    """One token after so many others."""

    version = "1"
    rounds, repeat, warmup_time = 2, (3, 20, 1.5), 0.1
    params = ((SIZE.model,), TURBOQUANT, SIZE.lengths)
    param_names = ("model", "codec", "past")

    def setup(self, model: str, codec: str, past: int) -> None:
        built = workloads.model_of(model)
        self.step = codec_workloads.quantized_decode_step(built, codec, past)

    def time_step(self, model: str, codec: str, past: int) -> None:
        self.step()
