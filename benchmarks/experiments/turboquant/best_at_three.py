"""L5: the referee. Every format of keys and values beside every other, all bytes counted.

Each row is measured in a cell of its own, on the same windows; here they are put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.experiments.experiment import (
    GIGABYTE,
    Cell,
    CellsFound,
    Found,
    Settings,
    experiment_of_cells,
)
from benchmarks.record.results import Measurement
from benchmarks.referee import speed
from benchmarks.referee.controls import WINDOWS as CONTROL_WINDOWS
from benchmarks.referee.controls import controls
from benchmarks.referee.measurements import measurements
from benchmarks.referee.quality import greedy_texts, predictions
from benchmarks.referee.recalling import needles, recalls
from benchmarks.referee.rows import (
    Row,
    bits_held,
    bytes_once,
    one_of_each_format,
    row_of,
    rows,
)
from benchmarks.referee.texts import calibration_text, calibrations, compared
from benchmarks.subjects.subject import subject_of

CLAIM = "turboquant.best-at-three"
PROCESSES = {"step": 3, "peak": 2}
# What a pass over the windows takes beside TurboQuant's, where it is much: for the progress told.
SLOW = {"e8": 7, "e8-one-step": 2, "e8-unbiased": 2} | dict.fromkeys(
    ("kvarn", "kvarn-signs", "kvarn-tile-64", "kvarn-relative-floor"), 2.5
)


def cells(settings: Settings) -> list[Cell]:
    subject = subject_of(settings)
    return cells_of(settings, rows(subject.width, subject.window))


def cells_of(settings: Settings, chosen: Sequence[Row]) -> list[Cell]:
    """A cell for each row's quality; the controls; and of each format needles, speed and peak.

    The last two are measured on a CPU alone: elsewhere other code reads the cache, by format.
    """
    found = [Cell({"part": "controls"}, share=4, memory=2 * GIGABYTE)]
    for row in chosen:
        share = 2.0 + row.seeds * SLOW.get(row.format, 1)
        labels = {"part": "quality", **row.parameters}
        found.append(Cell(labels, share, memory=3 * GIGABYTE))
    in_depth = one_of_each_format(chosen)
    found.append(Cell({"part": "needles"}, share=1, memory=3 * GIGABYTE))
    for row in in_depth:
        share = 1.0 * SLOW.get(row.format, 1)
        found.append(Cell({"part": "needles", **row.parameters}, share, memory=3 * GIGABYTE))
    if settings.device != "cpu":
        return found
    for row in in_depth:
        for part, share in (("step", 1.0), ("peak", 1.5)):
            for process in range(PROCESSES[part]):
                labels = {"part": part, **row.parameters, "process": process}
                found.append(Cell(labels, share, timed=part == "step", memory=2 * GIGABYTE))
    found += [Cell({"part": "peak", "process": i}) for i in range(PROCESSES["peak"])]
    return found


def of_a_cell(settings: Settings, part: str, process: int = 0, **labels: Any) -> Found:
    row = row_of(labels) if labels else None
    if part == "peak":
        return [speed.peak(settings, row)]
    if part == "controls":
        text = calibration_text(settings)[np.arange(CONTROL_WINDOWS)]
        return controls(subject_of(settings).model(), text, batch_size(settings))
    if part == "needles":
        return needles(row, settings)
    assert row is not None
    if part == "step":
        return speed.steps(settings, row)
    return quality_of(settings, row)


def quality_of(settings: Settings, row: Row) -> Found:
    subject, windows = subject_of(settings), compared(settings)
    model = subject.model()
    calibration = calibrations(settings) if row.of.calibrated else None
    made = row.caches(model, subject.window, calibration, decoded=True)
    caches = {str(seed): make for seed, make in enumerate(made)}
    empty = caches["0"](1)
    return {
        **predictions(model, windows, caches, batch_size(settings)),
        "greedy": greedy_texts(model, windows, {"0": caches["0"]}, subject.window),
        "recall": recalls(row, settings.device, settings.seed),
        "bits_held": bits_held(empty, subject.window),
        "bytes_once": bytes_once(empty),
        "calibration_tokens": calibration[0].tokens if calibration else 0,
    }


def batch_size(settings: Settings) -> int:
    """Windows at once: logits of a large vocabulary are most of what is held."""
    return 2 if subject_of(settings).is_large else 8


@experiment_of_cells(
    CLAIM,
    cells=cells,
    measure=of_a_cell,
    smoke=None,
    quick=None,
    full=2500,
    of_any_model=True,
)
def best_at_three(settings: Settings, found: CellsFound) -> list[Measurement]:
    """KL, loss, texts, bytes and seconds of every row; every pair near 3 and near 4 bits.

    What is held once, however long the text is, is told apart: comparisons take the bits that grow
    with the tokens, as a mean over the positions that are read.
    """
    return measurements(CLAIM, compared(settings), found)
