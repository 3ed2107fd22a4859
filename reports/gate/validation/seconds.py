"""How long a gate takes beside what recorded pairs tell, by its real runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.gate.validation.real import counted

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Seconds:
    """What is missing where pairs were recorded one after another, of all benchmarks each."""

    before: float = 0.0  # of the budget until the first pair: the exact layer
    first: float = 0.0  # of the first pair, which had nothing to start beside
    of_benchmarks: float = 0.0  # share of a pair's seconds that its benchmarks take
    around: float = 0.0  # not of the budget: the command's own start and end

    def of_pairs(self, took: Floats, measured: Floats) -> Floats:
        """Seconds of a gate's pairs (runs, pairs).

        ``took``: those of recorded ones; ``measured``: the share of benchmarks not yet decided.
        """
        each = took * (1 - self.of_benchmarks * (1 - measured))
        each[:, 0] += self.first
        return np.asarray(each)


def seconds_of(runs: Sequence[dict[str, Any]]) -> Seconds:
    """By real runs of the gate; what none of them shows is 0.

    A pair is compared with whole ones of its own run, so that a busier hour cancels. The line
    through (all benchmarks, all of the seconds) is fitted by least squares.
    """
    before, first, around, fewer, shorter = [], [], [], [], []
    for run in runs:
        if not (exact := counted(run)):
            continue
        before.append(exact["seconds"])
        measured, took = np.array(run.get("measured") or []), np.array(run.get("took") or [])
        whole = took[1:][measured[1:] == max(measured, default=0)]
        if not len(whole):
            continue
        usual = float(np.median(whole))
        first.append(took[0] - usual)
        around.append(run["seconds"] - exact["seconds"] - float(took.sum()))
        fewer.append(1 - measured[1:] / measured[0])
        shorter.append(1 - took[1:] / usual)
    x, y = (np.concatenate([*each, np.zeros(0)]) for each in (fewer, shorter))
    share = float(x @ y / (x @ x)) if x.any() else 0.0
    usual_first, usual_around = (float(median(each or [0.0])) for each in (first, around))
    return Seconds(median(before or [0.0]), usual_first, min(max(share, 0.0), 1.0), usual_around)
