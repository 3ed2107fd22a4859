"""The norm and its place: what they cost a decode step, which they fill with small operators."""

from benchmarks.suite import workloads
from benchmarks.suite.benchmark import Benchmark
from benchmarks.suite.workloads import PROMPT_TOKENS, SIZE

MODELS = (SIZE.small_model,)
NORMS, PLACEMENTS = ("layernorm", "rmsnorm"), ("pre", "post", "double", "deepnorm")
timeout = 120


class Decode(Benchmark):
    version = "1"
    rounds, repeat, warmup_time = 1, (5, 20, 0.5), 0.1
    params = (MODELS, NORMS, ("pre", "double"))
    param_names = ("model", "norm", "placement")

    def setup(self, model: str, norm: str, placement: str) -> None:
        built = workloads.model_of(model, norm=norm, norm_placement=placement)
        self.step = workloads.decode_step(built, PROMPT_TOKENS)

    def time_step(self, model: str, norm: str, placement: str) -> None:
        self.step()


class Work(Benchmark):
    version = "1"
    unit = "operators"
    params = (MODELS, NORMS, PLACEMENTS)
    param_names = ("model", "norm", "placement")

    def setup(self, model: str, norm: str, placement: str) -> None:
        built = workloads.model_of(model, norm=norm, norm_placement=placement)
        self.counts = workloads.counts(workloads.decode_step(built, PROMPT_TOKENS))

    def track_operators_per_token(self, model: str, norm: str, placement: str) -> int:
        return self.counts.operators
