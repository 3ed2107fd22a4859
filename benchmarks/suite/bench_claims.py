"""The claims' numbers that are exact, by the experiments that measure them for the page."""

from benchmarks.suite import workloads
from benchmarks.suite.benchmark import Benchmark

# "claim: metric, option; parameters". What is not exact has intervals, and is no curve; and asv
# takes less for better, so that numbers of which more is better are left out.
NUMBERS = (
    "lora.trainable-share: trainable_share, LoRA; rank=8, targets=query,value, head=tied",
    "position.parameters: parameters, learned; model=gpt2",
    "position.parameters: parameters, sinusoidal; model=gpt2",
    "position.parameters: parameters, rope; model=gpt2",
    "position.parameters: parameters, alibi; model=gpt2",
    "tying.saving-small: parameters, tied; model=gpt2",
    "tying.saving-small: parameters, untied; model=gpt2",
    "cache.complexity: polynomial_degree, cached; part=projections",
    "cache.complexity: polynomial_degree, cached; part=attention",
    "cache.complexity: polynomial_degree, uncached; part=projections",
    "cache.complexity: polynomial_degree, uncached; part=attention",
    "cache.memory-law: bytes_over_law, float32; "
    "model=gpt2, batch_size=1, tokens=512, counted=reserved",
    "cache.memory-law: bytes_over_law, float16; "
    "model=gpt2, batch_size=1, tokens=512, counted=reserved",
    "cache.memory-example: gigabytes, fp16; counted=buffers",
    "cache.memory-example: gigabytes, fp32; counted=buffers",
    "int8.norm-share: norm_share, layernorm; model=gpt2",
    "int8.norm-share: norm_share, layernorm; model=gpt2-xl",
)


class Exact(Benchmark):
    version = "1"
    unit = "as the number says"
    timeout = 120
    params = (NUMBERS,)
    param_names = ("number",)

    def setup_cache(self) -> dict[str, float | str]:
        return workloads.exact_numbers(NUMBERS)

    def setup(self, found: dict[str, float | str], number: str) -> None:
        workloads.skip_without(found[number])

    def track_value(self, found: dict[str, float | str], number: str) -> float | str:
        return found[number]
