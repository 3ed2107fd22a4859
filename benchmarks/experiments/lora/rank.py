"""L1, LoRA in training: what a higher rank saves in loss, by scaling and learning rate."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.experiments.experiment import Cell, CellsFound, Found, Settings, experiment_of_cells
from benchmarks.experiments.lora.training import EQUAL_RATE, SCALINGS
from benchmarks.instruments import rank_sweep
from benchmarks.instruments.design import finds
from benchmarks.instruments.finetuning import Outcome, step_seconds
from benchmarks.instruments.rank_sweep import LAWS, RANKS, fine_tune
from benchmarks.instruments.topics import topics_source
from benchmarks.judging.stats import crossed_mean_interval, mean_interval
from benchmarks.record.results import Measurement, Parameter, measured

Array = NDArray[np.float64]

SEEDS = range(20, 30)
PROCESSES = 5  # in which steps are timed, of all ranks

Tried = tuple[str, int, float]  # scaling, rank, learning rate
Sweep = Mapping[Tried, list[Outcome]]  # an outcome for each seed


def rates_of(option: str) -> list[float]:
    """Those of its law, and the one at which all ranks are compared."""
    return sorted([*LAWS[option].rates, EQUAL_RATE])


def cells(settings: Settings) -> list[Cell]:
    """A cell for each fine-tune; steps are timed apart, where nothing runs beside them."""
    tuned = [
        rank_sweep.cell(option, rank, rate, seed)
        for option in SCALINGS
        for rank in RANKS
        for rate in rates_of(option)
        for seed in SEEDS
    ]
    timed = [Cell({"process": i}, share=30, timed=True) for i in range(PROCESSES)]
    return tuned + timed


def of_a_cell(settings: Settings, process: int | None = None, **tuned: Any) -> Found:
    """Fields of an `Outcome`; or seconds of a step by rank, of one process."""
    if process is None:
        return rank_sweep.measure(settings, **tuned)
    specs = [fine_tune(LAWS["alpha/r"], rank, EQUAL_RATE, seed=0) for rank in RANKS]
    seconds = step_seconds(specs, settings.device)
    return {"threads": torch.get_num_threads(), "seconds": seconds}


@experiment_of_cells(
    "lora.rank-pays",
    cells=cells,
    measure=of_a_cell,
    smoke=None,
    quick=None,
    full=4500,
    design=finds(len(SEEDS), scatter=0.016),
)
def rank_pays(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Held-out loss by rank, at one learning rate and at each rank's best."""
    tried: dict[Tried, list[Outcome]] = {}
    samples: list[Found] = []
    for labels, of_cell in found:
        if "process" in labels:
            samples.append(of_cell)
        else:
            key = str(labels["scaling"]), int(labels["rank"]), float(labels["rate"])
            tried.setdefault(key, []).append(Outcome(**of_cell))
    return [*findings(tried), *_of_seconds(samples)]


def held_out(found: Sweep, tried: Tried) -> Array | None:
    """(seeds, windows), nats per token; None where a seed diverged."""
    losses = [outcome.held_out for outcome in found[tried]]
    return np.array(losses) if all(losses) else None


def best_rate(found: Sweep, option: str, rank: int) -> float:
    """Of the lowest validation loss, averaged over the seeds; held-out text has no say."""
    return min(
        (rate for of_option, of_rank, rate in found if (of_option, of_rank) == (option, rank)),
        key=lambda rate: statistics.fmean(o.validation_loss for o in found[option, rank, rate]),
    )


def findings(found: Sweep) -> Iterator[Measurement]:
    """What the fine-tunes say; differences are paired over seeds and windows of held-out text.

    ValueError where a fine-tune that is judged diverged.
    """
    record = partial(measured, claim="lora.rank-pays", choice="scaling", source=topics_source())
    tuned = {
        (option, rank): best_rate(found, option, rank) for option in SCALINGS for rank in RANKS
    }
    judged = {
        (option, rank, learning_rate): _judged(found, (option, rank, rate))
        for (option, rank), best in tuned.items()
        for learning_rate, rate in (("equal", EQUAL_RATE), ("tuned", best))
    }
    for (option, rank), rate in tuned.items():
        yield record(
            rate,
            metric="best_learning_rate",
            unit="1",
            direction="none",
            option=option,
            parameters={"rank": rank},
        )
    yield from _of_losses(partial(record, unit="nats/token"), judged)
    yield from _of_rates(partial(record, unit="nats/token"), found)
    yield from _of_costs(record, found)


def _judged(found: Sweep, tried: Tried) -> Array:
    losses = held_out(found, tried)
    if losses is None:
        raise ValueError(f"a fine-tune with {tried} diverged: there is no loss to judge")
    return losses


def _of_losses(
    record: Callable[..., Measurement], judged: Mapping[tuple[str, int, str], Array]
) -> Iterator[Measurement]:
    """The claim's gain; every rank's loss, its gain over the lowest rank, and α/√r's over α/r."""
    for (option, rank, learning_rate), losses in judged.items():
        labels: dict[str, Parameter] = {"rank": rank, "learning_rate": learning_rate}
        loss = crossed_mean_interval(losses)
        yield record(
            loss, metric="held_out_loss", option=option, direction="lower", parameters=labels
        )
        more = partial(record, option=option, direction="higher")
        gain = crossed_mean_interval(judged[option, RANKS[0], learning_rate] - losses)
        if rank == RANKS[-1]:
            named: dict[str, Parameter] = {"learning_rate": learning_rate, "seeds": len(losses)}
            yield more(gain, metric="loss_gain", parameters=named)
        if rank != RANKS[0]:
            yield more(gain, metric="gain_over_rank_4", parameters=labels)
        other = judged["alpha/r", rank, learning_rate]
        if option != "alpha/r":
            over = crossed_mean_interval(other - losses)
            yield more(over, metric="gain_over_alpha_r", parameters=labels)


def _of_rates(record: Callable[..., Measurement], found: Sweep) -> Iterator[Measurement]:
    """Loss at every rate, and rank 256's gain over rank 4 there: how far one rate decides it."""
    for (option, rank, rate), outcomes in found.items():
        losses = held_out(found, (option, rank, rate))
        if losses is None:
            continue
        labels: dict[str, Parameter] = {"rank": rank, "rate": rate}
        at_rate = partial(record, option=option)
        loss = crossed_mean_interval(losses)
        yield at_rate(loss, metric="loss_at_rate", direction="lower", parameters=labels)
        validation = mean_interval([outcome.validation_loss for outcome in outcomes])
        yield at_rate(
            validation, metric="validation_loss_at_rate", direction="lower", parameters=labels
        )
        lowest = held_out(found, (option, RANKS[0], rate))
        if rank == RANKS[-1] and lowest is not None:
            gain = crossed_mean_interval(lowest - losses)
            named: dict[str, Parameter] = {"rate": rate}
            yield at_rate(gain, metric="gain_at_rate", direction="higher", parameters=named)


def _of_costs(record: Callable[..., Measurement], found: Sweep) -> Iterator[Measurement]:
    """Trained share and optimiser state, counted: neither depends on scaling, rate or seed."""
    for rank in RANKS:
        first = found["alpha/r", rank, EQUAL_RATE][0]
        share = 100 * first.trained_parameters / first.frozen_parameters
        for metric, unit, value in (
            ("trained_share", "percent", share),
            ("optimizer_bytes", "bytes", first.optimizer_bytes),
        ):
            yield record(
                value,
                metric=metric,
                unit=unit,
                direction="lower",
                option="both",
                parameters={"rank": rank},
                source="counted",
            )


def _of_seconds(samples: Sequence[Mapping[str, Any]]) -> Iterator[Measurement]:
    """Seconds of a step, an observation for each process."""
    for index, rank in enumerate(RANKS):
        yield measured(
            mean_interval([sample["seconds"][index] for sample in samples]),
            claim="lora.rank-pays",
            metric="seconds_per_step",
            unit="seconds",
            direction="lower",
            choice="scaling",
            option="both",
            parameters={"rank": rank, "threads": samples[0]["threads"]},
            source="clock",
        )
