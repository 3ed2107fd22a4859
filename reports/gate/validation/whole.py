"""The whole validation of a target: what is missing of it is measured, spread over hours."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from reports.gate.validation import lines, real
from reports.gate.validation.recording import record_pairs
from reports.gate.validation.targets import Target

# A third of the stretches of time are beside a noisy neighbour.
STRETCHES, PAIRS_OF_STRETCH = 6, 100
OTHERS = 3  # runs of each case whose rate is not told


def measure(path: Path, target: Target, tell: Callable[[str], None]) -> None:
    """Pairs in stretches, and real runs between them, so that the stretches lie apart in time."""
    for stretch in range(STRETCHES):
        label, neighbour = f"stretch {stretch + 1}", has_neighbour(stretch)
        if missing := missing_pairs(path, stretch):
            upto = len(lines.of_today(path, kind="pair", stretch=label)) + missing
            record_pairs(path, target, label, upto, neighbour, tell)
        with target.repository() as repository:
            for case, runs in target.real.items():
                due = runs_by(stretch, runs)
                real.real_runs(path, repository, case, due, tell, neighbour, target=target)
    with target.repository() as repository:
        for case in (case for case in target.injections if case not in target.real):
            real.real_runs(path, repository, case, OTHERS, tell, target=target)


def has_neighbour(stretch: int) -> bool:
    return stretch % 3 == 2


def missing_pairs(path: Path, stretch: int) -> int:
    """Of those due when a stretch ends, beside a neighbour or not as it, by whatever stretches."""
    neighbour = has_neighbour(stretch)
    alike = sum(has_neighbour(other) == neighbour for other in range(stretch + 1))
    recorded = len(lines.of_today(path, kind="pair", neighbour=neighbour))
    return max(PAIRS_OF_STRETCH * alike - recorded, 0)


def runs_by(stretch: int, runs: int) -> int:
    """Of ``runs`` in all, those that are due when a stretch ends, beside a neighbour or not as it.

    A third of them have a neighbour, as a third of the stretches.
    """
    alike = [has_neighbour(other) == has_neighbour(stretch) for other in range(STRETCHES)]
    quota = runs // 3 if has_neighbour(stretch) else runs - runs // 3
    return math.ceil(quota * sum(alike[: stretch + 1]) / sum(alike))
