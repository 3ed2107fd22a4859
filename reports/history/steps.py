"""Where a series of values, one a commit, changes its level.

Noisy values: asv's own piecewise constant fit (`asv.step_detect`), by absolute deviations, so that
one slow run is no step, and with the correlation of neighbours in the criterion. Least squares
(ruptures) was tried on the same series: correlated or spiky noise of 50 values needed more than
twice the penalty of 5 white ones, and with one penalty for all it found fewer real steps.

Exact values need no statistics: each difference is a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from asv.step_detect import solve_potts_autogamma

from benchmarks.gate_suite import Exactness

# Of one step, in units of n log(sum of absolute deviations). The smallest one at which no kind of
# noise gives a false step in more than 1 % of series; chosen and measured by
#     python -m reports.history.calibrate --out reports/published/history_steps.json
PENALTY = 9.0
LEAST_SEGMENT = 2  # one value beside the others is an outlier until the next commit says the same
LEAST_VALUES = 5  # of a noisy series; the penalty was measured from this length on


@dataclass(frozen=True)
class Step:
    """The level changes from ``before`` to ``after``, the first value of which is at ``at``."""

    at: int
    before: float
    after: float


def noisy_steps(values: Sequence[float], penalty: float = PENALTY) -> list[Step]:
    """Steps of finite values in the order of their commits; levels are medians."""
    if len(values) < LEAST_VALUES or min(values) == max(values):
        return []
    # asv takes a thousandth of the level for the least noise there is: the level should be 1.
    scale = abs(median(values)) or max(abs(value) for value in values)
    ends, levels, *_ = solve_potts_autogamma(
        [value / scale for value in values],
        [1.0] * len(values),
        beta=penalty / len(values),
        min_size=LEAST_SEGMENT,
    )
    return [
        Step(end, before * scale, after * scale)
        for end, before, after in zip(ends, levels, levels[1:], strict=False)
    ]


def exact_steps(values: Sequence[float], exactness: Exactness) -> list[Step]:
    """Each change beyond what another order of the same sums may make of the level before."""
    found: list[Step] = []
    for at, value in enumerate(values):
        level = found[-1].after if found else values[0]
        if abs(value - level) > exactness.tolerance:
            found.append(Step(at, level, value))
    return found
