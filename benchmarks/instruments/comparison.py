"""Options trained side by side: first the best rate of each, then all of them on other seeds.

>>> options = {name: arms(name, RATES) for name in ("tied", "untied")}
>>> compared = Comparison("tying.quality", options, seeds=10, comparisons=2, scatter=0.006)
>>> found = ...                         # of compared.cells(settings), and then of the further ones
>>> compared.advantage(found, "untied", "tied", tokens)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.experiments.experiment import (
    GIGABYTE,
    Cell,
    CellsFound,
    Experiment,
    Settings,
    experiment_of_cells,
)
from benchmarks.instruments import trained_models
from benchmarks.instruments.design import finds
from benchmarks.instruments.trained_models import WARMUP_STEPS, held_out, losses_after
from benchmarks.judging.stats import (
    Estimate,
    crossed_mean_interval,
    holm,
    mean_interval,
    student_p_value,
)
from benchmarks.record.results import Direction, Measurement, Parameter, measured

Array = NDArray[np.float64]

TUNING_SEEDS = (100, 101)
FIRST_SEED = 110  # of those that decide
# Seconds of one thread. A branch for half of the tokens is part of a whole run.
WHOLE_SECONDS, HALF_SECONDS = 260.0, 125.0
NATS = "nats/token"
POINT = 4  # pieces of a curve to a point that is told
SPLITS = 20  # of an option's seeds, to compare it with itself


class Arm(NamedTuple):
    """How an option may be trained; ``trained`` is its name in `trained_models.OPTIONS`."""

    trained: str
    rate: float
    warmup: int = WARMUP_STEPS

    def labels(self, seed: int, tokens: int) -> dict[str, Parameter]:
        """The parameters of a cell."""
        return {
            "option": self.trained,
            "rate": self.rate,
            "seed": seed,
            "tokens": tokens,
            "warmup": self.warmup,
        }


def arms(
    trained: str, rates: Sequence[float], warmups: Sequence[int] = (WARMUP_STEPS,)
) -> list[Arm]:
    """An option at each of these rates, after each of these warm-ups."""
    return [Arm(trained, rate, warmup) for warmup in warmups for rate in rates]


@dataclass(frozen=True)
class Comparison:
    """``options`` by name, and the arms that are tried of each.

    Equal tokens, the same text in the same order, and the same first values by seed. ``seeds``
    decide; ``seeds_of``: other numbers of them, as more for options that may be equally good.
    """

    claim: str
    options: Mapping[str, Sequence[Arm]]
    seeds: int
    comparisons: int  # whose intervals hold together
    scatter: float  # of a pilot's paired differences: a standard deviation over seeds, in nats
    seeds_of: Mapping[str, int] = field(default_factory=dict)

    def cells(self, settings: Settings) -> list[Cell]:
        """Every arm of every option, after half of the tokens, on seeds for tuning alone."""
        return [
            _cell(arm, seed, trained_models.HALF, HALF_SECONDS)
            for tried in self.options.values()
            for arm in tried
            for seed in TUNING_SEEDS
        ]

    def further(self, settings: Settings, found: CellsFound) -> list[Cell]:
        """Each option at its best arm, on the seeds that decide; none once they are there."""
        if len(found) > len(self.cells(settings)):
            return []
        return [
            _cell(self.best(found, option), seed, trained_models.WHOLE, WHOLE_SECONDS)
            for option in self.options
            for seed in self._seeds(option)
        ]

    def experiment(
        self, function: Callable[[Settings, CellsFound], list[Measurement]]
    ) -> Experiment:
        """Turn a function, which makes measurements of what all cells found, into the claim's."""
        decorate = experiment_of_cells(
            self.claim,
            cells=self.cells,
            measure=of_a_cell,
            further=self.further,
            smoke=None,
            quick=None,
            full=self.seconds,
            design=self.design,
        )
        return decorate(function)

    @property
    def design(self) -> str:
        """What it can tell, in a sentence."""
        return finds(self.seeds, self.scatter, self.comparisons)

    @property
    def seconds(self) -> float:
        """Of two cores."""
        tried = sum(map(len, self.options.values())) * len(TUNING_SEEDS)
        judged = sum(len(self._seeds(option)) for option in self.options)
        return (tried * HALF_SECONDS + judged * WHOLE_SECONDS) / 2

    def _seeds(self, option: str) -> range:
        return range(FIRST_SEED, FIRST_SEED + self.seeds_of.get(option, self.seeds))

    def best(self, found: CellsFound, option: str) -> Arm:
        """The arm with the lowest loss, a mean over the seeds for tuning."""
        return min(self.options[option], key=lambda arm: tuned_loss(found, arm))

    def losses(self, found: CellsFound, option: str, tokens: int) -> Array | None:
        """(seeds, windows) of held-out text; None where a run diverged."""
        runs = [losses_after(of_cell, tokens) for of_cell in self.judged(found, option)]
        return np.array(runs) if all(runs) else None

    def judged(self, found: CellsFound, option: str) -> list[Any]:
        """What the runs found that decide of an option, in the order of their seeds."""
        best = self.best(found, option)
        seeds = self._seeds(option)
        return _of([best.labels(seed, trained_models.WHOLE) for seed in seeds], found)

    def advantage(
        self,
        found: CellsFound,
        option: str,
        other: str,
        tokens: int,
        labels: Mapping[str, Parameter] | None = None,
    ) -> list[Measurement]:
        """What ``option`` loses less than ``other``; intervals of all comparisons hold together.

        Paired over windows and the seeds of both. Nothing where a run of either diverged.
        """
        pair = self._pair(found, option, other, tokens)
        if pair is None:
            return []
        ours, theirs = pair
        windows, level = held_out(), 1 - 0.05 / self.comparisons
        saved = crossed_mean_interval(theirs - ours, windows.stretches, level)
        return [
            self.measured(
                saved.of(windows.population),
                metric="loss_advantage",
                option=option,
                parameters={**(labels or {}), "tokens": tokens, "seeds": len(ours)},
                direction="higher",
            )
        ]

    def excess(
        self,
        found: CellsFound,
        option: str,
        other: str,
        tokens: int,
        labels: Mapping[str, Parameter] | None = None,
        told_as: str | None = None,
    ) -> list[Measurement]:
        """What ``option`` loses more than ``other``, as in `advantage`; ``told_as``: its name."""
        name = told_as or option
        return [
            replace(each, metric="loss_excess", option=name, direction="lower")
            for each in self.advantage(found, other, option, tokens, labels)
        ]

    def same_twice(self, found: CellsFound, option: str, tokens: int) -> list[Measurement]:
        """How many of SPLITS comparisons of an option with itself would be told apart.

        Each one takes half of its seeds against the other half, after Holm's correction.
        """
        losses = self.losses(found, option, tokens)
        if losses is None:
            return []
        draws, half, pairs = np.random.default_rng(0), len(losses) // 2, []
        for _ in range(SPLITS):
            order = draws.permutation(len(losses))
            difference = losses[order[:half]] - losses[order[half : 2 * half]]
            pairs.append(crossed_mean_interval(difference, held_out().stretches))
        adjusted = holm([student_p_value(pair) for pair in pairs])
        return [
            self.measured(
                int((adjusted < 0.05).sum()),
                metric="told_apart_from_itself",
                option=option,
                parameters={"comparisons": SPLITS, "tokens": tokens, "seeds": half},
                direction="lower",
                unit="comparisons",
                source="counted",
            )
        ]

    def _pair(
        self, found: CellsFound, option: str, other: str, tokens: int
    ) -> tuple[Array, Array] | None:
        """(seeds, windows) each, of the seeds that both have."""
        ours, theirs = (self.losses(found, name, tokens) for name in (option, other))
        if ours is None or theirs is None:
            return None
        seeds = min(len(ours), len(theirs))
        return ours[:seeds], theirs[:seeds]

    def told(self, found: CellsFound) -> Iterator[Measurement]:
        """Of every option its losses, the arm it was judged at, and runs that did not train."""
        for option, tried in self.options.items():
            best = _told(self.best(found, option))
            for tokens in (trained_models.HALF, trained_models.WHOLE):
                losses = self.losses(found, option, tokens)
                seeds = len(self._seeds(option))
                labels: dict[str, Parameter] = {"tokens": tokens, "seeds": seeds}
                if losses is not None:
                    yield self.measured(
                        held_out().crossed_mean(losses),
                        metric="held_out_loss",
                        option=option,
                        parameters={**labels, **best},
                        direction="lower",
                    )
                outcomes = [
                    each["by_tokens"][str(tokens)]["outcome"] for each in self.judged(found, option)
                ]
                yield self.measured(
                    sum(outcome != "trained" for outcome in outcomes),
                    metric="runs_not_trained",
                    option=option,
                    parameters=labels,
                    unit="runs",
                    source="counted",
                )
            yield from self._curve(found, option)
            for arm in tried:
                loss = tuned_loss(found, arm)
                if math.isfinite(loss):
                    yield self.measured(
                        loss, metric="tuning_loss", option=option, parameters=_told(arm)
                    )

    def _curve(self, found: CellsFound, option: str) -> Iterator[Measurement]:
        """The training loss on its way, a mean over seeds; nothing where a run diverged."""
        curves = [np.array(run["curve"]) for run in self.judged(found, option)]
        if len({len(curve) for curve in curves}) > 1:
            return
        for at in range(POINT - 1, len(curves[0]), POINT):
            tokens = int(curves[0][at, 0])
            yield self.measured(
                mean_interval([curve[at, 1] for curve in curves]),
                metric="training_loss",
                option=option,
                parameters={"tokens": tokens, "seeds": len(curves)},
                direction="lower",
            )

    def measured(
        self,
        found: float | Estimate,
        *,
        metric: str,
        option: str,
        parameters: Mapping[str, Parameter],
        direction: Direction = "none",
        unit: str = NATS,
        source: str = "training",
    ) -> Measurement:
        """A measurement of the claim."""
        return measured(
            found,
            claim=self.claim,
            metric=metric,
            unit=unit,
            direction=direction,
            choice="trained",
            option=option,
            parameters=parameters,
            source=source,
        )


def tuned_loss(found: CellsFound, arm: Arm) -> float:
    """Nats per token after half of the tokens, of the seeds for tuning; infinite: one diverged."""
    half = trained_models.HALF
    runs = _of([arm.labels(seed, half) for seed in TUNING_SEEDS], found)
    losses = [losses_after(run, half) for run in runs]
    return statistics.fmean(statistics.fmean(each) if each else math.inf for each in losses)


def of_a_cell(settings: Settings, **labels: Any) -> Any:
    """What a cell finds, whichever claim asks first."""
    return trained_models.measure(settings, **labels)


def _of(wanted: Sequence[Mapping[str, Parameter]], found: CellsFound) -> list[Any]:
    """What the cells with these labels found, in their order."""
    by_labels = {tuple(sorted(labels.items())): of_cell for labels, of_cell in found}
    return [by_labels[tuple(sorted(labels.items()))] for labels in wanted]


def _cell(arm: Arm, seed: int, tokens: int, seconds: float) -> Cell:
    labels = arm.labels(seed, tokens)
    return Cell(labels, share=seconds, memory=GIGABYTE, shared=trained_models.__name__)


def _told(arm: Arm) -> dict[str, Parameter]:
    return {"trained": arm.trained, "rate": arm.rate, "warmup_steps": arm.warmup}
