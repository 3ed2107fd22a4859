"""How long a gate takes, by its real runs: until its pairs, and for one of fewer benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Seconds:
    """What the seconds of recorded pairs, of all benchmarks each, do not tell of a gate's own."""

    before: float = 0.0  # the exact layer, and what the first pair has nothing to start beside
    shrinking: float = 0.0  # share of a pair's seconds that would go with all of its benchmarks

    def share(self, measured: Floats) -> Floats:
        """Of a whole pair's seconds, those of a pair that measures this share of benchmarks."""
        return 1 - self.shrinking * (1 - measured)


def seconds_of(runs: Sequence[dict[str, Any]]) -> Seconds:
    """By real runs of the gate; what none of them shows is nothing.

    A pair is compared with whole ones of its own run, so that a busier hour cancels. The line
    through (all benchmarks, all of the seconds) is fitted by least squares.
    """
    exact, first, fewer, shorter = [], [], [], []
    for run in runs:
        if run.get("exact") and run["exact"]["compared"]:
            exact.append(run["exact"]["seconds"])
        measured, took = np.array(run.get("measured") or []), np.array(run.get("took") or [])
        alike = np.flatnonzero(measured == max(measured, default=0))[1:]
        if not len(alike):
            continue
        whole = float(np.median(took[alike]))
        first.append(took[0] - whole)
        fewer.append(1 - measured[1:] / measured[0])
        shorter.append(1 - took[1:] / whole)
    before = median(exact or [0.0]) + median(first or [0.0])
    x, y = (np.concatenate(each) if each else np.zeros(0) for each in (fewer, shorter))
    shrinking = float(x @ y / (x @ x)) if x.any() else 0.0
    return Seconds(before, min(max(shrinking, 0.0), 1.0))
