"""Where a series of values, one a commit, changes its level.

Noisy values: the least squares fit of piecewise constant logarithms (ruptures), whose number of
steps k minimises n log(RSS / n) + k PENALTY log(n): the noise is not known, but part of the fit.
asv's own step detection was tried on such series, too, and found fewer steps at as few false ones.

Exact values need no statistics: each difference is a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray
from ruptures import KernelCPD

from benchmarks.gate_suite import Exactness

# The smallest at which no kind of noise and no length gives a false step in more than 1 % of
# series; chosen and measured by
#     python -m reports.history.calibrate --out reports/published/history_steps.json
PENALTY = 8.5
LEAST_VALUES = 5  # of a noisy series; the penalty was measured from this length on
LEAST_SEGMENT = 2  # one value beside the others is an outlier until the next commit says the same
MOST_STEPS = 8  # and at most one in five values, so that the noise can be told from the steps
FALSE_STEPS = 0.01  # in a short series of noise, at most; in a long one, one in so many values:
VALUES_PER_FALSE_STEP = 2000
FLOOR = 1e-4  # deviation, as a share of the level, below which nothing is resolved


@dataclass(frozen=True)
class Step:
    """The level changes from ``before`` to ``after``, the first value of which is at ``at``."""

    at: int
    before: float
    after: float


def noisy_steps(values: Sequence[float], penalty: float = PENALTY) -> list[Step]:
    """Steps of finite values in the order of their commits; levels are medians."""
    price = penalty * price_of_a_step(len(values))
    best, starts = 0.0, [0]
    for gain, candidate in fits(values):
        if gain - price * (len(candidate) - 1) > best:
            best, starts = gain - price * (len(candidate) - 1), candidate
    ends = [*starts[1:], len(values)]
    levels = [median(values[start:end]) for start, end in zip(starts, ends, strict=True) if values]
    return [
        Step(at, before, after)
        for at, before, after in zip(starts[1:], levels, levels[1:], strict=False)
    ]


def price_of_a_step(n: int) -> float:
    """Of ``n`` values, in units of the penalty: below ten, noise gives steps no less often."""
    return math.log(max(n, 10))


def fits(values: Sequence[float]) -> Iterator[tuple[float, list[int]]]:
    """With one step, two, ...: n log(RSS without one / RSS with them), and where levels start."""
    n = len(values)
    if n < LEAST_VALUES or min(values) == max(values):
        return
    signal = _scaled(values)
    without = _squares(signal) + n * FLOOR**2
    search = KernelCPD(kernel="linear", min_size=LEAST_SEGMENT).fit(signal[:, None])
    most = min(n // LEAST_VALUES, MOST_STEPS)
    search.predict(n_bkps=most)  # fits with fewer steps are by-products of the largest
    for count in range(1, most + 1):
        ends = search.predict(n_bkps=count)
        starts = [0, *ends[:-1]]
        squares = sum(_squares(signal[s:e]) for s, e in zip(starts, ends, strict=True))
        yield n * math.log(without / (squares + n * FLOOR**2)), starts


def expected_false_steps(n: int) -> float:
    """At most, in ``n`` values of noise: as calibrate.py measured."""
    return max(FALSE_STEPS, n / VALUES_PER_FALSE_STEP) if n >= LEAST_VALUES else 0.0


def exact_steps(values: Sequence[float], exactness: Exactness) -> list[Step]:
    """Each change beyond what another order of the same sums may make of the level before."""
    found: list[Step] = []
    for at, value in enumerate(values):
        level = found[-1].after if found else values[0]
        if abs(value - level) > exactness.tolerance:
            found.append(Step(at, level, value))
    return found


def _scaled(values: Sequence[float]) -> NDArray[np.float64]:
    """Logarithms, or shares of the largest value where one has none."""
    signal = np.asarray(values, dtype=np.float64)
    if signal.min() > 0:
        return np.asarray(np.log(signal) - np.log(np.median(signal)))  # a ratio may overflow
    return signal / np.abs(signal).max()


def _squares(values: NDArray[np.float64]) -> float:
    return float(((values - values.mean()) ** 2).sum())
