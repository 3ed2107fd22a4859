"""What the referee's cells found, as measurements: of each row, of pairs, and of the claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.experiments.experiment import CellsFound
from benchmarks.instruments.windows import Windows
from benchmarks.judging.stats import (
    Estimate,
    crossed_mean_interval,
    geometric_mean_ratio_interval,
    mean_interval,
)
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.referee.comparing import Units, all_pairs, near, outcomes
from benchmarks.referee.rivals import Compared, needles_of, recall_of, rivals_of
from benchmarks.referee.rows import TURBOQUANT, Row, one_of_each_format, row_of
from benchmarks.referee.speed import PROMPT

NEAR = (3, 4)  # bits of a code of TurboQuant's: around what it holds at them all pairs are compared
NATS = "nats/token"

Record = Callable[..., Measurement]


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


def measurements(claim: str, windows: Windows, found: CellsFound) -> list[Measurement]:
    """Of all cells that there are: those of rows, of processes, and of the controls."""
    by_part: dict[str, list[tuple[dict[str, Any], Any]]] = {}
    for labels, of_cell in found:
        by_part.setdefault(str(labels["part"]), []).append((labels, of_cell))
    rows_found = [Measured(row_of(labels), each) for labels, each in by_part.get("quality", [])]
    in_depth = one_of_each_format([each.row for each in rows_found])
    record = partial(measured, claim=claim, choice="cache format", direction="lower")
    result: list[Measurement] = []
    for each in rows_found:
        result += _of_a_row(each, windows, record)
        if each.row in in_depth:
            result += _by_depth(each, windows, record)
    result += _of_pairs(rows_found, windows, record)
    result += _of_rivals(rows_found, by_part.get("needles", []), windows, record)
    for _, of_controls in by_part.get("controls", []):
        result += _of_controls(of_controls, record)
    result += _of_steps(by_part.get("step", []), record)
    result += _of_peaks(by_part.get("peak", []), record)
    return result


def _of_a_row(each: Measured, windows: Windows, record: Record) -> Iterator[Measurement]:
    found, row = each.found, each.row
    record = partial(record, option=row.of.title, parameters=each.labels, source="checkpoint")
    yield record(windows.crossed_mean(found["divergences"]), metric="prediction_kl", unit=NATS)
    increase = np.array(found["losses"]) - np.array(found["baseline"])
    yield record(windows.crossed_mean(increase), metric="loss_increase", unit=NATS)
    value, low, high, n = found["p99"]
    tail = Estimate(value, (low, high), int(n)).of(windows.population)
    yield record(tail, metric="kl_p99", unit=NATS)
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
        labels = {**each.labels, "seeds": len(until)}  # one writes for all
        yield share(texts.crossed_mean(values), metric=metric, unit=unit, parameters=labels)
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


def _by_depth(each: Measured, windows: Windows, record: Record) -> Iterator[Measurement]:
    """KL at each eighth of a window."""
    for depth, values in enumerate(each.found["by_depth"]):
        yield record(
            windows.crossed_mean(values),
            metric="kl_by_depth",
            unit=NATS,
            option=each.row.of.title,
            parameters={**each.labels, "eighth": depth + 1},
            source="checkpoint",
        )


def _of_pairs(
    rows_found: Sequence[Measured], windows: Windows, record: Record
) -> Iterator[Measurement]:
    """Pairs of rows as large as each other, near what TurboQuant holds at 3 bits, and at 4."""
    by_name = {each.row.name: each for each in rows_found}
    bits = {name: each.bits for name, each in by_name.items()}
    for code_bits in NEAR:
        center = _turboquant_at(code_bits, [each.row for each in rows_found])
        if center is None:
            continue
        chosen = near(bits, bits[center.name])
        compared_here = {name: by_name[name].found["divergences"] for name in chosen}
        pairs = all_pairs(compared_here, bits, units_of(windows))
        for pair in pairs:
            yield record(
                pair.difference,
                metric="kl_difference",
                unit=NATS,
                direction="none",
                option=pair.name,
                parameters={"near": code_bits},
                source="checkpoint",
            )
        if not pairs:
            continue
        found = outcomes([pair.difference for pair in pairs])
        for metric, counted in (
            ("decided_share", ("decided",)),
            ("settled_share", ("decided", "equal")),
        ):
            yield record(
                sum(outcome in counted for outcome in found) / len(pairs),
                metric=metric,
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


def _of_rivals(
    rows_found: Sequence[Measured], needle_cells: CellsFound, windows: Windows, record: Record
) -> Iterator[Measurement]:
    """The claim's own numbers, and the share that each row recalls."""
    bits = {each.row: each.bits for each in rows_found}
    labels = {each.row: each.labels for each in rows_found}
    found = {each.row: each.found for each in rows_found}
    kl = {row: each["divergences"] for row, each in found.items()}
    compared = [Compared("kl", NATS, units_of(windows), kl, True, {}), recall_of(found)]
    asked = [(_row_or_none(of), each) for of, each in needle_cells]
    planted = needles_of([(row, each) for row, each in asked if row is None or row in bits])
    if planted is not None:
        exact, needles = planted
        yield record(
            int(exact.sum()),
            metric="needles_found",
            unit="answers",
            direction="none",
            option="float16",
            parameters={"asked": len(exact)},
            source="checkpoint",
        )
        compared.append(needles)
    for each in compared:
        yield from rivals_of(bits, each, record)
        if each.metric != "recall":
            continue
        for row, values in each.values.items():
            yield record(
                crossed_mean_interval(values, each.units.clusters).of(each.units.population),
                metric="recall",
                unit=each.unit,
                direction="higher",
                option=row.of.title,
                parameters={**labels[row], **each.labels, "seeds": len(np.asarray(values))},
                source="checkpoint",
            )


def _of_controls(found: Mapping[str, Any], record: Record) -> Iterator[Measurement]:
    record = partial(record, source="checkpoint")
    for name, changes in found["changes"].items():
        yield record(
            max(changes.values()),
            metric="equal_control",
            unit=NATS,
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
            parameters={"bits": row.bits if row else "32", "tokens": PROMPT},
            source="RSS of fresh processes",
        )


def _by_row(found: CellsFound) -> list[tuple[Row | None, list[Any]]]:
    """What was found of each row, process by process."""
    of_rows: dict[Row | None, list[Any]] = {}
    for labels, of_process in found:
        row = _row_or_none(labels)
        of_rows.setdefault(row, []).append(of_process)
    return list(of_rows.items())


def _row_or_none(labels: Mapping[str, Any]) -> Row | None:
    """None: the uncompressed cache."""
    return row_of(dict(labels)) if "format" in labels else None


def units_of(windows: Windows) -> Units:
    return Units(windows.stretches, windows.population)
