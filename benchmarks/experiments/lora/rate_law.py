"""L1: how the best learning rate moves with the rank, under three scalings of the adapters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.experiments.experiment import Cell, CellsFound, Found, Settings, experiment_of_cells
from benchmarks.experiments.lora.rank import fine_tune
from benchmarks.experiments.lora.training import RANKS
from benchmarks.instruments.finetuning import FineTune, Outcome, run
from benchmarks.instruments.rate_law import RULES, best_rate, exponents, resampled
from benchmarks.instruments.topics import topics_source
from benchmarks.judging.stats import mean_interval
from benchmarks.record.results import Measurement, Parameter, measured
from reference_model.lora import ScalingLaw

Array = NDArray[np.float64]

CLAIM = "lora.learning-rate-law"
SEEDS = range(20, 28)
WINDOWS = (89, 109)  # of validation and of held-out text: all that there are
RULE = "three lowest"  # what decides; the other stands beside it
PLANTED = 0.25  # how far a wrong law is off, which has to be told from the right one


class Law(NamedTuple):
    """A scaling, the exponent that is said of it, and the middle of the rates that are tried."""

    scaling: ScalingLaw
    alpha: float
    exponent: float
    middle: float


# The middles are where a trial with other seeds found the valleys.
LAWS = {
    "alpha/r": Law("lora", 16.0, 0.0, 4e-3),
    "alpha/sqrt(r)": Law("rslora", 16.0, -0.25, 2e-3),
    "constant": Law("constant", 1.0, -0.5, 4e-3),
}


def rates_of(law: Law) -> Array:
    """Seven, each twice the one before."""
    return np.array([law.middle * 2.0**power for power in range(-3, 4)])


def cells(settings: Settings) -> list[Cell]:
    """A cell for each fine-tune."""
    return [
        Cell({"scaling": name, "rank": rank, "rate": rate, "seed": seed}, share=18 + rank / 32)
        for name, law in LAWS.items()
        for rank in RANKS
        for rate in rates_of(law).tolist()
        for seed in SEEDS
    ]


def of_a_cell(settings: Settings, scaling: str, rank: int, rate: float, seed: int) -> Found:
    """Fields of an `Outcome`."""
    return asdict(run(tuned_by(LAWS[scaling], rank, rate, seed), settings.device))


def tuned_by(law: Law, rank: int, rate: float, seed: int) -> FineTune:
    """That of lora.rank-pays, at this scaling and judged by all text."""
    as_there = fine_tune("alpha/r", rank, rate, seed)
    return replace(as_there, scaling=law.scaling, alpha=law.alpha, evaluation_windows=WINDOWS)


@experiment_of_cells(CLAIM, cells=cells, measure=of_a_cell, smoke=None, quick=None, full=4750)
def learning_rate_law(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Exponents by two rules, the best rates, and how often a design like this tells the law."""
    measurements: list[Measurement] = []
    for name, law in LAWS.items():
        losses = losses_of(found, name, law)
        measurements += _exponents(name, law, losses)
        measurements += _best_rates(name, law, losses)
        measurements += _instrument(name, law, losses)
    return measurements


def losses_of(found: CellsFound, name: str, law: Law) -> Array:
    """(seeds, ranks, rates): means over all windows; infinite where a fine-tune diverged."""
    by_labels = {tuple(sorted(labels.items())): Outcome(**of_cell) for labels, of_cell in found}

    def loss(rank: int, rate: float, seed: int) -> float:
        labels: dict[str, Parameter] = {
            "scaling": name,
            "rank": rank,
            "rate": rate,
            "seed": seed,
        }
        outcome = by_labels[tuple(sorted(labels.items()))]
        both = outcome.validation + outcome.held_out
        return float(np.mean(both)) if both else np.inf

    return np.array(
        [
            [[loss(rank, float(rate), seed) for rate in rates_of(law)] for rank in RANKS]
            for seed in SEEDS
        ]
    )


def _record(**told: Any) -> Measurement:
    found = told.pop("found")
    return measured(
        found,
        claim=CLAIM,
        choice="scaling",
        source=told.pop("source", topics_source()),
        direction="none",
        unit="1",
        **told,
    )


def _exponents(name: str, law: Law, losses: Array) -> Iterator[Measurement]:
    for rule, points in RULES.items():
        slopes = exponents(np.array(RANKS), rates_of(law), losses, points)
        yield _record(
            found=mean_interval(slopes), metric="exponent", option=name, parameters={"rule": rule}
        )


def _best_rates(name: str, law: Law, losses: Array) -> Iterator[Measurement]:
    for index, rank in enumerate(RANKS):
        best = [best_rate(rates_of(law), of_seed[index], RULES[RULE]) for of_seed in losses]
        yield _record(
            found=mean_interval(best), metric="best_rate", option=name, parameters={"rank": rank}
        )


def _instrument(name: str, law: Law, losses: Array) -> Iterator[Measurement]:
    """Of resampled designs the share that is found to follow the law, where it holds and not."""
    tell = partial(
        resampled, np.array(RANKS), rates_of(law), losses, law.exponent, points=RULES[RULE]
    )
    for truth, planted in (("the law", law.exponent), ("off by a quarter", law.exponent - PLANTED)):
        labels: dict[str, Parameter] = {"truth": truth, "rule": RULE}
        yield _record(
            found=tell(planted=planted).within,
            metric="told_as_the_law",
            option=name,
            parameters=labels,
            source="simulation",
        )
