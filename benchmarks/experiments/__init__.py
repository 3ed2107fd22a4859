"""One module per lesson; each function in it measures one claim."""

from __future__ import annotations

from importlib import import_module

from benchmarks.experiment import Experiment

LESSON_MODULES = ("lora", "positions", "tying", "norms", "cache", "int8")


def all_experiments() -> list[Experiment]:
    """Every experiment, in the order of the lessons; imports torch."""
    return [
        value
        for name in LESSON_MODULES
        for value in vars(import_module(f"{__name__}.{name}")).values()
        if isinstance(value, Experiment)
    ]
