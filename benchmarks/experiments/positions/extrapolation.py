"""L2: what each encoding loses beyond the length that it was trained at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.experiments.experiment import (
    Cell,
    CellsFound,
    Found,
    Settings,
    experiment_of_cells,
)
from benchmarks.experiments.positions.quality import COMPARED as ENCODINGS
from benchmarks.instruments import comparison, copy_task
from benchmarks.instruments.extrapolation import AT_ONE, PART, RATIOS
from benchmarks.instruments.trained_models import BASELINE, CONFIG, held_out
from benchmarks.judging.stats import crossed_mean_interval, mean_interval
from benchmarks.record.results import Measurement, Parameter

Array = NDArray[np.float64]

CLAIM = "position.extrapolation"
# Learned positions end where training ended: they cannot be read beyond it.
READ = ("rope", "sinusoidal", "alibi", "none")
COMPARED = replace(
    ENCODINGS, claim=CLAIM, options={option: ENCODINGS.options[option] for option in READ}
)
COPY = "copy"  # the task that depends on a distance alone
COPYING = {"learned": BASELINE, **{option: option for option in READ}}
COPY_SEEDS = range(130, 135)
COPY_SECONDS = 85.0  # of one thread


def cells(settings: Settings) -> list[Cell]:
    """Of the comparison, and one for each encoding and seed that learns to copy."""
    copying = [
        Cell({"task": COPY, "option": trained, "seed": seed}, share=COPY_SECONDS)
        for trained in COPYING.values()
        for seed in COPY_SEEDS
    ]
    return COMPARED.cells(settings) + copying


def further(settings: Settings, found: CellsFound) -> list[Cell]:
    return COMPARED.further(settings, _of_text(found))


def of_a_cell(settings: Settings, task: str = "", **labels: Any) -> Found:
    if task == COPY:
        return copy_task.measure(settings, **labels)
    return comparison.of_a_cell(settings, **labels)


def _of_text(found: CellsFound) -> CellsFound:
    """Without those that learn to copy."""
    return [(labels, of_cell) for labels, of_cell in found if "task" not in labels]


@experiment_of_cells(
    CLAIM,
    cells=cells,
    measure=of_a_cell,
    further=further,
    smoke=None,
    quick=None,
    full=COMPARED.seconds + len(COPYING) * len(COPY_SEEDS) * COPY_SECONDS / 2,
    design=COMPARED.design,
)
def position_extrapolation(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Rises over the trained length on the same targets; rotary's lead; the loss by position.

    Models are those of position.quality. One that did not train is told there, and has none. Beside
    them: how often small ones copy from a fixed distance, at the trained length and beyond.
    """
    text = _of_text(found)
    by_option = {option: _beyond(text, option) for option in READ}
    read = {option: each for option, each in by_option.items() if each}
    measurements: list[Measurement] = []
    for option, runs in read.items():
        measurements += _rises(option, runs)
        measurements += _by_position(option, runs)
    if "rope" in read:
        for other in read:
            if other != "rope":
                measurements += _leads(read["rope"], other, read[other])
    for option, trained in COPYING.items():
        measurements += _copies(found, option, trained)
    return measurements


def _copies(found: CellsFound, option: str, trained: str) -> Iterator[Measurement]:
    """Share of answers beyond the trained length; at a ratio of 1, of all of them."""
    wanted = {"task": COPY, "option": trained}
    runs = [of_cell["right"] for labels, of_cell in found if wanted.items() <= labels.items()]
    for ratio in runs[0] if runs else ():
        yield COMPARED.measured(
            mean_interval([run[ratio] for run in runs]),
            metric="copied",
            option=option,
            parameters={"length_ratio": int(ratio), "seeds": len(runs)},
            direction="higher",
            unit="1",
        )


def _beyond(found: CellsFound, option: str) -> list[Any]:
    """Of each seed; none where a run did not train."""
    runs = [run["beyond"] for run in COMPARED.judged(found, option)]
    return runs if all(runs) else []


def losses(runs: list[Any], ratio: int, way: str) -> Array | None:
    """(seeds, windows), nats per token; None for a way that this option does not have."""
    of_runs = [run["by_ratio"][str(ratio)].get(way) for run in runs]
    return np.array(of_runs) if all(of_runs) else None


def _rises(option: str, runs: list[Any]) -> Iterator[Measurement]:
    for ratio in RATIOS:
        windows = held_out(ratio * CONFIG.context_length)
        before = losses(runs, ratio, AT_ONE)
        assert before is not None
        for way in runs[0]["by_ratio"][str(ratio)]:
            after = losses(runs, ratio, way)
            if way == AT_ONE or after is None:
                continue
            scaling, _, is_tuned = way.partition(", ")
            rise = crossed_mean_interval(after - before, windows.stretches)
            yield COMPARED.measured(
                rise.of(windows.population),
                metric="loss_rise",
                option=option,
                parameters={
                    "length_ratio": ratio,
                    "rope_scaling": scaling,
                    "tuned": bool(is_tuned),
                    "seeds": len(runs),
                },
                direction="lower",
            )


def _leads(rope: list[Any], other: str, runs: list[Any]) -> Iterator[Measurement]:
    for ratio in RATIOS:
        windows = held_out(ratio * CONFIG.context_length)
        ours, theirs = (losses(each, ratio, "none") for each in (rope, runs))
        assert ours is not None
        assert theirs is not None
        lead = crossed_mean_interval(theirs - ours, windows.stretches)
        yield COMPARED.measured(
            lead.of(windows.population),
            metric="loss_advantage",
            option="rope",
            parameters={"over": other, "length_ratio": ratio, "seeds": len(rope)},
            direction="higher",
        )


def _by_position(option: str, runs: list[Any]) -> Iterator[Measurement]:
    record = partial(COMPARED.measured, metric="loss_by_position", option=option, direction="lower")
    for part, values in enumerate(np.array([run["by_position"] for run in runs]).T):
        labels: dict[str, Parameter] = {"position": (part + 1) * PART, "seeds": len(runs)}
        yield record(mean_interval(values), parameters=labels)
