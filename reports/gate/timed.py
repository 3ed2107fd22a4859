"""The timed layer: pair after pair, until the rule decides or the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from reference_model.errors import UserError
from reports.gate.decision import Decision, Rule, decide
from reports.gate.machine import troubles
from reports.gate.pairs import CONTROL, OutOfTime, Pair

Measure = Callable[[Sequence[str]], Pair]


@dataclass(frozen=True)
class Timed:
    """The decision, in the order of ``ids`` and then the control, and what it rests on."""

    ids: tuple[str, ...]
    decision: Decision
    pairs: tuple[Pair, ...]


def run_pairs(
    measure: Measure,
    ids: Sequence[str],
    rule: Rule,
    budget: float,
    tell: Callable[[int, Decision], None] = lambda pairs, decision: None,
    clock: Callable[[], float] = time.monotonic,
) -> Timed:
    """Measure pairs of those benchmarks that are not yet decided, within ``budget`` seconds.

    ``measure`` is given their ids, and measures the control as well; it may run `OutOfTime`.
    """
    if not ids:
        raise UserError("no timed benchmark is left to compare")
    pairs: list[Pair] = []
    started, matrix = clock(), np.empty((0, len(ids) + 1))
    names, is_open = [*ids, CONTROL], list(ids)
    decision = decide(matrix, rule, len(ids))
    while not decision.final:
        longest = max((pair.took for pair in pairs), default=0.0)
        try:
            if clock() - started + longest > budget:
                raise OutOfTime
            pair = measure(is_open)
        except OutOfTime:
            decision = replace(decision, reason=f"{decision.reason}; the budget is spent")
            break
        pairs.append(pair)
        row = [pair.log_ratios.get(name, np.nan) for name in names]
        matrix = np.vstack([matrix, row])
        decision = decide(matrix, rule, len(ids))
        is_open = [
            id
            for id, judged in zip(ids, decision.benchmarks, strict=False)
            if judged.outcome == "inconclusive"
        ]
        tell(len(pairs), decision)
    if decision.outcome == "inconclusive" and (found := troubles([p.machine for p in pairs])):
        decision = replace(decision, reason=f"{decision.reason}; {', '.join(found)}")
    return Timed(tuple(ids), decision, tuple(pairs))
