"""The whole validation of a target: what is missing of it is measured, spread over hours."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from reports.gate.validation import lines, real
from reports.gate.validation.recording import record_pairs
from reports.gate.validation.targets import Target

# A third of the blocks of pairs are under background load.
BLOCKS, PAIRS_OF_BLOCK = 6, 100
OTHERS = 3  # runs of each case whose rate is not told


def measure(path: Path, target: Target, tell: Callable[[str], None]) -> None:
    """Pairs in blocks, and real runs between them, so that the blocks lie apart in time."""
    for block in range(BLOCKS):
        # As in stored lines, which have "neighbour" for a background load: what was begun goes on.
        label, background_load = f"stretch {block + 1}", is_loaded(block)
        if missing := missing_pairs(path, block):
            upto = len(lines.of_today(path, kind="pair", stretch=label)) + missing
            record_pairs(path, target, label, upto, background_load, tell)
        with target.repository() as repository:
            for case, runs in target.real.items():
                due = runs_by(block, runs)
                real.real_runs(path, repository, case, due, tell, background_load, target=target)
    with target.repository() as repository:
        for case in (case for case in target.injections if case not in target.real):
            real.real_runs(path, repository, case, OTHERS, tell, target=target)


def is_loaded(block: int) -> bool:
    return block % 3 == 2


def missing_pairs(path: Path, block: int) -> int:
    """Of those due when a block ends, under load or not as it, by whatever blocks."""
    background_load = is_loaded(block)
    alike = sum(is_loaded(other) == background_load for other in range(block + 1))
    recorded = len(lines.of_today(path, kind="pair", neighbour=background_load))
    return max(PAIRS_OF_BLOCK * alike - recorded, 0)


def runs_by(block: int, runs: int) -> int:
    """Of ``runs`` in all, those that are due when a block ends, under load or not as it.

    A third of them are under load, as a third of the blocks.
    """
    alike = [is_loaded(other) == is_loaded(block) for other in range(BLOCKS)]
    quota = runs // 3 if is_loaded(block) else runs - runs // 3
    return math.ceil(quota * sum(alike[: block + 1]) / sum(alike))
