"""Every experiment, by the modules that hold them. No experiment's numbers rest on this list."""

from __future__ import annotations

from importlib import import_module

from benchmarks.experiments.experiment import Experiment

LESSON_MODULES = (
    "lora.share",
    "lora.lesson",
    "lora.adapters",
    "lora.first_step",
    "lora.training",
    "lora.rank",
    "lora.rate_law",
    "lora.one_rate",
    "positions.lesson",
    "positions.quality",
    "positions.extrapolation",
    "tying.lesson",
    "tying.quality",
    "norms.lesson",
    "norms.quality",
    "norms.stable_range",
    "norms.variants",
    "cache.lesson",
    "cache.complexity",
    "cache.speed",
    "cache.memory_bound",
    "cache.compressed_speed",
    "cache.grouped_queries",
    "turboquant.memory",
    "turboquant.lesson",
    "turboquant.signs",
    "turboquant.qjl",
    "turboquant.qjl_budget",
    "turboquant.kv_quality",
    "turboquant.best_at_three",
    "turboquant.shares",
    "turboquant.recall",
    "int8.lesson",
    "int8.speed",
    "int8.sensitivity",
    "int8.activations",
    "int8.outlier_split",
)


def all_experiments() -> list[Experiment]:
    """Every experiment, in the order of the lessons; imports torch."""
    return [
        value
        for name in LESSON_MODULES
        for value in vars(import_module(f"benchmarks.experiments.{name}")).values()
        if isinstance(value, Experiment)
    ]
