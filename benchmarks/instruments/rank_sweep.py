"""Fine-tunes with LoRA by scaling, rank and learning rate: several claims read the same ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import NamedTuple

from benchmarks.experiments.experiment import Cell, Found, Settings
from benchmarks.instruments.finetuning import FineTune, run
from benchmarks.record.results import Parameter
from reference_model.lora import ScalingLaw

RANKS = (4, 16, 64, 256)
STEPS, WARMUP_STEPS, BATCH_SIZE, LENGTH = 32, 4, 4, 128
WINDOWS = (89, 109)  # of validation and of held-out text: all that there are


class Law(NamedTuple):
    """A scaling, what is said of it, and the middle of the rates that are tried.

    ``exponent``: the best rate is said to move with this power of the rank.
    """

    scaling: ScalingLaw
    alpha: float
    exponent: float
    middle: float

    @property
    def rates(self) -> list[float]:
        """Seven, each twice the one before."""
        return [self.middle * 2.0**power for power in range(-3, 4)]


# The middles are where a trial with other seeds found the valleys.
LAWS = {
    "alpha/r": Law("lora", 16.0, 0.0, 4e-3),
    "alpha/sqrt(r)": Law("rslora", 16.0, -0.25, 2e-3),
    "constant": Law("constant", 1.0, -0.5, 4e-3),
}


def cell(scaling: str, rank: int, rate: float, seed: int) -> Cell:
    """One fine-tune, measured once for all claims; ``scaling`` is its name in LAWS."""
    labels: dict[str, Parameter] = {"scaling": scaling, "rank": rank, "rate": rate, "seed": seed}
    return Cell(labels, share=18 + rank / 32, shared=__name__)


def measure(settings: Settings, scaling: str, rank: int, rate: float, seed: int) -> Found:
    """Fields of an `Outcome`."""
    return asdict(run(fine_tune(LAWS[scaling], rank, rate, seed), settings.device))


def fine_tune(law: Law, rank: int, rate: float, seed: int) -> FineTune:
    """32 steps of 4 × 128 tokens, judged by all text that is kept for it."""
    sizes = (STEPS, WARMUP_STEPS, BATCH_SIZE, LENGTH)
    return FineTune(law.scaling, rank, rate, seed, *sizes, law.alpha, WINDOWS)
