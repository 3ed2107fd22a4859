"""The exact layer: numbers that are the same in each run of the same code, compared exactly.

Both arms answer at the same time, since nothing is timed. A difference is listed; one for the
worse, beyond what another order of the same sums may change, is a regression without statistics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.gate_suite import COUNTED, Exactness
from reference_model.errors import UserError
from reports.gate.workers import Worker

Kind = Literal["worse", "better", "within tolerance", "new", "gone"]
Value = float | dict[str, str]  # or {"skipped": reason}


@dataclass(frozen=True)
class Difference:
    """One benchmark that does not give the same on both sides."""

    id: str
    kind: Kind
    base: float | None
    head: float | None
    because: str = ""


def exact_values(workers: Sequence[Worker], ids: Sequence[str]) -> list[dict[str, Value]]:
    """Of each worker, all of them at work at once."""
    for worker in workers:
        worker.send("exact", ids=list(ids))
    return [worker.receive()["values"] for worker in workers]


def differences(
    base: Mapping[str, Value], head: Mapping[str, Value], how: Mapping[str, Exactness]
) -> list[Difference]:
    """All of them, the worse ones first; what is skipped on both sides differs in nothing.

    ``how``: what makes each of them worse; a count that must not grow, where nothing is said.
    """
    found = [
        difference
        for id in dict.fromkeys((*base, *head))
        if (difference := _difference(id, base.get(id), head.get(id), how.get(id, COUNTED)))
    ]
    order = ("worse", "gone", "new", "better", "within tolerance")
    return sorted(found, key=lambda difference: order.index(difference.kind))


def _difference(
    id: str, base: Value | None, head: Value | None, how: Exactness
) -> Difference | None:
    before, no_base = _number(base)
    after, no_head = _number(head)
    if before is None and after is None:
        return None
    if before is None:
        return Difference(id, "new", None, after, no_base)
    if after is None:
        return Difference(id, "gone", before, None, no_head)
    if not (math.isfinite(before) and math.isfinite(after)):
        raise UserError(f"{id}: base gives {before} and head {after}; return finite numbers")
    if before == after:
        return None
    return Difference(id, _kind(how, before, after), before, after)


def _number(value: Value | None) -> tuple[float | None, str]:
    if isinstance(value, dict):
        return None, value["skipped"]
    return value, "" if value is not None else "not in the suite"


def _kind(how: Exactness, before: float, after: float) -> Kind:
    if abs(after - before) <= how.tolerance:
        return "within tolerance"
    return "worse" if how.better == "same" or after > before else "better"


def fails(found: Sequence[Difference]) -> bool:
    """A benchmark that is gone fails as well: what it would have said is not known."""
    return any(difference.kind in ("worse", "gone") for difference in found)
