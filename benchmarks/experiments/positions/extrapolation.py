"""L2: what each encoding loses beyond the length that it was trained at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.experiments.experiment import CellsFound, Settings
from benchmarks.experiments.positions.quality import COMPARED as ENCODINGS
from benchmarks.instruments.extrapolation import AT_ONE, PART, RATIOS
from benchmarks.instruments.trained_models import CONFIG, held_out
from benchmarks.judging.stats import crossed_mean_interval, mean_interval
from benchmarks.record.results import Measurement, Parameter

Array = NDArray[np.float64]

CLAIM = "position.extrapolation"
# Learned positions end where training ended: they cannot be read beyond it.
READ = ("rope", "sinusoidal", "alibi", "none")
COMPARED = replace(
    ENCODINGS, claim=CLAIM, options={option: ENCODINGS.options[option] for option in READ}
)


@COMPARED.experiment
def position_extrapolation(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Rises over the trained length on the same targets; rotary's lead; the loss by position.

    Models are those of position.quality. One that did not train is told there, and has none.
    """
    by_option = {option: _beyond(found, option) for option in READ}
    read = {option: each for option, each in by_option.items() if each}
    measurements: list[Measurement] = []
    for option, runs in read.items():
        measurements += _rises(option, runs)
        measurements += _by_position(option, runs)
    if "rope" in read:
        for other in read:
            if other != "rope":
                measurements += _leads(read["rope"], other, read[other])
    return measurements


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
