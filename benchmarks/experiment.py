"""What an experiment is: a function that measures one claim, and how long it takes per profile.

>>> @experiment("tying.saving-small", smoke=0.1, quick=0.1, full=0.1)
... def saving_small(settings: Settings) -> list[Measurement]: ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, get_args

from benchmarks.results import Measurement

Profile = Literal["smoke", "quick", "full"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
LESSON_MODULES = (
    "lora",
    "lora_adapters",
    "lora_first_step",
    "lora_training",
    "positions",
    "tying",
    "norms",
    "cache",
    "cache_complexity",
    "cache_speed",
    "memory_bound",
    "turboquant",
    "residual_bit",
    "kv_quality",
    "int8",
    "int8_speed",
    "int8_sensitivity",
    "int8_activations",
)


class Unavailable(Exception):
    """What an experiment needs is not here, such as a library; its claim stays open.

    The message is one line that says what, and how to get it.
    """


@dataclass(frozen=True)
class Settings:
    """What a run was asked for; ``device`` is ``cpu`` or ``cuda``, already resolved."""

    profile: Profile
    device: str
    seed: int


@dataclass(frozen=True)
class Experiment:
    """A function that measures one claim.

    ``seconds`` are those of two CPU cores; None: too long for that profile, where its claim stays
    open.
    """

    claim: str
    function: Callable[[Settings], list[Measurement]]
    seconds: dict[Profile, float | None]

    def __call__(self, settings: Settings) -> list[Measurement]:
        return self.function(settings)


def experiment(
    claim: str, *, smoke: float | None, quick: float | None, full: float | None
) -> Callable[[Callable[[Settings], list[Measurement]]], Experiment]:
    """Turn the function below into the experiment of ``claim``, with its seconds per profile."""

    def decorate(function: Callable[[Settings], list[Measurement]]) -> Experiment:
        return Experiment(claim, function, {"smoke": smoke, "quick": quick, "full": full})

    return decorate


def all_experiments() -> list[Experiment]:
    """Every experiment, in the order of the lessons; imports torch."""
    return [
        value
        for name in LESSON_MODULES
        for value in vars(import_module(f"benchmarks.experiments.{name}")).values()
        if isinstance(value, Experiment)
    ]
