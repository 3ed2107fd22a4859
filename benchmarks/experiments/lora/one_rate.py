"""L1: whether rsLoRA beats LoRA at rank 64 by more than a larger scale at the same rate."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.experiments.experiment import Cell, CellsFound, Found, Settings, experiment_of_cells
from benchmarks.instruments.finetuning import FineTune, Outcome, run
from benchmarks.instruments.topics import topics_source
from benchmarks.judging.stats import crossed_mean_interval
from benchmarks.record.results import Measurement, Parameter, measured
from reference_model.lora import ScalingLaw

Array = NDArray[np.float64]

CLAIM = "lora.rslora-is-a-rate"
RANK = 64
SEEDS = range(30, 40)
STEPS, WARMUP_STEPS, BATCH_SIZE, LENGTH = 32, 4, 4, 128
WINDOWS = (89, 109)  # of validation and of held-out text: all that there are


class Way(NamedTuple):
    """A scaling, as the widely copied comparison has it, and the middle of the rates tried."""

    scaling: ScalingLaw
    alpha: float
    middle: float


# Scales of 2 and of 8. By the law of lora.learning-rate-law the best rates lie a factor of 2 apart.
WAYS = {"alpha/r": Way("lora", 128.0, 1.4e-3), "alpha/sqrt(r)": Way("rslora", 64.0, 0.7e-3)}


def rates_of(way: Way) -> list[float]:
    """Seven, each √2 times the one before; five of them are the other's, too."""
    return [way.middle * 2 ** (power / 2) for power in range(-3, 4)]


def cells(settings: Settings) -> list[Cell]:
    """A cell for each fine-tune."""
    return [
        Cell({"scaling": name, "rate": rate, "seed": seed})
        for name, way in WAYS.items()
        for rate in rates_of(way)
        for seed in SEEDS
    ]


def of_a_cell(settings: Settings, scaling: str, rate: float, seed: int) -> Found:
    """Fields of an `Outcome`."""
    way = WAYS[scaling]
    tuned = FineTune(way.scaling, RANK, rate, seed, STEPS, WARMUP_STEPS, BATCH_SIZE, LENGTH)
    given = {**vars(tuned), "alpha": way.alpha, "evaluation_windows": WINDOWS}
    return asdict(run(FineTune(**given), settings.device))


@experiment_of_cells(CLAIM, cells=cells, measure=of_a_cell, smoke=None, quick=None, full=900)
def rslora_is_a_rate(settings: Settings, found: CellsFound) -> list[Measurement]:
    """What rsLoRA saves at one rate, and at the best rate of each, chosen on validation text."""
    outcomes: dict[tuple[str, int], list[Outcome]] = {}
    for labels, of_cell in found:
        name = str(labels["scaling"])
        key = name, _step(float(labels["rate"]))
        outcomes.setdefault(key, []).append(Outcome(**of_cell))
    record = partial(
        measured, claim=CLAIM, choice="scaling", source=topics_source(), unit="nats/token"
    )
    measurements = []
    best = {name: _best(outcomes, name) for name in WAYS}
    for (name, step), tuned in sorted(outcomes.items()):
        if (losses := _losses(tuned)) is not None:
            measurements.append(
                record(
                    crossed_mean_interval(losses),
                    metric="held_out_loss",
                    option=name,
                    parameters={"rate": _rate(step), "best": step == best[name]},
                    direction="lower",
                )
            )
    steps = sorted({step for _, step in outcomes})
    pairs: list[tuple[dict[str, Parameter], tuple[int, int]]] = [
        ({"rates": "one", "rate": _rate(step)}, (step, step)) for step in steps
    ]
    pairs.append(({"rates": "the best of each"}, (best["alpha/r"], best["alpha/sqrt(r)"])))
    for told, (of_lora, of_rslora) in pairs:
        lora, rslora = (
            _losses(outcomes.get((name, step), []))
            for name, step in (("alpha/r", of_lora), ("alpha/sqrt(r)", of_rslora))
        )
        if lora is not None and rslora is not None:
            measurements.append(
                record(
                    crossed_mean_interval(lora - rslora),
                    metric="loss_saved",
                    option="alpha/sqrt(r)",
                    parameters={**told, "seeds": len(SEEDS)},
                    direction="higher",
                )
            )
    return measurements


def _losses(tuned: list[Outcome]) -> Array | None:
    """(seeds, windows) of held-out text; None where there are none, or one diverged."""
    losses = [outcome.held_out for outcome in tuned]
    return np.array(losses) if losses and all(losses) else None


def _best(outcomes: dict[tuple[str, int], list[Outcome]], name: str) -> int:
    means = {
        step: float(np.mean([outcome.validation_loss for outcome in tuned]))
        for (of, step), tuned in outcomes.items()
        if of == name
    }
    return min(means, key=lambda step: means[step])


def _step(rate: float) -> int:
    """Of a rate the number of factors √2 above the smaller middle."""
    return round(2 * np.log2(rate / WAYS["alpha/sqrt(r)"].middle))


def _rate(step: int) -> float:
    return float(WAYS["alpha/sqrt(r)"].middle * 2 ** (step / 2))
