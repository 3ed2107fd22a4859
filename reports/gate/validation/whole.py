"""The whole validation of a target: what is missing of it is measured, spread over hours."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from reports.gate.validation import lines, real
from reports.gate.validation.recording import record_pairs
from reports.gate.validation.targets import Target

# A third of the blocks of pairs are beside a noisy neighbour.
BLOCKS, PAIRS_OF_BLOCK = 6, 100
OTHERS = 3  # runs of each case whose rate is not told


def measure(path: Path, target: Target, tell: Callable[[str], None]) -> None:
    """Pairs in blocks, and real runs between them, so that the blocks lie apart in time."""
    for block in range(BLOCKS):
        # As in lines that are stored: what was begun goes on.
        label, neighbour = f"stretch {block + 1}", has_neighbour(block)
        if missing := missing_pairs(path, block):
            upto = len(lines.of_today(path, kind="pair", stretch=label)) + missing
            record_pairs(path, target, label, upto, neighbour, tell)
        with target.repository() as repository:
            for case, runs in target.real.items():
                due = runs_by(block, runs)
                real.real_runs(path, repository, case, due, tell, neighbour, target=target)
    with target.repository() as repository:
        for case in (case for case in target.injections if case not in target.real):
            real.real_runs(path, repository, case, OTHERS, tell, target=target)


def has_neighbour(block: int) -> bool:
    return block % 3 == 2


def missing_pairs(path: Path, block: int) -> int:
    """Of those due when a block ends, beside a neighbour or not as it, by whatever blocks."""
    neighbour = has_neighbour(block)
    alike = sum(has_neighbour(other) == neighbour for other in range(block + 1))
    recorded = len(lines.of_today(path, kind="pair", neighbour=neighbour))
    return max(PAIRS_OF_BLOCK * alike - recorded, 0)


def runs_by(block: int, runs: int) -> int:
    """Of ``runs`` in all, those that are due when a block ends, beside a neighbour or not as it.

    A third of them have a neighbour, as a third of the blocks.
    """
    alike = [has_neighbour(other) == has_neighbour(block) for other in range(BLOCKS)]
    quota = runs // 3 if has_neighbour(block) else runs - runs // 3
    return math.ceil(quota * sum(alike[: block + 1]) / sum(alike))
