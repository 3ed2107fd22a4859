"""LoRA: what adapters cost beside the plain linears, what merging rounds, the laws of the rank."""

from typing import Any

from benchmarks.suite import lora_workloads, workloads
from benchmarks.suite.benchmark import Benchmark
from benchmarks.suite.workloads import SIZE

RANK, MODELS, ARMS = 16, (SIZE.small_model,), ("plain", "adapted", "merged")
TRAINED = ("adapters", "everything")
SCALINGS, KINDS_OF_A = ("alpha/r", "alpha/sqrt(r)"), ("gaussian", "kaiming_uniform")
timeout = 120


class Forward(Benchmark):
    """Of 512 tokens through one linear, 768 wide."""

    version = "1"
    rounds, repeat, warmup_time = 2, (3, 30, 1.0), 0.1
    params = (ARMS, (RANK,))
    param_names = ("linear", "rank")

    def setup(self, linear: str, rank: int) -> None:
        self.forward = lora_workloads.linear_forward(linear, rank)

    def time_forward(self, linear: str, rank: int) -> None:
        self.forward()


class Step(Benchmark):
    """One step of AdamW on query and value of every layer, or on all weights."""

    version = "1"
    rounds, repeat, warmup_time = 2, (3, 8, 1.5), 0.1
    params = (MODELS, TRAINED, (RANK,))
    param_names = ("model", "trained", "rank")

    def setup(self, model: str, trained: str, rank: int) -> None:
        self.step = lora_workloads.training_step(model, trained, rank)

    def time_step(self, model: str, trained: str, rank: int) -> None:
        self.step()


class OverPlain(Benchmark):
    """The same in turns: a slow machine slows both down."""

    version = "1"
    unit = "of the plain one's seconds"
    params = (MODELS, (RANK,))
    param_names = ("model", "rank")

    def setup(self, model: str, rank: int) -> None:
        self.forwards = {arm: lora_workloads.linear_forward(arm, rank) for arm in ARMS}
        self.steps = {each: lora_workloads.training_step(model, each, rank) for each in TRAINED}

    def track_forward_over_plain(self, model: str, rank: int) -> float:
        return lora_workloads.ratio(self.forwards, "adapted", "plain", lora_workloads.FORWARDS)

    def track_step_over_full(self, model: str, rank: int) -> float:
        return lora_workloads.ratio(self.steps, "adapters", "everything", SIZE.rounds)


class Merging(Benchmark):
    version = "1"
    unit = "largest difference of logits"
    params = (("reference",), (RANK,))
    param_names = ("model", "rank")

    def setup(self, model: str, rank: int) -> None:
        self.error = lora_workloads.merge_error(rank)

    def track_merge_error(self, model: str, rank: int) -> float:
        return self.error()


class Share(Benchmark):
    version = "1"
    unit = "of all weights"
    params = (MODELS, (RANK,))
    param_names = ("model", "rank")

    def setup(self, model: str, rank: int) -> None:
        self.share = lora_workloads.trained_share(model, rank)

    def track_trained_share(self, model: str, rank: int) -> float:
        return self.share


class Exponents(Benchmark):
    """Of the variance of a random update in the rank: -1 and 0 by the laws."""

    version = "1"
    unit = "exponent"
    params = (SCALINGS, KINDS_OF_A)
    param_names = ("scaling", "a")

    def setup_cache(self) -> dict[str, Any]:
        laws = (f"{scaling}, {a}" for scaling in SCALINGS for a in KINDS_OF_A)
        return workloads.measured_for(laws, lora_workloads.deviation_from_law)

    def setup(self, found: dict[str, Any], scaling: str, a: str) -> None:
        workloads.skip_without(found[f"{scaling}, {a}"])

    def track_deviation_from_law(self, found: dict[str, Any], scaling: str, a: str) -> float:
        return found[f"{scaling}, {a}"]
