"""L5, counted: how the work of a whole generation grows with its length, cached and not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from benchmarks.experiments.experiment import (
    Cell,
    CellsFound,
    Found,
    Profile,
    Settings,
    as_found,
    experiment_of_cells,
    joined,
)
from benchmarks.instruments.clock import interleaved_durations
from benchmarks.instruments.counting import count
from benchmarks.judging.stats import mean_interval
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.built import Model, ModelConfig
from benchmarks.subjects.subject import subject_of
from reference_model.config import preset
from reference_model.costs import Flops, forward_flops
from reference_model.generate import generate

OPTIONS = {"cached": True, "uncached": False}
PROMPT_TOKENS = 1
# Consecutive lengths, as finite differences need them, and longer ones for the chart.
CONSECUTIVE = tuple(range(1, 10))
LONGER = (16, 32, 64, 128)

# Of times there are only exponents, and those depend on the range: the reference shape generates
# so many tokens, one process giving one exponent.
LENGTHS_TIMED = (8, 16, 32, 64, 128)
PROCESSES: dict[Profile, int] = {"smoke": 0, "quick": 3, "full": 10}

record = partial(measured, claim="cache.complexity", choice="cache", direction="lower")


def cells(settings: Settings) -> list[Cell]:
    """What is counted, and a process at a time what is timed."""
    found = [Cell({"part": "counted"}, share=9)]
    found += [
        Cell({"part": "timed", "process": index}, share=1, timed=True)
        for index in range(PROCESSES[settings.profile] if settings.of_reference else 0)
    ]
    return found


def of_a_cell(settings: Settings, part: str, process: int = 0) -> Found:
    """Measurements of what is counted; both arms' exponents of one process."""
    if part == "counted":
        return as_found(_counted(settings))
    return {**exponents_of_seconds(settings.device), "threads": torch.get_num_threads()}


@experiment_of_cells(
    "cache.complexity",
    cells=cells,
    measure=of_a_cell,
    smoke=2.5,
    quick=12,
    full=45,
    of_any_model=True,
)
def complexity(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Degrees of the counted FLOPs of a run as polynomials in its length T, and of its seconds.

    "projections" are all linear layers, "attention" the scores and the weighted sums. A degree is
    read off exactly: the order at which the finite differences of the counts are constant. Seconds
    have exponents only, with intervals, over the range of lengths that was timed, and only of the
    reference.
    """
    samples = [of_process for _, of_process in found[1:]]
    return joined(settings, found[:1]) + list(_exponents(samples))


def _counted(settings: Settings) -> Iterator[Measurement]:
    """Of the toy, since degrees are the same in any size; of another subject, its own."""
    model, lengths = Model(preset("toy")).eval(), (*CONSECUTIVE, *LONGER)
    if not settings.of_reference:
        model, lengths = subject_of(settings).model().cpu(), CONSECUTIVE
    for option, use_cache in OPTIONS.items():
        counted = {T: counted_flops(model, T, use_cache) for T in lengths}
        for part in ("projections", "attention"):
            labels = {"part": part}
            of_part = partial(record, option=option, source="counted")
            degree = polynomial_degree([counted[T][part] for T in CONSECUTIVE])
            yield of_part(degree, metric="polynomial_degree", unit="1", parameters=labels)
            for T, flops in counted.items():
                named = {**labels, "tokens": T}
                yield of_part(flops[part], metric="flops", unit="FLOP", parameters=named)


def counted_flops(model: Model, new_tokens: int, use_cache: bool) -> dict[str, int]:
    """FLOPs of one generation by part; ValueError where they are not those of the closed form."""
    prompt = torch.zeros(1, PROMPT_TOKENS, dtype=torch.int64)
    counts = count(lambda: generate(model, prompt, new_tokens, use_cache=use_cache))
    attention = counts.attention_flops
    found = {"projections": counts.flops - attention, "attention": attention}
    law = closed_form(model.config, new_tokens, use_cache)
    if found != law:
        raise ValueError(f"counted {found}, the closed form says {law}")
    return found


def closed_form(config: ModelConfig, new_tokens: int, use_cache: bool) -> dict[str, int]:
    """The same in closed form; the head reads the last position of each step alone."""
    steps: list[Flops] = []
    past = 0
    for length in range(PROMPT_TOKENS, PROMPT_TOKENS + new_tokens):
        steps.append(forward_flops(config, length - past, past, last_only=True))
        past = length if use_cache else 0
    return {
        "projections": sum(step.projections + step.mlp + step.head for step in steps),
        "attention": sum(step.attention for step in steps),
    }


def polynomial_degree(values: Sequence[int]) -> int:
    """The degree of a polynomial from its values at consecutive whole numbers, exactly.

    Its differences of that order are one constant, not 0. Raises ValueError where no difference is
    constant with three values left to show it: then it is no polynomial of a low degree.
    """
    differences = list(values)
    for degree in range(len(values) - 2):
        if len(set(differences)) == 1 and differences[0] != 0:
            return degree
        differences = [b - a for a, b in pairwise(differences)]
    raise ValueError(f"{list(values)}: no difference is constant, so that this is no polynomial")


def _exponents(samples: Sequence[Mapping[str, Any]]) -> Iterator[Measurement]:
    if not samples:
        return
    labels: dict[str, Parameter] = {
        "model": "reference",
        "shortest": LENGTHS_TIMED[0],
        "longest": LENGTHS_TIMED[-1],
        "threads": samples[0]["threads"],
    }
    for option in OPTIONS:
        yield record(
            mean_interval([sample[option] for sample in samples]),
            metric="time_exponent",
            unit="1",
            option=option,
            parameters=labels,
            source="clock",
        )


def exponents_of_seconds(device: str) -> dict[str, float]:
    """Both arms' exponents of seconds over length in this process: slopes on log axes."""
    model = Model(preset("reference")).to(device).eval()
    prompt = torch.zeros(1, PROMPT_TOKENS, dtype=torch.int64, device=device)
    arms = {
        f"{option} {length}": partial(generate, model, prompt, length, use_cache=use_cache)
        for option, use_cache in OPTIONS.items()
        for length in LENGTHS_TIMED
    }
    taken = interleaved_durations(arms, rounds=2)
    return {
        option: slope({T: min(taken[f"{option} {T}"]) for T in LENGTHS_TIMED}) for option in OPTIONS
    }


def slope(seconds: Mapping[int, float]) -> float:
    """Exponent p of seconds = c·T^p, by least squares on the logs."""
    logs = np.log([[length, taken] for length, taken in seconds.items()])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
