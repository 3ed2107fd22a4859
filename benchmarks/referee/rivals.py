"""The claim's own numbers: what holds no more bytes than TurboQuant's 3 bits, beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.experiments.turboquant.recall import LEAST_NEEDLES, NEEDLE, RECALL
from benchmarks.record.results import Measurement, Parameter
from benchmarks.referee.comparing import Units, paired, strongest
from benchmarks.referee.rows import CLAIMED, TURBOQUANT, Row

Record = Callable[..., Measurement]
OURS = Row(TURBOQUANT, CLAIMED, CLAIMED)


@dataclass(frozen=True)
class Compared:
    """One quantity of all rows that have it: values (seeds, units) by row."""

    metric: str
    unit: str
    units: Units
    values: Mapping[Row, ArrayLike]
    lower_is_better: bool
    labels: Mapping[str, Parameter]


def recall_of(found: Mapping[Row, Any]) -> Compared:
    """Of random pairs: what quality cells found."""
    values = {row: each["recall"] for row, each in found.items() if each["recall"] is not None}
    units = Units(None, "prompts of random pairs")
    return Compared("recall", "share of answers", units, values, False, {"task": RECALL})


def needles_of(
    cells: Sequence[tuple[Row | None, Any]],
) -> tuple[NDArray[np.bool_], Compared] | None:
    """Which needles are found without compression, and which of these by each row.

    The rows have no values where the needles are fewer than can show a loss. None: nothing was
    asked, or the text was too short.
    """
    found = {row: each for row, each in cells if each is not None}
    if None not in found:
        return None
    exact = found.pop(None)
    counted = np.array(exact["found"], dtype=bool)
    units = Units(np.array(exact["clusters"])[counted], exact["population"])
    values: dict[Row, ArrayLike] = {}
    if counted.sum() >= LEAST_NEEDLES:
        values = {
            row: np.array(each["found"], dtype=np.float64)[None, counted]
            for row, each in found.items()
            if row is not None
        }
    labels: dict[str, Parameter] = {"task": NEEDLE}
    return counted, Compared("recall", "share of answers", units, values, False, labels)


def rivals_of(
    bits: Mapping[Row, float], compared: Compared, record: Record
) -> Iterator[Measurement]:
    """Each rival beside TurboQuant at 3 bits, and the one that speaks most against it."""
    ours = compared.values.get(OURS)
    if ours is None:
        return
    rivals = {
        row.name: (row, each)
        for row, each in compared.values.items()
        if not row.is_turboquant and round(bits[row], 4) <= round(bits[OURS], 4)
    }
    for name, (row, of_rival) in rivals.items():
        yield record(
            paired(of_rival, ours, compared.units),
            metric=f"{compared.metric}_over_turboquant",
            unit=compared.unit,
            direction="lower" if compared.lower_is_better else "higher",
            option=name,
            parameters={"bits_held": round(bits[row], 4), **compared.labels},
            source="checkpoint",
        )
    values = {name: each for name, (_, each) in rivals.items()}
    found = strongest(values, ours, compared.units, compared.lower_is_better)
    if found is not None:
        yield record(
            found[1],
            metric=f"strongest_rival_{compared.metric}",
            unit=compared.unit,
            direction="none",
            option=found[0],
            parameters={"rivals": len(rivals), **compared.labels},
            source="checkpoint",
        )
