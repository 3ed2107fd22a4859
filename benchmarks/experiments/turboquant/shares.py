"""L5: do keys need more bits than values?

How much is read was planned on a pilot: five rotations and 54 windows of the same text, which left
the question open. The run that decides takes other rotations, and windows that the pilot did not
read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.experiments.experiment import (
    Cell,
    CellsFound,
    Found,
    Settings,
    experiment_of_cells,
)
from benchmarks.experiments.turboquant.kv_quality import (
    Way,
    measurements,
    read_through,
    recorder,
    together,
)
from benchmarks.instruments.windows import Windows, spread, spread_indices
from benchmarks.judging.power import Design, Scatter, crossed_power, scatter_of
from benchmarks.record.results import Measurement, measured
from benchmarks.subjects.subject import subject_of
from reference_model.quantization.turboquant import TurboQuant

Array = NDArray[np.float64]

CLAIM = "turboquant.keys-need-more"
MANY, EVEN, FEW = (4, 2), (3, 3), (2, 4)  # bits of a key and of its value, six in all
BORDER = 0.005  # nats a token that the claim speaks of
AT_ONCE = 5  # rotations that a cell reads

# The pilot, and what is read of another model or text: it is asked for the first time.
PILOT_WINDOWS, PILOT_ROTATIONS = 54, range(5)
# 4 + 2 saved 0.0134 nats a token over 2 + 4 there; `scatter_of` its differences is this.
PILOT_SAVED = 0.0134
PILOT_SCATTER = Scatter(1.70e-5, 1.01e-4, 1.66e-4, 4.95e-4)
# Fixed before any of it was read: about four windows of each stretch of text, in which an effect as
# large as the pilot's is told from the border in more than 80 % of such runs. That nothing is saved
# is told in less than half of them, and in 62 % at most, however much of this text is read through
# however many rotations: 80 % takes twice the text.
WINDOWS, ROTATIONS = 100, range(5, 25)


def rotations_of(settings: Settings) -> range:
    return ROTATIONS if settings.of_reference else PILOT_ROTATIONS


def text_of(settings: Settings) -> Windows:
    """Windows over all of the text; of the reference checkpoint's, none that the pilot has read."""
    if not settings.of_reference:
        return subject_of(settings).windows(PILOT_WINDOWS, settings.seed)
    windows = subject_of(settings).windows()
    read = spread_indices(len(windows), PILOT_WINDOWS, seed=0)
    others = np.setdiff1d(np.arange(len(windows)), read)
    return spread(windows[others], WINDOWS, settings.seed)


def cells(settings: Settings) -> list[Cell]:
    """Five rotations each. With the first five, biases are kept where there are any, too."""
    subject, rotations = subject_of(settings), rotations_of(settings)
    has_biases = subject.is_built_here and subject.config.qkv_bias
    kept = [(True, rotations[0])] if has_biases else []
    of_both = [(False, first) for first in rotations[::AT_ONCE]] + kept
    return [
        Cell({"biases_kept": biases, "first": first}, share=1 + len(ways(settings, biases, first)))
        for biases, first in of_both
    ]


def ways(settings: Settings, biases_kept: bool, first: int) -> list[Way]:
    """Of five rotations from ``first`` on. Equal bits are beside the claim: of the first five."""
    width, rotations = subject_of(settings).width, rotations_of(settings)
    even = not biases_kept and first == rotations[0]
    last = min(first + AT_ONCE, rotations.stop)

    def way(of_keys: int, of_values: int) -> Way:
        return Way(
            "turboquant",
            {"key_bits": of_keys, "value_bits": of_values},
            [
                (TurboQuant(width, of_keys, seed=seed), TurboQuant(width, of_values, seed=seed))
                for seed in range(first, last)
            ],
            {"drop_biases": False} if biases_kept else {},
        )

    return [way(*bits) for bits in ((MANY, EVEN, FEW) if even else (MANY, FEW))]


def of_rotations(settings: Settings, biases_kept: bool, first: int) -> Found:
    chosen = ways(settings, biases_kept, first)
    return read_through(subject_of(settings), text_of(settings), chosen)


@experiment_of_cells(
    CLAIM,
    cells=cells,
    measure=of_rotations,
    smoke=None,
    quick=None,
    full=430,
    protocol=2,
    of_any_model=True,
    as_run_elsewhere=True,
)
def keys_need_more(settings: Settings, found: CellsFound) -> list[Measurement]:
    """What sharing out six bits costs.

    ``loss_saved``: what the loss falls by when the larger part goes to the keys. Where biases are
    kept, keys are as large as the key bias makes them: beside the claim.
    """
    record, windows = recorder(CLAIM), text_of(settings)
    result: list[Measurement] = []
    for kept, suffix in ((False, ""), (True, "_biases_kept")):
        of_kind = [(labels, read) for labels, read in found if labels["biases_kept"] == kept]
        if not of_kind:
            continue
        losses = {}
        for way, read in _joined(settings, of_kind):
            prefix = "biases_kept_" if kept else ""
            result += measurements(windows, way, read, record, prefix)
            losses[way.parameters["key_bits"]] = np.array(read["losses"])
        seeds, _ = losses[MANY[0]].shape
        result.append(
            record(
                windows.crossed_mean(losses[FEW[0]] - losses[MANY[0]]),
                metric=f"loss_saved{suffix}",
                unit="nats/token",
                direction="none",
                option="4 bits for keys, 2 for values",
                parameters={"seeds": seeds},
            )
        )
        if settings.of_reference and not kept:
            result += scatter(losses[FEW[0]] - losses[MANY[0]], windows)
            result += planned_power(settings)
    return result


def _joined(settings: Settings, found: CellsFound) -> list[tuple[Way, dict[str, Found]]]:
    """Each way with all its rotations, and what was read through them, (rotations, windows)."""
    parts: dict[str, list[tuple[Way, dict[str, Found]]]] = {}
    for labels, of_cell in found:
        for way in ways(settings, bool(labels["biases_kept"]), int(labels["first"])):
            parts.setdefault(way.name, []).append((way, of_cell[way.name]))
    result = []
    for of_way in parts.values():
        pairs = [pair for way, _ in of_way for pair in way.pairs]
        way = replace(of_way[0][0], pairs=pairs)
        result.append((way, together([read for _, read in of_way])))
    return result


def scatter(saved: Array, windows: Windows) -> Iterator[Measurement]:
    """Standard deviations of what is saved (rotations, windows): what another run is planned by."""
    found = scatter_of(saved, windows.stretches)
    for option, variance in (
        ("of rotations", found.of_seeds),
        ("of stretches of text", found.of_stretches),
        ("of windows", found.of_blocks),
        ("of both", found.of_both),
    ):
        yield measured(
            math.sqrt(variance),
            claim=CLAIM,
            metric="scatter_of_loss_saved",
            unit="nats/token",
            direction="none",
            choice="scatter",
            option=option,
            parameters={"seeds": len(saved), "windows": len(windows)},
            source="checkpoint",
        )


def planned_power(settings: Settings) -> Iterator[Measurement]:
    """How often a run decides, by the pilot's scatter: as planned, and if all text were read.

    It speaks of 4 + 2 saving as much as in the pilot, and of its saving nothing.
    """
    every = subject_of(settings).windows()
    stretches = len(np.unique(every.stretches))
    for windows in (WINDOWS, len(every)):
        design = Design(len(ROTATIONS), windows, stretches)
        for saved in (PILOT_SAVED, 0.0):
            yield measured(
                crossed_power(saved - BORDER, PILOT_SCATTER, design),
                claim=CLAIM,
                metric="planned_power",
                unit="share of runs",
                direction="higher",
                choice="cache format",
                option=f"saving {saved:g} nats a token",
                parameters={"seeds": design.seeds, "windows": windows},
                source="closed form",
            )
