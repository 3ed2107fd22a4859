"""L5: the referee. Every format of keys and values beside every other, all bytes counted.

Each row is measured in a cell of its own, on the same windows; here they are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from benchmarks.instruments.windows import Windows
from benchmarks.judging.stats import Estimate, geometric_mean_ratio_interval, mean_interval
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.referee import speed
from benchmarks.referee.comparing import all_pairs, near, paired, strongest
from benchmarks.referee.controls import WINDOWS as CONTROL_WINDOWS
from benchmarks.referee.controls import controls
from benchmarks.referee.quality import greedy_texts, predictions
from benchmarks.referee.rows import TURBOQUANT, Row, bits_held, bytes_once, row_of, rows
from benchmarks.referee.table import BETWEEN
from benchmarks.referee.texts import calibration_text, calibrations, compared
from benchmarks.subjects.subject import subject_of

CLAIM = "turboquant.best-at-three"
CLAIMED = Row(TURBOQUANT, 3, 3)
NEAR = (3, 4)  # bits of a code of TurboQuant's: around what it holds at them all pairs are compared
PROCESSES = {"step": 3, "peak": 2}
# Seconds of one pass over the windows that a format takes beside TurboQuant's: see `cells`.
SLOW = {"e8": 6, "e8-one-step": 2.5, "kvarn": 3, "kvarn-signs": 3, "kvarn-tile-64": 3}


def cells(settings: Settings) -> list[Cell]:
    return cells_of(rows(subject_of(settings).width))


def cells_of(chosen: Sequence[Row]) -> list[Cell]:
    """A cell for each row's quality; processes for each format's speed and peak; the controls."""
    found = [Cell({"part": "controls"}, share=4, memory=2 * GIGABYTE)]
    for row in chosen:
        share = 2 + row.seeds * SLOW.get(row.format, 1)
        labels = {"part": "quality", **row.parameters}
        found.append(Cell(labels, share, memory=3 * GIGABYTE))
    for row in one_of_each_format(chosen):
        for part, share in (("step", 1.0), ("peak", 1.5)):
            for process in range(PROCESSES[part]):
                labels = {"part": part, **row.parameters, "process": process}
                found.append(Cell(labels, share, timed=part == "step", memory=2 * GIGABYTE))
    found += [Cell({"part": "peak", "process": i}) for i in range(PROCESSES["peak"])]
    return found


def one_of_each_format(chosen: Sequence[Row]) -> list[Row]:
    """Bare, at 3 bits or the nearest to them: what is timed, and whose peak is read."""
    nearest: dict[str, Row] = {}
    for row in sorted(chosen, key=lambda row: abs(row.key_bits - CLAIMED.key_bits)):
        if row.bare and row.key_bits == row.value_bits:
            nearest.setdefault(row.format, row)
    return [nearest[name] for name in dict.fromkeys(row.format for row in chosen if row.bare)]


def of_a_cell(settings: Settings, part: str, process: int = 0, **labels: Any) -> Found:
    row = row_of(labels) if labels else None
    if part == "peak":
        return [speed.peak(settings, row)]
    if part == "controls":
        text = calibration_text(settings)[np.arange(CONTROL_WINDOWS)]
        return controls(subject_of(settings).model(), text, batch_size(settings))
    assert row is not None
    if part == "step":
        return speed.steps(settings, row)
    return quality_of(settings, row)


def quality_of(settings: Settings, row: Row) -> Found:
    subject, windows = subject_of(settings), compared(settings)
    model = subject.model()
    calibration = calibrations(settings) if row.of.calibrated else None
    made = row.caches(model, subject.window, calibration)
    caches = {str(seed): make for seed, make in enumerate(made)}
    empty = caches["0"](1)
    # Recall: what benchmarks/instruments/recall.py finds through these caches belongs here, as
    # "recall": a table (seeds, prompts) of 0 and 1.
    return {
        **predictions(model, windows, caches, batch_size(settings)),
        "greedy": greedy_texts(model, windows, caches, subject.window),
        "bits_held": bits_held(empty, subject.window),
        "bytes_once": bytes_once(empty),
        "calibration_tokens": calibration[0].tokens if calibration else 0,
    }


def batch_size(settings: Settings) -> int:
    """Windows at once: logits of a large vocabulary are most of what is held."""
    return 2 if subject_of(settings).is_large else 8


@dataclass(frozen=True)
class Measured:
    """A row, what was found of it, and the labels of its measurements."""

    row: Row
    found: Mapping[str, Any]

    @property
    def bits(self) -> float:
        return float(self.found["bits_held"])

    @property
    def labels(self) -> dict[str, Parameter]:
        row = self.row
        return {
            "bits": row.bits,
            "kept": row.options,
            "bits_held": round(self.bits, 4),
            "published": row.of.published,
            "seeds": row.seeds,
        }


@experiment_of_cells(
    CLAIM,
    cells=cells,
    measure=of_a_cell,
    smoke=None,
    quick=None,
    full=2900,
    of_any_model=True,
)
def best_at_three(settings: Settings, found: CellsFound) -> list[Measurement]:
    """KL, loss, texts, bytes and seconds of every row; every pair near 3 and near 4 bits.

    What is held once, however long the text is, is told apart: comparisons take the bits that grow
    with the tokens, as a mean over the positions that are read.
    """
    windows = compared(settings)
    by_part: dict[str, list[tuple[dict[str, Any], Any]]] = {}
    for labels, of_cell in found:
        by_part.setdefault(str(labels["part"]), []).append((labels, of_cell))
    rows_found = [Measured(row_of(labels), each) for labels, each in by_part.get("quality", [])]
    record = partial(measured, claim=CLAIM, choice="cache format", direction="lower")
    result: list[Measurement] = []
    for each in rows_found:
        result += _of_a_row(each, windows, record)
    result += _of_pairs(rows_found, windows, record)
    result += _of_rivals(rows_found, windows, record)
    for _, of_controls in by_part.get("controls", []):
        result += _of_controls(of_controls, record)
    result += _of_steps(by_part.get("step", []), record)
    result += _of_peaks(by_part.get("peak", []), record)
    return result


Record = Callable[..., Measurement]


def _of_a_row(each: Measured, windows: Windows, record: Record) -> Iterator[Measurement]:
    found, row = each.found, each.row
    record = partial(record, option=row.of.title, parameters=each.labels, source="checkpoint")
    nats = "nats/token"
    yield record(windows.crossed_mean(found["divergences"]), metric="prediction_kl", unit=nats)
    increase = np.array(found["losses"]) - np.array(found["baseline"])
    yield record(windows.crossed_mean(increase), metric="loss_increase", unit=nats)
    value, low, high, n = found["p99"]
    tail = Estimate(value, (low, high), int(n)).of(windows.population)
    yield record(tail, metric="kl_p99", unit=nats)
    share = partial(record, direction="higher")
    yield share(
        windows.crossed_mean(found["agreements"]), metric="top1_agreement", unit="share of tokens"
    )
    texts = windows[np.array(found["greedy"]["windows"])]
    until = np.array(found["greedy"]["until"])
    for metric, values, unit in (
        ("greedy_agreement", until, "share of tokens"),
        ("greedy_texts_equal", (until == 1).astype(float), "share of texts"),
    ):
        yield share(texts.crossed_mean(values), metric=metric, unit=unit)
    if "recall" in found:
        yield share(_recall(found), metric="recall", unit="share of prompts")
    once = {"metric": "bytes_once", "unit": "bytes", "source": "buffers"}
    yield record(found["bytes_once"], **once)
    if row.of.calibrated:
        yield record(
            found["calibration_tokens"],
            metric="calibration_tokens",
            unit="tokens",
            source="counted",
            direction="none",
        )
    for depth, values in enumerate(found["by_depth"]) if row.bare else ():
        yield record(
            windows.crossed_mean(values),
            metric="kl_by_depth",
            unit=nats,
            parameters={**each.labels, "eighth": depth + 1},
        )


def _recall(found: Mapping[str, Any]) -> Estimate:
    from benchmarks.judging.stats import crossed_mean_interval

    return crossed_mean_interval(found["recall"])


def _of_pairs(
    rows_found: Sequence[Measured], windows: Windows, record: Record
) -> Iterator[Measurement]:
    """All pairs of rows that hold about what TurboQuant holds at 3 bits, and at 4."""
    by_name = {each.row.name: each for each in rows_found}
    bits = {name: each.bits for name, each in by_name.items()}
    for code_bits in NEAR:
        center = _turboquant_at(code_bits, [each.row for each in rows_found])
        if center is None:
            continue
        chosen = near(bits, bits[center.name])
        compared_here = {name: by_name[name].found["divergences"] for name in chosen}
        pairs = all_pairs(compared_here, windows)
        for pair in pairs:
            yield record(
                pair.difference,
                metric="kl_difference",
                unit="nats/token",
                direction="none",
                option=f"{pair.first}{BETWEEN}{pair.second}",
                parameters={
                    "near": code_bits,
                    "center": center.name,
                    "outcome": pair.outcome,
                    "holm_p": _short(pair.p),
                },
                source="checkpoint",
            )
        if pairs:
            settled = sum(pair.outcome != "open" for pair in pairs)
            yield record(
                settled / len(pairs),
                metric="settled_share",
                unit="share of pairs",
                direction="higher",
                option="all formats",
                parameters={"near": code_bits, "pairs": len(pairs)},
                source="counted",
            )


def _turboquant_at(bits: int, chosen: Sequence[Row]) -> Row | None:
    """Bare, or with the options that every row was given."""
    own = [row for row in chosen if (row.format, row.bits) == (TURBOQUANT, str(bits))]
    return min(own, key=lambda row: not row.bare, default=None)


def _short(p: float) -> float:
    return float(f"{p:.2g}")


def _of_rivals(
    rows_found: Sequence[Measured], windows: Windows, record: Record
) -> Iterator[Measurement]:
    """The claim's own numbers: what holds no more than TurboQuant at 3 bits, beside it."""
    ours = next((each for each in rows_found if each.row == CLAIMED), None)
    if ours is None:
        return
    rivals = {
        each.row.name: each
        for each in rows_found
        if not each.row.is_turboquant and each.bits <= ours.bits
    }
    for name, rival in rivals.items():
        yield record(
            paired(rival.found["divergences"], ours.found["divergences"], windows),
            metric="kl_over_turboquant",
            unit="nats/token",
            option=name,
            parameters={"bits_held": round(rival.bits, 4)},
            source="checkpoint",
        )
    found = strongest(
        {name: rival.found["divergences"] for name, rival in rivals.items()},
        ours.found["divergences"],
        windows,
    )
    if found is not None:
        name, difference = found
        yield record(
            difference,
            metric="strongest_rival_kl",
            unit="nats/token",
            option=name,
            parameters={"rivals": len(rivals)},
            source="checkpoint",
        )


def _of_controls(found: Mapping[str, Any], record: Record) -> Iterator[Measurement]:
    record = partial(record, source="checkpoint")
    for name, changes in found["changes"].items():
        yield record(
            max(changes.values()),
            metric="equal_control",
            unit="nats/token",
            option=name,
            parameters={},
        )
    for name, ratios in found["ratios"].items():
        for seed, ratio in enumerate(ratios):
            yield record(
                ratio,
                metric="damaged_control",
                unit="ratio",
                direction="none",
                option=name,
                parameters={"seed": seed},
            )


def _of_steps(found: CellsFound, record: Record) -> Iterator[Measurement]:
    """Speed over the uncompressed cache, of processes."""
    for row, of_row in _by_row(found):
        assert row is not None
        for tokens in of_row[0]:
            plain, own = np.array([of_process[tokens] for of_process in of_row]).T
            yield record(
                geometric_mean_ratio_interval(plain / own),
                metric="speed_over_uncompressed",
                unit="ratio",
                direction="higher",
                option=row.of.title,
                parameters={"bits": row.bits, "tokens": int(tokens)},
                source="clock",
            )


def _of_peaks(found: CellsFound, record: Record) -> Iterator[Measurement]:
    for row, of_row in _by_row(found):
        yield record(
            mean_interval([value for (value,) in of_row]),
            metric="peak_bytes",
            unit="bytes",
            option=row.of.title if row else "uncompressed float32",
            parameters={"bits": row.bits if row else "32", "tokens": speed.PROMPT},
            source="RSS of fresh processes",
        )


def _by_row(found: CellsFound) -> list[tuple[Row | None, list[Any]]]:
    """What was found of each row, process by process."""
    of_rows: dict[Row | None, list[Any]] = {}
    for labels, of_process in found:
        row = row_of(labels) if "format" in labels else None
        of_rows.setdefault(row, []).append(of_process)
    return list(of_rows.items())
