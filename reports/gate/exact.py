"""The exact layer: numbers that are the same in each run of the same code, compared exactly.

All sides answer at the same time, since nothing is timed. A difference is listed. One for the
worse, or of a result, beyond what another order of the same sums may change, is a regression
without statistics: work that got less is no good news as long as what it results in has changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from benchmarks.gate_suite import COUNTED, Exactness
from reference_model.errors import UserError

Kind = Literal[
    "worse",
    "changed: verify",
    "measured otherwise",
    "gone",
    "accepted",
    "new",
    "better",
    "within tolerance",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
FAILING: tuple[Kind, ...] = ("worse", "changed: verify", "measured otherwise", "gone")
Value = float | dict[str, str]  # or {"skipped": reason}


@dataclass(frozen=True)
class Difference:
    """One benchmark that does not give the same on both sides."""

    id: str
    kind: Kind
    base: float | None
    head: float | None
    because: str = ""


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
    return in_order(found)


def in_order(found: Sequence[Difference]) -> list[Difference]:
    """Those that fail first."""
    return sorted(found, key=lambda difference: KINDS.index(difference.kind))


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
    if how.better == "same":
        return "within tolerance" if abs(after - before) <= how.tolerance else "changed: verify"
    if after > before:
        allowed = how.tolerance + how.share * abs(before)
        return "within tolerance" if after - before <= allowed else "worse"
    return "within tolerance" if before - after <= how.tolerance else "better"


def fails(found: Sequence[Difference]) -> bool:
    """A benchmark that is gone fails as well: what it would have said is not known."""
    return any(difference.kind in FAILING for difference in found)
